#!/usr/bin/env bash
# Installs ctenrich into a virtual environment:  scripts/install.sh VENV [extra,extra...]
# The versions are those of constraints.txt. A machine without an NVIDIA GPU gets PyTorch's CPU build.
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
torch=$(grep -E '^torch==' "$root/constraints.txt")

if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    echo "setting up $venv: PyTorch, the largest part; some minutes, pip is quiet meanwhile"
    cpu_only=1
    command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1 && cpu_only=0
    [ "$(uname -s)" = Linux ] || cpu_only=0
    plan=$(mktemp)
    trap 'rm -f "$plan"' EXIT
    "${pip[@]}" install --quiet --dry-run --report "$plan" "$torch"
    if [ "$cpu_only" = 1 ] && grep -q '"name": "\(nvidia\|cuda\)' "$plan"; then
        echo "no NVIDIA GPU here: taking PyTorch's CPU build"
        "${pip[@]}" install --quiet --index-url "${TORCH_INDEX_URL:-https://download.pytorch.org/whl/cpu}" "$torch"
    else
        "${pip[@]}" install --quiet "$torch"
    fi
fi
echo "setting up $venv: ctenrich${extras:+ with $extras} and what it needs; a minute or more, pip is quiet meanwhile"
"${pip[@]}" install --quiet --constraint "$root/constraints.txt" --editable "$root${extras:+[$extras]}"
