#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Every shell script passes shellcheck. What is sourced (deploy/lib) is checked where it is sourced: alone it would seem
# to define what nobody uses.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
find .ci deploy tests \( -name '*.sh' -o -path .ci/run \) -not -path 'deploy/lib/*' -print0 |
    xargs -0 shellcheck --external-sources --check-sourced
