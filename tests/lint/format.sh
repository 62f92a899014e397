#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Every C file is formatted as .clang-format says.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
find . -path ./build -prune -o -path ./data -prune -o \( -name '*.c' -o -name '*.h' \) -print0 |
    xargs -0 -r clang-format --dry-run -Werror
