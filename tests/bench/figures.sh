#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Everything that docs/benchmarks.md says about the store, measured again: medians into docs/benchmarks/store.jsonl, one JSON object
# per figure. Takes about 25 minutes and wants a machine that does nothing else. Curves are tests/bench/curves.py's.
# usage: tests/bench/figures.sh [RUNS]
set -euo pipefail

BENCH=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
RUNS=${1:-3}
KEPT=$BENCH/../../docs/benchmarks

# repeat ARGUMENTS...: medians of RUNS runs.
repeat() {
    local i
    printf 'figures: %s\n' "$*" >&2
    for ((i = 0; i < RUNS; i++)); do
        "$BENCH/run.sh" "$@" 2>/dev/null
    done | "$BENCH/median.py"
}

main() {
    mkdir -p -- "$KEPT"
    {
        repeat store --messages 2000000 --warm-up 1000000
        repeat store --messages 2000000 --warm-up 1000000 --zipf true
        repeat store --messages 2000000 --warm-up 1000000 --chats 1000000
        repeat store --messages 2000000 --warm-up 1000000 --chats 1000000 --zipf true
        repeat store-bus --messages 1000000
        repeat store-bus --messages 1000000 --users 10000
        repeat sync
        repeat history
        repeat recovery --filled 10000000 --users 10000
    } >"$KEPT/store.jsonl.new"
    mv -- "$KEPT/store.jsonl.new" "$KEPT/store.jsonl"
}

main
