#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# The crash harness: real services under load, killed again and again. tests/crash/README.md tells what it looks at.
# Programs: build/release/bin, or CHASQUI_BIN. TMPDIR says on which disk it runs.
set -euo pipefail

REPO=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
export CHASQUI_BIN=${CHASQUI_BIN:-$REPO/build/release/bin} PYTHONDONTWRITEBYTECODE=1
ulimit -c 0
program=crash.py
if [[ ${1:-} == --blobs ]]; then
    program=blob_kills.py
    shift
fi
# Debian's, whatever else is called python3 here: its modules come from Debian packages.
exec /usr/bin/python3 "$REPO/tests/crash/$program" "$@"
