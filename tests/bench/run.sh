#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Runs one benchmark on a fresh system of its own, which is stopped at the end. One JSON object per figure on stdout.
set -euo pipefail

REPO=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
BIN=${CHASQUI_BIN:-$REPO/build/release/bin}
SCRATCH=
PEER= # mosquitto, or HAProxy
BALANCER=127.0.0.9 # where HAProxy connects to edges from
LOAD= # the load generator's pid while it runs
WARM_UP=200 # sessions of idle that come first

usage() {
    cat <<'END'
usage: tests/bench/run.sh NAME [options]
with edges, [--edges N] [--tls]; without --edges: two, and in idle and storm as many as the sessions need files for (ulimit -Hn):
  chat      pairs who talk; closed loop: --pairs 100 --window 8 --bytes 200 --seconds 10 [--no-receipts] [--silent-acks]
            open loop: --rate 500 (messages per second in total), latency counted from when each was due
  failover  an edge is killed under those who talk: --sessions 200 --rate 500
            --hang true: it hangs; heartbeats every 2 s, limit 6 s (CHASQUI_BENCH_EDGE may say otherwise)
            --haproxy: clients come through HAProxy (deploy/haproxy.cfg, TLS passed through), which finds them another edge; also rolling
  rolling   the edges are restarted one by one under those who talk: --sessions 200 --rate 500
  flap      half of the users lose their connections at once and come back, while others chat: --users 20000 --friends 50 --seconds 10
  idle      what sessions cost that say nothing: --sessions 2000 --seconds 25; --sessions most: what fits on one edge here, or on --edges N
  login     RESUME and SYNC at once, and again: --sessions 2000 --in-flight 200
  storm     an edge is killed and its sessions come back on two others while pairs talk: --sessions 2000 --pairs 100 --rate 500
            (with more sessions than fit on one: as many edges as they are on)
without:
  store     the store alone, no bus: --messages 1000000 --chats 100000 --batch 1024 --bytes 200 [--zipf]
  store-bus messages through broker and store: --in-flight 1024 --messages 1000000
  history   the last 50 messages of a chat, from the disk and from memory: --last 50 --chats 500
  sync      SYNC and CHATS of users with 200 chats: --times 500
  recovery  kill -9 until the first answer: --kills 3 --load-ms 3000
            these four on a store that is filled before: --users 1000 --friends 200 (chats: half of the product) --filled 1000000 (messages)
  mosquitto the load of chat on Debian's MQTT broker, to compare with: --pairs 100 --window 8 --bytes 200 --seconds 10 [--no-receipts] [--clean]
  compare   chat, then mosquitto
  blob      uploads and downloads at once, next to nginx if it is there (nginx-light): --transfers 200 --bytes 10000000
  tls       what OpenSSL keeps of each connection, by the line of its source: --connections 200
  fsck      a check of the whole database, no bus: --messages 500000 --chats 50000; the full size: --messages 10000000 --chats 1000000
NAME --help tells the rest. Programs: build/release/bin, or CHASQUI_BIN. TMPDIR says on which disk it runs.
People are put into the store before it starts (chasqui-bench-seed).
Build them with: cmake --preset release -DBUILD_TESTING=ON && cmake --build --preset release
END
}

die() {
    printf 'bench: %s\n' "$*" >&2
    exit 1
}

clean_up() {
    [[ -z $LOAD ]] || kill "$LOAD" 2>/dev/null || true
    # It may be writing into the folder that is removed next.
    [[ -z $PEER ]] || { kill "$PEER" && wait "$PEER"; } 2>/dev/null || true
    [[ -n $SCRATCH ]] || return 0
    if [[ -d $SCRATCH/data/run ]]; then
        "$REPO/deploy/run.sh" --stop --data "$SCRATCH/data" >/dev/null 2>&1 || true
    fi
    rm -rf -- "$SCRATCH"
}

# How many sessions one edge can hold: each is an open file, and some are left for other things.
sessions_per_edge() {
    local limit
    limit=$( (ulimit -n 2000000 2>/dev/null || ulimit -n "$(ulimit -Hn)") && ulimit -n)
    printf '%s\n' "$((limit - 500))"
}

# edges_for SESSIONS: how many edges hold them.
edges_for() {
    local most
    most=$(sessions_per_edge)
    printf '%s\n' "$((($1 + most - 1) / most))"
}

# size_system NAME: sets EDGES, if nobody has, and the options that follow from the number of sessions.
size_system() {
    local name=$1 i sessions=2000 killed
    local -a words=("${OPTIONS[@]}")
    for ((i = 0; i + 1 < ${#words[@]}; i++)); do
        [[ ${words[i]} == --sessions ]] || continue
        if [[ $name == idle && ${words[i + 1]} == most ]]; then
            EDGES=${EDGES:-1}
            OPTIONS[i + 1]=$((EDGES * $(sessions_per_edge) - WARM_UP))
        fi
        sessions=${OPTIONS[i + 1]}
    done
    case $name in
        idle) EDGES=${EDGES:-$(edges_for "$((sessions + WARM_UP))")} ;;
        storm)
            killed=$(edges_for "$sessions")
            EDGES=${EDGES:-$((killed + 2))}
            OPTIONS+=(--killed "$killed")
            ;;
        *) EDGES=${EDGES:-2} ;;
    esac
}

