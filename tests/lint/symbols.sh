#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# External symbols of each library carry its prefix: cq_ for common and the client library, <folder>_ for the others.
# usage: symbols.sh BUILD_DIR
set -euo pipefail

build=${1:?usage: symbols.sh BUILD_DIR}
failed=0
checked=0

prefix_of() {
    case $1 in
        common) printf 'cq_|getpid$\n' ;; # rt/pid.h
        client) printf 'cq_|client_|cli_|ctl_|out_|json_|lineedit_\n' ;; # the library; the programs' own
        *) printf '%s_\n' "$1" ;;
    esac
}

for folder in common broker edge store presence blobd client; do
    [[ -d $build/$folder ]] || continue
    while read -r library; do
        checked=$((checked + 1))
        # Columns: [value] type name. U is what it uses of others; the sanitizers and the compiler have names with underscores.
        while read -r symbol; do
            printf '%s: external symbol without the prefix %s: %s\n' "${library#"$build"/}" "$(prefix_of "$folder")" "$symbol"
            failed=1
        done < <(nm --extern-only --defined-only --format=posix "$library" 2>/dev/null |
            awk 'NF >= 2 && $2 ~ /^[TDBRCVW]$/ {print $1}' | grep -Ev "^($(prefix_of "$folder")|_)" | sort -u)
    done < <(find "$build/$folder" -name '*.a')
done
((checked)) || {
    printf 'no library under %s\n' "$build" >&2
    exit 2
}
printf '%d libraries checked\n' "$checked"
exit "$failed"
