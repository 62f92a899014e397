#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Every C file is formatted as .clang-format says.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
find broker edge store presence blobd client common tests \( -name '*.c' -o -name '*.h' \) -print0 2>/dev/null |
    xargs -0 -r clang-format --dry-run -Werror