# A row of free ports, outside of those that the kernel gives to connections.
free_port() {
    local port n
    for ((port = 10000 + RANDOM % 15000; port < 32000; port += EDGES)); do
        for ((n = 0; n < EDGES; n++)); do
            ! (exec 3<>"/dev/tcp/127.0.0.1/$((port + n))") 2>/dev/null || break
        done
        if ((n == EDGES)); then
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
    for name in $("$BIN/chasqui-edge" --help | sed -n 's/^ *--limit-\([a-z-]*\)-per-s.*/\1/p'); do
        limits+=("--limit-$name-per-s" 0)
    done
    # Who waits for a heartbeat's limit need not wait for a minute.
    if [[ " ${OPTIONS[*]} " == *" --hang true "* ]]; then
        limits+=(--heartbeat-interval-ms 2000 --heartbeat-limit-ms 6000)
    fi
    if [[ $HAPROXY == yes ]]; then
        limits+=(--proxy-from "$BALANCER" --drain-notice-ms 3000 --peers "''")
    fi
    printf '#!/bin/sh\nexec "%s" "$@" --session-max 1000000 %s %s\n' "$BIN/chasqui-edge" "${limits[*]}" \
        "${CHASQUI_BENCH_EDGE:-}" >"$SCRATCH/bin/chasqui-edge"
    chmod +x -- "$SCRATCH/bin/chasqui-edge"
}

start_system() {
    local -a options=(--detach --no-build --data "$SCRATCH/data" --edges "$EDGES")
    PORT=$(free_port)
    prepare_programs
    [[ $TLS == no ]] || options+=(--tls)
    # A session is a file descriptor on either side.
    ulimit -n 400000 2>/dev/null || ulimit -n "$(ulimit -Hn)"
    # /proc/PID/io and smaps_rollup of a process that may not dump core are for root alone.
    CHASQUI_ALLOW_CORE=1 CHASQUI_BIN=$SCRATCH/bin "$REPO/deploy/run.sh" "${options[@]}" --port "$PORT" >&2 ||
        die "the system does not start"
}

# HAProxy in front of the first two edges, as an operator would start it; until it passes people on.
start_haproxy() {
    local daemon port tries said
    daemon=$(PATH=$PATH:/usr/sbin command -v haproxy) || die "haproxy is missing: apt-get install haproxy"
    port=$(free_port)
    CHASQUI_BIND=127.0.0.1:$port CHASQUI_EDGE_1=127.0.0.1:$PORT CHASQUI_EDGE_2=127.0.0.1:$((PORT + 1)) CHASQUI_SOURCE=$BALANCER \
        CHASQUI_MAXCONN=9000 "$daemon" -db -f "$REPO/deploy/haproxy.cfg" >"$SCRATCH/haproxy.log" 2>&1 &
    PEER=$!
    for ((tries = 0; tries < 50; tries++)); do
        said=$(printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' |
            timeout 3 openssl s_client -quiet -verify_quiet -CAfile "$SCRATCH/data/tls/ca.pem" -connect "127.0.0.1:$port" 2>/dev/null) || true
        [[ $said != "HTTP/1."?" 200"* ]] || break
        sleep 0.2
    done
    ((tries < 50)) || die "HAProxy passes nobody on: $(tail -n 3 -- "$SCRATCH/haproxy.log")"
    OPTIONS+=(--through "$port")
}

# seed_people NAME OPTIONS...: fills the store; takes --users and --friends for itself and leaves the others in OPTIONS.
seed_people() {
    local name=$1 given sessions=2000 pairs=100
    [[ $name != failover ]] || sessions=200
    local -A seed=([--users]=20000 [--friends]=50 [--devices]=1)
    local -a rest=() words=()
    shift
    while (($#)); do
        case $1 in
            --users | --friends | --devices)
                seed[$1]=${2:?a number}
                shift
                ;;
            --sessions | --pairs)
                printf -v "${1#--}" '%s' "${2:?a number}"
                rest+=("$1" "$2")
                shift
                ;;
            *) rest+=("$1") ;;
        esac
        shift
    done
    case $name in
        # Somebody for every session, for the warm-up, and for those who talk.
        idle | login) seed[--users]=$((sessions + WARM_UP)) seed[--friends]=0 ;;
        storm) seed[--users]=$((sessions + 2 * pairs)) seed[--friends]=2 ;;
        chat) seed[--users]=$((2 * pairs > 4 ? 2 * pairs : 4)) seed[--friends]=2 ;;
        failover) seed[--users]=$((2 * sessions)) seed[--friends]=2 ;;
    esac
    for given in "${!seed[@]}"; do
        words+=("$given" "${seed[$given]}")
    done
    "$BIN/chasqui-bench-seed" --data "$SCRATCH/data" --out "$SCRATCH/people" "${words[@]}"
    OPTIONS=("${rest[@]}" --seed "$SCRATCH/people")
}

