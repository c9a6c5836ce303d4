#!/usr/bin/env bash
# Installs ctenrich into a virtual environment:  scripts/install.sh VENV [extra,extra...]
# Versions and hashes are those of constraints.txt; a package whose file has another hash is not installed.
# Linux without an NVIDIA GPU: PyTorch's CPU build is taken where pip is set up to find it, or from the index that
# TORCH_INDEX_URL names; PyTorch's installation page has its address. Otherwise the package index's own build, which is
# larger. PYTHON names the Python to use.
#
# Behind a proxy: HTTPS_PROXY=http://PROXY:PORT scripts/install.sh .venv
# With a mirror of the package index: PIP_INDEX_URL=https://MIRROR/simple (and TORCH_INDEX_URL, if the mirror has PyTorch's builds)
# Where the proxy or mirror has a certificate of its own: PIP_CERT=/path/to/ca-bundle.pem
# Without a network: fill a folder by `pip download` elsewhere, then PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER
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
trap 'explain $?; rm -rf "$work"' EXIT

is_set() { # whether a variable has a value, which may hold a password
    if [ -n "$1" ]; then echo set; else echo "not set"; fi
}

explain() { # the exit code: where pip could not reach its index, name the variables that lead through a proxy or to a mirror
    [ "$1" = 0 ] && return
    cat >&2 <<END
The installation ended with code $1. If the package index could not be reached, set one of these and run it again:
  HTTPS_PROXY=http://PROXY:PORT          behind a proxy (now: $(is_set "${HTTPS_PROXY:-${https_proxy:-}}"))
  PIP_INDEX_URL=https://MIRROR/simple    a mirror of the package index (now: $(is_set "${PIP_INDEX_URL:-}"))
  PIP_CERT=/path/to/ca-bundle.pem        certificates of a proxy or mirror (now: $(is_set "${PIP_CERT:-}"))
END
}

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
