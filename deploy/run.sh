#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# The whole system from one command: installs what is missing, builds, starts every service, watches over them.
set -euo pipefail

REPO=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source-path=SCRIPTDIR source=lib/process.sh
source "$REPO/deploy/lib/process.sh"
# shellcheck source-path=SCRIPTDIR source=lib/service.sh
source "$REPO/deploy/lib/service.sh"
# shellcheck source-path=SCRIPTDIR source=lib/tls.sh
source "$REPO/deploy/lib/tls.sh"
# shellcheck source-path=SCRIPTDIR source=lib/rolling.sh
source "$REPO/deploy/lib/rolling.sh"
# shellcheck source-path=SCRIPTDIR source=lib/supervise.sh
source "$REPO/deploy/lib/supervise.sh"
# shellcheck source-path=SCRIPTDIR source=lib/backup.sh
source "$REPO/deploy/lib/backup.sh"

BIN=${CHASQUI_BIN:-$REPO/build/release/bin}
DATA=$REPO/data
PORT=8080
METRICS_PORT= # of the first edge; empty: 1000 above PORT, 0: none
EDGES=2
TLS=no
BUILD=yes
MODE=foreground
BACKUP=     # folder of --backup or --restore
MASTER_KEY= # file of --master-key
UMASK=$(umask) # as it was; what belongs to the data folder is made for its owner alone

usage() {
    cat <<'END'
usage: deploy/run.sh [options]
  (nothing)      install what is missing, build, start everything, stay in the foreground; ^C stops all
  --detach       the same, but return when everything is ready and go on in the background
  --stop         stop what runs on this data folder
  --status       show what runs on this data folder; exit code 0 only if all of it runs
  --restart-rolling
                 build, then restart the edges one by one under load: nobody is refused, nothing is lost or doubled
  --backup FOLDER
                 copy database and blobs of the running system into a new folder (not the master key: keep that elsewhere)
  --restore FOLDER [--master-key FILE]
                 make database and blobs from a backup; --data names a folder without them
  --data DIR     where everything is kept (default: data in the repository)
  --port P       port of the first edge, the next ones follow (default: 8080)
  --edges N      number of edges, 1 to 32 (default: 2)
  --metrics-port P
                 /metrics of the first edge, on loopback, the next ones follow; 0: none (default: port + 1000)
  --tls          wss:// and https:// with a certificate for localhost that is made and kept in the data folder's tls/
  --no-build     neither install nor build
  --help         this text
END
}

bad_usage() {
    printf "run: %s (usage: deploy/run.sh --help)\n" "$1" >&2
    exit 2
}

