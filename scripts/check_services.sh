#!/usr/bin/env bash
# Checks that the components named by CTENRICH_REQUIRE (or the arguments) are there; names each that is not, and why.
#   CTENRICH_REQUIRE=bigquery,orthanc,chromium,java,data scripts/check_services.sh
set -euo pipefail

wanted=("$@")
[ ${#wanted[@]} -gt 0 ] || IFS=', ' read -ra wanted <<<"${CTENRICH_REQUIRE:-}"
services=${CTENRICH_SERVICES_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/ctenrich-services}
missing=0

lacks() { # COMPONENT REASON
    echo "required (CTENRICH_REQUIRE) but not there: $1: $2" >&2
    missing=1
}

program() { # NAME...: whether one of the programs exists
    local name
    for name in "$@"; do command -v "$name" >/dev/null && return; done
    return 1
}

for component in "${wanted[@]}"; do
    case $component in
    bigquery)
        python=${CTENRICH_LOCAL_BIGQUERY_PYTHON:-$services/local-bigquery/bin/python}
        "$python" -c 'import local_bigquery, duckdb_extensions' 2>/dev/null ||
            lacks bigquery "local-bigquery is not installed: scripts/install_local_bigquery.sh says why"
        ;;
    orthanc) program Orthanc orthanc /usr/sbin/Orthanc || lacks orthanc "the Debian package orthanc is not installed" ;;
    chromium)
        program chromium chromium-browser google-chrome || lacks chromium "the Debian package chromium is not installed"
        ;;
    java)
        java -version >/dev/null 2>&1 || lacks java "java does not run: the Debian package default-jre-headless"
        [ -e "${CTENRICH_PIXELMED_JAR:-/usr/share/java/pixelmed.jar}" ] ||
            lacks java "pixelmed.jar is not installed: the Debian package libpixelmed-java"
        ;;
    data)
        [ -d "${CTENRICH_TEST_DATA:-/nonexistent}/data" ] ||
            lacks data "CTENRICH_TEST_DATA names no folder with a folder data in it"
        ;;
    *) ;; # a Python package: the tests look for it themselves
    esac
done
exit $missing
