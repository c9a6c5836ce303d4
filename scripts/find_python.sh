#!/usr/bin/env bash
# Prints a Python that is at least MAJOR.MINOR:  scripts/find_python.sh MAJOR MINOR [CANDIDATE...]
# Looks at the candidates, at every python3 on the PATH, and at what pyenv and uv have installed. Exit code 1: none.
set -euo pipefail

major=$1 minor=$2
shift 2

installed() { # lines: one candidate each, as PATH, pyenv and uv have them
    local folder root
    while IFS= read -r -d : folder; do
        compgen -G "${folder:-.}/python3*" || true
    done <<<"$PATH:"
    if root=$(pyenv root 2>/dev/null || echo "${PYENV_ROOT:-$HOME/.pyenv}"); then
        compgen -G "$root/versions/*/bin/python3" || true
    fi
    uv python list --only-installed --no-python-downloads 2>/dev/null | awk '{print $2}' || true
}

while IFS= read -r candidate; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c "import sys, venv; sys.exit(sys.version_info < ($major, $minor))" >/dev/null 2>&1; then
        echo "$candidate"
        exit 0
    fi
done < <(printf '%s\n' "$@"; installed)
exit 1
