#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Fetches the clients of others that tests use (package-lock.json: versions and hashes) into build/foreign, from whatever
# registry npm is set up for. Does nothing, and needs no network, when they are there. Prints the folder.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
FOLDER=$HERE/../../build/foreign
mkdir -p "$FOLDER"
FOLDER=$(cd "$FOLDER" && pwd)

exec 9>"$FOLDER/lock"
flock 9
if ! cmp -s "$HERE/package-lock.json" "$FOLDER/node_modules/installed-lock.json"; then
    cp "$HERE/package.json" "$HERE/package-lock.json" "$FOLDER/"
    (cd "$FOLDER" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2 9>&-)
    cp "$HERE/package-lock.json" "$FOLDER/node_modules/installed-lock.json"
fi
printf '%s\n' "$FOLDER"
