#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# clang-tidy with the checks of .clang-tidy over all our C files, one each run (its va_list check carries state from one file into
# the next), as many at a time as there are cores.
# usage: tidy.sh BUILD_DIR   (with a compile_commands.json)
set -euo pipefail
build=$(cd -- "${1:?usage: tidy.sh BUILD_DIR}" && pwd)
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
find . \( -path ./build -o -path ./data -o -path ./tests \) -prune -o -name '*.c' -print0 |
    xargs -0 -r -n 1 -P "$(nproc)" clang-tidy --quiet -p "$build"
