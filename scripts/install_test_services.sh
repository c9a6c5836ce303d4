#!/usr/bin/env bash
# Installs what the long tests talk to and compare with; run again, it changes nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

"$here/install_local_bigquery.sh" || echo "BigQuery's stand-in could not be installed" >&2
# nnU-Net v1, the oracle of the v1 tests: without its own dependencies, which cannot be met by a Python of today
"${PYTHON:-$here/../.venv/bin/python}" -m pip --disable-pip-version-check install --quiet --no-deps \
    nnunet==1.7.1 medpy==0.5.2 || echo "nnU-Net v1 could not be installed: its comparisons will be skipped" >&2
"$here/install_bpreg.sh" || echo "bpreg could not be installed: its comparisons will be skipped" >&2