# Sets EDGES, TLS and HAPROXY; what is left for the benchmark is in OPTIONS.
take_options() {
    OPTIONS=()
    while (($#)); do
        case $1 in
            --edges)
                EDGES=${2:?--edges needs a number}
                shift
                ;;
            --tls) TLS=yes ;;
            --haproxy) TLS=yes HAPROXY=yes ;;
            *) OPTIONS+=("$1") ;;
        esac
        shift
    done
}

# ask NAME OPTIONS...: fills a store and asks it through a broker, no edges.
ask() {
    local name=$1 users=1000 friends=200 filled=1000000 behind=0 rest=()
    shift
    case $name in
        history) users=500 filled=4000000 ;;
        recovery) filled=2000000 behind=350000 ;;
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

# peer OPTIONS...: mosquitto with the same load as chat, on the same disk; it saves once a second and syncs nothing.
peer() {
    local daemon tries
    daemon=$(PATH=$PATH:/usr/sbin command -v mosquitto) || die "mosquitto is missing: apt-get install mosquitto"
    SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/chasqui-bench.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' INT TERM HUP
    EDGES=1
    PORT=$(free_port)
    printf '%s\n' "listener $PORT 127.0.0.1" 'allow_anonymous true' 'persistence true' 'autosave_interval 1' \
        "persistence_location $SCRATCH/" "user $(id -un)" 'log_type none' 'set_tcp_nodelay true' >"$SCRATCH/mosquitto.conf"
    "$daemon" -c "$SCRATCH/mosquitto.conf" &
    PEER=$!
    for ((tries = 0; tries < 100; tries++)); do
        ! (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null || break
        sleep 0.1
    done
    "$BIN/chasqui-bench" mosquitto --port "$PORT" --pid "$PEER" "$@"
}

main() {
    local name=${1:-} words
    EDGES=
    TLS=no
    HAPROXY=no
    case $name in
        mosquitto)
            shift
            peer "$@"
            return
            ;;
        compare)
            shift
            "$REPO/tests/bench/run.sh" chat "$@" && "$REPO/tests/bench/run.sh" mosquitto "$@"
            return
            ;;
        blob)
            shift
            CHASQUI_BIN=$BIN exec /usr/bin/python3 "$REPO/tests/bench/blob.py" "$@"
            ;;
        chat | failover | rolling | flap | idle | login | storm | store | store-bus | history | sync | recovery | tls | fsck) shift ;;
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
    take_options "$@"
    [[ $HAPROXY == no || $name == failover || $name == rolling ]] || die "--haproxy is for failover and rolling"
    size_system "$name"
    SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/chasqui-bench.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' INT TERM HUP
    if [[ $name == store || $name == fsck ]]; then
        "$BIN/chasqui-bench-$name" --data "$SCRATCH/store" "$@"
        return
    fi
    if [[ $name == tls ]]; then
        # shellcheck source=SCRIPTDIR/../../deploy/lib/tls.sh
        . "$REPO/deploy/lib/tls.sh"
        TLS_DIR=$SCRATCH/tls
        keep_certificate
        "$BIN/chasqui-bench-tls" --tls-certificate "$TLS_DIR/cert.pem" --tls-key "$TLS_DIR/key.pem" "$@"
        return
    fi
    case $name in store-bus | history | sync | recovery)
        ask "$name" "$@"
        return
        ;;
    esac
    if [[ " $* " == *" --help "* ]]; then
        "$BIN/chasqui-bench" "${name/rolling/failover}" --help
        return
    fi
    if [[ $name == chat ]]; then
        probe_commits "$name"
    fi
    case $name in
        chat | failover | flap | idle | login | storm) seed_people "$name" "${OPTIONS[@]}" ;;
        rolling) seed_people failover "${OPTIONS[@]}" ;;
    esac
    start_system
    [[ $TLS == no ]] || OPTIONS+=(--tls-ca "$SCRATCH/data/tls/ca.pem")
    [[ $HAPROXY == no ]] || start_haproxy
    if [[ $name == rolling ]]; then
        name=failover
        printf -v words '%q ' env CHASQUI_ALLOW_CORE=1 "CHASQUI_BIN=$SCRATCH/bin" "$REPO/deploy/run.sh" \
            --restart-rolling --no-build --data "$SCRATCH/data"
        OPTIONS+=(--restart "$words >&2")
    fi
    # In the background: it may have a session of its own, which Ctrl-C does not reach.
    "$BIN/chasqui-bench" "$name" --data "$SCRATCH/data" --port "$PORT" "${OPTIONS[@]}" &
    LOAD=$!
    wait "$LOAD"
    LOAD=
}

main "$@"
