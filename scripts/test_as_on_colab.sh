#!/usr/bin/env bash
# Tests ctenrich with Colab's versions of its packages:  scripts/test_as_on_colab.sh FREEZE VENV [PYTEST-ARGUMENT...]
# FREEZE is a list that `pip freeze` printed on Colab. Without further arguments the tests of SQL and of the notebooks run.
# The environment is made once; it has PyTorch's build for NVIDIA GPUs, as Colab has: some GB.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
freeze=$(realpath "$1")
venv=$2
shift 2
[ $# -gt 0 ] || set -- tests/catalog tests/results tests/select tests/notebooks tests/test_install.py -m "not gpu"

if [ ! -f "$venv/.ready" ]; then
    python=$("$root/scripts/find_python.sh" 3 13)
    "$python" -m venv "$venv"
    # a local version (+cu128) is on no index, and CUDA's libraries follow from it
    grep == "$freeze" | sed -E 's/\+[a-z0-9.]+//' | grep -vE '^(nvidia|cuda|triton)' >"$venv/colab.txt"
    "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --constraint "$venv/colab.txt" \
        "$root[colab]" ipykernel nbclient nbconvert papermill pytest pytest-timeout hypothesis
    touch "$venv/.ready"
fi
cd "$root"
# Google's library warns on Python 3.13
PYTHONPATH=$root/pipeline exec "$venv/bin/python" -m pytest -q -p no:cacheprovider \
    -W "ignore:Parsing dates involving a day of month:DeprecationWarning" "$@"
