#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Measures again what docs/benchmarks.md says: what run.sh prints goes to docs/benchmarks/figures/PART.jsonl, run after run;
# tests/bench/median.py FILE gives medians. Wants a machine that does nothing else. Curves are tests/bench/curves.py's.
set -euo pipefail

BENCH=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
KEPT=$BENCH/../../docs/benchmarks/figures
RUNS=3
ADD=false

# Each part: one line of run.sh's arguments.
declare -A PARTS=(
    [store-uniform]='store --messages 2000000 --warm-up 1000000'
    [store-zipf]='store --messages 2000000 --warm-up 1000000 --zipf true'
    [store-uniform-1m]='store --messages 2000000 --warm-up 1000000 --chats 1000000'
    [store-zipf-1m]='store --messages 2000000 --warm-up 1000000 --chats 1000000 --zipf true'
    [store-commits]='store --messages 6000000 --warm-up 1000000 --batch 512 --log-only 128'
    [store-commits-1m]='store --messages 6000000 --warm-up 1000000 --chats 1000000 --batch 512 --log-only 128'
    [store-growth]='store --messages 2000000 --windows 5 --warm-up 1000000 --chats 1000000 --hold-mib 3072'
    [store-growth-at-hand]='store --messages 2000000 --windows 5 --warm-up 1000000 --chats 1000000'
    [store-growth-100k]='store --messages 2000000 --windows 5 --warm-up 1000000 --hold-mib 3072'
    [store-growth-zipf]='store --messages 2000000 --windows 5 --warm-up 1000000 --chats 1000000 --hold-mib 3072 --zipf true'
    [store-bus]='store-bus --messages 1000000'
    [store-bus-1m]='store-bus --messages 1000000 --users 10000'
    [store-sync]='sync'
    [store-history]='history'
    [store-recovery]='recovery --filled 10000000 --users 10000'
    [chat]='chat'
    [chat-no-receipts]='chat --no-receipts'
    [compare]='compare'
    [compare-no-receipts]='compare --no-receipts'
    [chat-500]='chat --rate 500'
    [sessions]='idle --sessions 100000 --seconds 30'
    [sessions-tls]='idle --sessions 100000 --seconds 30 --tls'
    [sessions-one-edge]='idle --sessions most --seconds 26'
    [sessions-one-edge-tls]='idle --sessions most --seconds 26 --tls'
    [login]='login --sessions 10000'
    [login-tls]='login --sessions 10000 --tls'
    [storm]='storm --sessions 20000'
    [failover]='failover --sessions 1000'
    [failover-hang]='failover --sessions 1000 --hang true'
    [rolling]='rolling --sessions 1000'
    [failover-tls]='failover --sessions 1000 --tls'
    [failover-haproxy]='failover --sessions 1000 --haproxy'
    [rolling-haproxy]='rolling --sessions 1000 --haproxy'
    [flap]='flap'
    [tls]='tls'
    [blob]='blob'
    [fsck]='fsck'
    [fsck-10m]='fsck --messages 10000000 --chats 1000000 --seconds 8'
)

usage() {
    cat <<END
usage: tests/bench/figures.sh [--runs N] [--add] PART… | all
N runs of each part (default: 3); --add keeps those that are there. Parts:
$(for part in "${!PARTS[@]}"; do printf '  %-20s run.sh %s\n' "$part" "${PARTS[$part]}"; done | sort)
END
}

# measure PART: RUNS runs; a part is replaced only when all of them are there.
measure() {
    local part=$1 i
    local -a arguments
    read -ra arguments <<<"${PARTS[$part]}"
    if $ADD && [[ -f $KEPT/$part.jsonl ]]; then
        cp -- "$KEPT/$part.jsonl" "$KEPT/$part.jsonl.new"
    else
        : >"$KEPT/$part.jsonl.new"
    fi
    for ((i = 1; i <= RUNS; i++)); do
        printf 'figures: %s, run %d of %d\n' "$part" "$i" "$RUNS" >&2
        "$BENCH/run.sh" "${arguments[@]}" 2>/dev/null >>"$KEPT/$part.jsonl.new"
    done
    mv -- "$KEPT/$part.jsonl.new" "$KEPT/$part.jsonl"
}

main() {
    local part wanted=()
    while (($#)); do
        case $1 in
            --runs)
                RUNS=${2:?a number}
                shift
                ;;
            --add) ADD=true ;;
            all) wanted=("${!PARTS[@]}") ;;
            *)
                [[ -n ${PARTS[$1]:-} ]] || {
                    usage >&2
                    exit 2
                }
                wanted+=("$1")
                ;;
        esac
        shift
    done
    ((${#wanted[@]})) || {
        usage
        exit 0
    }
    mkdir -p -- "$KEPT"
    for part in "${wanted[@]}"; do
        measure "$part"
    done
}

main "$@"
