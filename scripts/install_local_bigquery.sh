#!/usr/bin/env bash
# Makes an environment with local-bigquery, which speaks BigQuery's protocol, for the tests:
#   scripts/install_local_bigquery.sh [FOLDER]
# It needs Python 3.13 or newer: that of PYTHON313, or the first of the PATH, pyenv and uv. DuckDB's extensions come from
# the package index, so that nothing is downloaded later.
# The tests find it in FOLDER's default place, or through CTENRICH_LOCAL_BIGQUERY_PYTHON=FOLDER/bin/python.
set -euo pipefail

folder=${1:-${CTENRICH_SERVICES_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/ctenrich-services}/local-bigquery}
python=$("$(dirname "$0")/find_python.sh" 3 13 "${PYTHON313:-}") || {
    echo "local-bigquery needs Python 3.13 or newer; none is on the PATH, in pyenv or in uv: set PYTHON313 to one" >&2
    exit 3
}
[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
pip=("$folder/bin/python" -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install local-bigquery==0.4.0
# a second command on purpose: it overrides local-bigquery's wish for duckdb 2
"${pip[@]}" install duckdb==1.5.5 duckdb-extensions duckdb-extension-ducklake==1.5.5 duckdb-extension-httpfs==1.5.5 \
    duckdb-extension-spatial==1.5.5
"$folder/bin/python" -c 'import local_bigquery, duckdb_extensions'
echo "local-bigquery is in $folder"
