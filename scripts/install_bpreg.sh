#!/usr/bin/env bash
# Makes an environment with bpreg 1.1.0, for comparison only:  scripts/install_bpreg.sh [FOLDER]
# bpreg's own pins cannot be met by a Python of today. It is installed without them, on top of the packages of the
# environment whose python is named by PYTHON, or of .venv (torch, torchvision, numpy, scipy, nibabel ...).
# The comparisons find it in FOLDER's default place, or through CTENRICH_BPREG_PYTHON=FOLDER/bin/python, and lend it the
# packages of their own environment (CTENRICH_BPREG_BASE): clones can share it, and one of them may be gone.
set -euo pipefail

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/ctenrich-services/bpreg}
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}

"$python" -c 'from importlib.util import find_spec as f; raise SystemExit(not all(map(f, ("numpy", "torch", "torchvision"))))' || {
    echo "bpreg runs on top of an environment that has numpy, torch and torchvision; set PYTHON to its python" >&2
    exit 1
}
[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
base=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
# a line of a .pth file that begins with import is run; zz: behind the packages of this environment
echo "import os, sys; sys.path.append(os.environ.get('CTENRICH_BPREG_BASE', '$base'))" > "$site/zz_base.pth"
"$folder/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps \
    bpreg==1.1.0 lightning pytorch-lightning lightning-utilities torchmetrics \
    albumentations==2.0.8 albucore==0.0.24 opencv-python-headless stringzilla simsimd
cd "$root/scripts"
"$folder/bin/python" -W ignore -c 'import bpreg_oracle; bpreg_oracle.repair(); import bpreg.inference.inference_model'
echo "bpreg is in $folder"