# number TEXT MIN MAX OPTION: exits unless TEXT is a number in the range.
check_number() {
    if ! [[ $1 =~ ^[0-9]{1,5}$ ]] || ((10#$1 < $2 || 10#$1 > $3)); then
        bad_usage "$4 takes a number from $2 to $3, not '$1'"
    fi
}

parse_options() {
    local given
    while (($#)); do
        given=$1
        case $given in
            --data | --port | --metrics-port | --edges | --backup | --restore | --master-key)
                [[ -n ${2:-} ]] || bad_usage "$given needs a value"
                ;;
        esac
        case $given in
            --detach) MODE=detach ;;
            --stop) MODE=stop ;;
            --status) MODE=status ;;
            --restart-rolling) MODE=rolling ;;
            --backup | --restore)
                MODE=${given#--}
                BACKUP=$2
                shift
                ;;
            --master-key)
                MASTER_KEY=$2
                shift
                ;;
            --supervise) MODE=supervise ;; # what --detach leaves in the background
            --no-build) BUILD=no ;;
            --tls) TLS=yes ;;
            --data)
                DATA=$2
                shift
                ;;
            --port)
                check_number "$2" 1 65535 --port
                PORT=$((10#$2))
                shift
                ;;
            --metrics-port)
                check_number "$2" 0 65535 --metrics-port
                METRICS_PORT=$((10#$2))
                shift
                ;;
            --edges)
                check_number "$2" 1 32 --edges
                EDGES=$((10#$2))
                shift
                ;;
            --help | -h)
                usage
                exit 0
                ;;
            *) bad_usage "unknown option '$given'" ;;
        esac
        shift
    done
    [[ -z $MASTER_KEY || $MODE == restore ]] || bad_usage "--master-key belongs to --restore"
    ((PORT + EDGES - 1 <= 65535)) || bad_usage "port $PORT leaves no room for $EDGES edges"
    if [[ -z $METRICS_PORT ]]; then
        METRICS_PORT=$((PORT + 1000 + EDGES <= 65536 ? PORT + 1000 : PORT - 1000))
    fi
    ((METRICS_PORT + EDGES - 1 <= 65535)) || bad_usage "metrics port $METRICS_PORT leaves no room for $EDGES edges"
}

# In a shell of its own: what it makes may be read by whom the caller's umask lets.
build() (
    umask "$UMASK"
    local log=$REPO/build/release.log reason
    "$REPO/deploy/deps.sh" || die "the packages above are missing"
    reason=$(mkdir -p "$REPO/build" 2>&1 && { : >"$log"; } 2>&1) ||
        die "cannot build in $REPO/build (${reason##*: }); where it is built already, --no-build starts it"
    say "building (log: build/release.log)"
    local -a options=()
    [[ -f $REPO/build/release/CMakeCache.txt ]] || options=(-DBUILD_TESTING=OFF)
    if ! (cd "$REPO" && cmake --preset release "${options[@]}" && cmake --build --preset release) >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        die "the build failed: see $log"
    fi
)

check_programs() {
    local program
    for program in broker store blobd presence edge; do
        [[ -x $BIN/chasqui-$program ]] || die "$BIN/chasqui-$program is missing: run without --no-build once"
    done
    for program in redis-server setsid setpriv flock; do
        command -v "$program" >/dev/null || die "the tool '$program' is missing: run deploy/deps.sh"
    done
}

# Starts the supervisor in a session of its own and waits for its word.
detach() {
    local before=0 pid deadline
    local -a options=()
    prepare_folders
    rm -f -- "$RUN/ready"
    [[ ! -f $LOG/run.log ]] || before=$(stat -c %s -- "$LOG/run.log")
    [[ $TLS == no ]] || options=(--tls)
    setsid "$REPO/deploy/run.sh" --supervise --no-build --data "$DATA" --port "$PORT" --metrics-port "$METRICS_PORT" \
        --edges "$EDGES" "${options[@]}" \
        </dev/null >>"$LOG/run.log" 2>&1 &
    pid=$!
    read_clock
    deadline=$((NOW_CS + (READY_SECONDS + 30) * 100))
    while is_before "$deadline"; do
        if ! kill -0 "$pid" 2>/dev/null; then
            tail -c "+$((before + 1))" -- "$LOG/run.log" >&2
            exit 1
        fi
        if [[ -f $RUN/ready ]] && [[ $(running_pid) == "$pid" ]]; then
            say_how_to_connect
            cat -- "$RUN/ready"
            exit 0
        fi
        pause 0.1
    done
    kill -TERM "$pid" 2>/dev/null || true
    die "not ready in time: see $LOG/run.log"
}

main() {
    parse_options "$@"
    case $MODE in
        stop | status)
            [[ -d $DATA ]] || die "nothing runs here: there is no folder $DATA"
            name_folders
            "${MODE}_all"
            ;;
        backup)
            [[ -d $DATA ]] || die "nothing runs here: there is no folder $DATA"
            name_folders
            backup_all "$BACKUP"
            ;;
        restore)
            prepare_folders
            check_restore "$BACKUP"
            [[ $BUILD == no ]] || build
            check_programs
            restore_all "$BACKUP"
            ;;
        rolling)
            [[ -d $DATA ]] || die "nothing runs here: there is no folder $DATA"
            name_folders
            check_rolling
            [[ $BUILD == no ]] || build
            rolling_all
            ;;
        supervise) supervise ;;
        foreground | detach)
            # Before a build of minutes: what can be known at once.
            prepare_folders
            is_locked && die "already running on $DATA (pid $(running_pid)): stop it with --stop"
            check_ports
            [[ $BUILD == no ]] || build
            check_programs
            if [[ $MODE == detach ]]; then detach; else supervise; fi
            ;;
    esac
}

main "$@"
