#!/usr/bin/env bash
# Installs what the long tests talk to and compare with; run again, it changes nothing. Each lives outside the project.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

"$here/install_local_bigquery.sh" || echo "BigQuery's stand-in could not be installed" >&2
"$here/install_bpreg.sh" || echo "bpreg could not be installed: its comparisons will be skipped" >&2
