#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Runs one benchmark on a fresh system of its own, which is stopped at the end. One JSON object per figure on stdout.
set -euo pipefail

REPO=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
BIN=${CHASQUI_BIN:-$REPO/build/release/bin}
SCRATCH=

usage() {
    cat <<'END'
usage: tests/bench/run.sh NAME [options]
  chat   pairs who talk; closed loop: --pairs 100 --window 8 --bytes 200 --seconds 10 [--no-receipts] [--silent-acks]
         open loop: --rate 500 (messages per second in total), latency counted from when each was due
  flap   half of the users lose their connections at once and come back, while others chat: --users 20000 --friends 50 --seconds 10
  idle   what sessions cost that say nothing: --sessions 2000 --seconds 25
  login  RESUME and SYNC at once: --sessions 2000 --in-flight 200
  store  the store alone, no bus: --messages 1000000 --chats 100000 --batch 1024 --bytes 200 [--zipf]
  store-bus  messages through broker and store: --in-flight 1024 --messages 1000000
  history    the last 50 messages of a chat, from the disk and from memory: --last 50 --chats 500
  sync       SYNC and CHATS of users with 200 chats: --times 500
  recovery   kill -9 until the first answer: --kills 3 --load-ms 3000
             these four on a store that is filled before: --users 1000 --friends 200 (chats: half of the product) --filled 1000000 (messages)
  fsck   a check of the whole database, no bus: --messages 500000 --chats 50000; the full size: --messages 10000000 --chats 1000000
NAME --help tells the rest. Programs: build/release/bin, or CHASQUI_BIN. TMPDIR says on which disk it runs.
Build them with: cmake --preset release -DBUILD_TESTING=ON && cmake --build --preset release
END
}

die() {
    printf 'bench: %s\n' "$*" >&2
    exit 1
}

clean_up() {
    [[ -n $SCRATCH ]] || return 0
    if [[ -d $SCRATCH/data/run ]]; then
        "$REPO/deploy/run.sh" --stop --data "$SCRATCH/data" >/dev/null 2>&1 || true
    fi
    rm -rf -- "$SCRATCH"
}

# Two free ports in a row.
free_port() {
    local port
    for ((port = 20000 + RANDOM % 20000; port < 60000; port += 2)); do
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && ! (exec 3<>"/dev/tcp/127.0.0.1/$((port + 1))") 2>/dev/null; then
            printf '%s\n' "$port"
            return
        fi
    done
    die "no free ports"
}

# The programs as they are, but for the edge's rate limits: one address and few users make all the load.
prepare_programs() {
    local name limits=()
    mkdir -- "$SCRATCH/bin"
    for name in broker store presence blobd; do
        ln -s -- "$BIN/chasqui-$name" "$SCRATCH/bin/chasqui-$name"
    done
    for name in accept login resume send friend account query signal; do
        limits+=("--limit-$name-per-s" 0)
    done
    printf '#!/bin/sh\nexec "%s" "$@" %s\n' "$BIN/chasqui-edge" "${limits[*]}" >"$SCRATCH/bin/chasqui-edge"
    chmod +x -- "$SCRATCH/bin/chasqui-edge"
}

start_system() {
    PORT=$(free_port)
    prepare_programs
    # /proc/PID/io and smaps_rollup of a process that may not dump core are for root alone.
    CHASQUI_ALLOW_CORE=1 CHASQUI_BIN=$SCRATCH/bin "$REPO/deploy/run.sh" --detach --no-build --data "$SCRATCH/data" \
        --port "$PORT" >&2 || die "the system does not start"
}

# seed_people OPTIONS...: takes --users and --friends for itself and leaves the others in REST.
seed_people() {
    local seed=(--users 20000 --friends 50)
    REST=()
    while (($#)); do
        case $1 in
            --users | --friends | --devices)
                seed+=("$1" "${2:?a number}")
                shift 2
                ;;
            *)
                REST+=("$1")
                shift
                ;;
        esac
    done
    "$BIN/chasqui-bench-seed" --data "$SCRATCH/data" --out "$SCRATCH/people" "${seed[@]}"
}

# ask NAME OPTIONS...: fills a store and asks it through a broker, no edges.
ask() {
    local name=$1 users=1000 friends=200 filled=1000000 behind=0 rest=()
    shift
    case $name in
        history) users=500 filled=4000000 ;;
        recovery) filled=2000000 behind=650000 ;;
    esac
    while (($#)); do
        case $1 in
            --users) users=${2:?a number} ;;
            --friends) friends=${2:?a number} ;;
            --filled) filled=${2:?a number} ;;
            --behind) behind=${2:?a number} ;;
            *)
                rest+=("$1")
                shift
                continue
                ;;
        esac
        shift 2
    done
    if [[ " ${rest[*]} " != *" --help "* ]]; then
        "$BIN/chasqui-bench-fill" --data "$SCRATCH/data" --users "$users" --friends "$friends" --messages "$filled" --behind "$behind"
    fi
    if [[ $name == store-bus ]]; then
        probe_commits "$name"
    fi
    "$BIN/chasqui-bench-ask" "$name" --data "$SCRATCH/data" --users "$users" --friends "$friends" "${rest[@]}"
}

# What one commit costs on this disk right now: the condition that latency is compared with.
probe_commits() {
    "$BIN/chasqui-bench-store" --data "$SCRATCH/probe" --probe "$1" --messages 400 --chats 1 --batch 1
}

main() {
    local name=${1:-}
    case $name in
        chat | flap | idle | login | store | store-bus | history | sync | recovery | fsck) shift ;;
        '')
            usage
            exit 0
            ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
    [[ -x $BIN/chasqui-bench && -x $BIN/chasqui-bench-store ]] ||
        die "$BIN/chasqui-bench is missing: build with BUILD_TESTING=ON (see --help)"
    SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/chasqui-bench.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' INT TERM HUP
    if [[ $name == store || $name == fsck ]]; then
        "$BIN/chasqui-bench-$name" --data "$SCRATCH/store" "$@"
        return
    fi
    case $name in store-bus | history | sync | recovery)
        ask "$name" "$@"
        return
        ;;
    esac
    if [[ " $* " == *" --help "* ]]; then
        "$BIN/chasqui-bench" "$name" --help
        return
    fi
    if [[ $name == chat ]]; then
        probe_commits "$name"
    fi
    if [[ $name == flap ]]; then
        seed_people "$@"
        set -- "${REST[@]}" --seed "$SCRATCH/people"
    fi
    start_system
    if [[ -n ${CHASQUI_BENCH_HOOK:-} ]]; then
        "$CHASQUI_BENCH_HOOK" "$SCRATCH/data" >&2 & # a profiler, for example
    fi
    "$BIN/chasqui-bench" "$name" --data "$SCRATCH/data" --port "$PORT" "$@"
}

main "$@"
