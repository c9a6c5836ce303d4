#!/usr/bin/env bash
# Installs ctenrich into a virtual environment:  scripts/install.sh VENV [extra,extra...]
# Versions and hashes are those of constraints.txt; a package whose file has another hash is not installed.
# Linux without an NVIDIA GPU: PyTorch's CPU build is taken where pip is set up to find it, or from the index that
# TORCH_INDEX_URL names; PyTorch's installation page has its address. Otherwise the package index's own build, which is
# larger. Behind a proxy or a mirror: HTTPS_PROXY, PIP_INDEX_URL and PIP_CERT, as for pip itself.
set -euo pipefail

venv=$1
extras=${2:-}
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "ctenrich needs Python 3.11 or newer; set PYTHON to one" >&2
    exit 1
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

locked() { # PARTS: install these parts of the lock; pip refuses a file whose hash is not recorded
    "$venv/bin/python" "$root/scripts/lock.py" select "$1" >"$work/locked.txt"
    "${pip[@]}" install --quiet --require-hashes --no-build-isolation --requirement "$work/locked.txt"
}

cpu_build() { # put the wheel of PyTorch's CPU build into $work: as pip is set up here, or from TORCH_INDEX_URL
    local want index=()
    want="$("$venv/bin/python" "$root/scripts/lock.py" version torch)+cpu"
    [ -z "${TORCH_INDEX_URL:-}" ] || index=(--index-url "$TORCH_INDEX_URL")
    "${pip[@]}" download --quiet --no-deps --dest "$work" "${index[@]}" "torch==$want" 2>"$work/refusal.txt"
}

locked build
parts=base
gpu=0
command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1 && gpu=1
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    echo "setting up $venv: PyTorch, the largest part; some minutes, pip is quiet meanwhile"
    if [ "$(uname -s)" != Linux ]; then
        :
    elif [ "$gpu" = 0 ] && cpu_build; then
        wheel=$(echo "$work"/torch-*.whl)
        sum=$("${pip[@]}" hash "$wheel" | grep -o 'sha256:[0-9a-f]*')
        grep -q "$sum" "$root/scripts/torch-cpu.txt" ||
            echo "no hash is recorded for $(basename "$wheel"); it was checked against its index only" >&2
        "${pip[@]}" install --quiet --no-deps "$wheel"
    else
        [ "$gpu" = 1 ] || {
            [ -z "${TORCH_INDEX_URL:-}" ] || { cat "$work/refusal.txt" >&2; exit 1; }
            echo "no NVIDIA GPU here: with TORCH_INDEX_URL set to PyTorch's index of CPU builds some GB are saved" >&2
        }
        parts=base,cuda
    fi
fi
echo "setting up $venv: ctenrich${extras:+ with $extras} and what it needs; a minute or more, pip is quiet meanwhile"
locked "$parts"
[ -z "$extras" ] || locked "$parts,$extras"
"${pip[@]}" install --quiet --no-deps --no-build-isolation --editable "$root"
