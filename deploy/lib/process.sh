# shellcheck shell=bash
# SPDX-License-Identifier: MPL-2.0
# Small things that run.sh is made of: words, time, folders, the lock, processes. No forks in what is called often.

say() {
    printf 'run: %s\n' "$*"
}

die() {
    printf 'run: %s\n' "$*" >&2
    exit 1
}

# A line for people that belongs into run.log too. In the background stdout is run.log already.
note() {
    local line
    printf -v line '%(%Y-%m-%dT%H:%M:%SZ)T run: %s' -1 "$*"
    printf '%s\n' "$line"
    [[ $MODE == supervise ]] || printf '%s\n' "$line" >>"$LOG/run.log" 2>/dev/null || true
}

# Sets NOW_CS: hundredths of a second since boot, which never jump.
read_clock() {
    local up
    read -r up _ </proc/uptime
    NOW_CS=$((10#${up/./}))
}

# is_before DEADLINE_CS
is_before() {
    read_clock
    ((NOW_CS < $1))
}

# pause SECONDS: a sleep without a process, which a trapped signal ends.
pause() {
    if [[ -z ${PAUSE_FD:-} ]]; then
        local fifo
        fifo=$(mktemp -u "${TMPDIR:-/tmp}/chasqui-pause.XXXXXXXXXX")
        mkfifo -m 600 -- "$fifo"
        exec {PAUSE_FD}<>"$fifo"
        rm -f -- "$fifo"
    fi
    read -r -t "$1" -u "$PAUSE_FD" _ || true
}

name_folders() {
    local real
    real=$(cd -- "$DATA" 2>/dev/null && pwd -P) || die "cannot enter $DATA: does it belong to somebody else?"
    DATA=$real
    RUN=$DATA/run
    TLS_DIR=$DATA/tls
    LOG=$DATA/log
    # sun_path of a unix socket holds 107 bytes and a NUL.
    local LC_ALL=C longest=$RUN/broker.sock
    ((${#longest} <= 107)) || die "the path $DATA is too long for unix sockets (at most 91 bytes): choose a shorter --data"
    [[ $DATA != *[[:cntrl:]]* ]] || die "the path of the data folder has control characters in it"
}

prepare_folders() {
    local folder free_blocks block_size free_mib reason
    umask 077
    reason=$(mkdir -p -- "$DATA" 2>&1) || die "cannot create the data folder $DATA: ${reason##*: }"
    name_folders
    read -r free_blocks block_size < <(stat -f -c '%a %S' -- "$DATA")
    free_mib=$((free_blocks * block_size / 1048576))
    ((free_mib >= 64)) || die "only $free_mib MiB are free on the disk of $DATA: at least 64 are needed"
    for folder in run store keys redis log; do
        reason=$(mkdir -p -- "$DATA/$folder" 2>&1) || die "cannot create $DATA/$folder: ${reason##*: }"
    done
    [[ -O $RUN && ! -L $RUN ]] || die "$RUN must be a folder of its own that belongs to you"
    chmod 700 -- "$RUN" "$DATA/keys"
    : 2>/dev/null >>"$LOG/run.log" || die "cannot write to $LOG"
}

# The lock is held by the supervisor as long as it lives, whatever happens to pid files.
is_locked() {
    ! flock --nonblock "$RUN/lock" true 2>/dev/null
}

running_pid() {
    if [[ -s $RUN/run.pid ]]; then head -n 1 -- "$RUN/run.pid"; else printf 'unknown\n'; fi
}

is_alive() {
    [[ -n ${1:-} ]] && kill -0 "$1" 2>/dev/null
}

# process_stat PID: sets STAT_PARENT and STAT_START (ticks since boot); fails if there is none.
process_stat() {
    local line
    local -a field
    [[ $1 =~ ^[0-9]+$ ]] && read -r line 2>/dev/null <"/proc/$1/stat" || return 1
    # The name in brackets may hold anything: count from the last bracket.
    read -r -a field <<<"${line##*) }"
    [[ ${field[0]} != Z ]] || return 1
    STAT_PARENT=${field[1]}
    STAT_START=${field[19]}
}

port_answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

check_ports() {
    local n
    for ((n = 0; n < EDGES; n++)); do
        ! port_answers $((PORT + n)) || die "port $((PORT + n)) is in use by another program: choose another with --port"
        ((METRICS_PORT)) || continue
        ! port_answers $((METRICS_PORT + n)) ||
            die "port $((METRICS_PORT + n)) (metrics) is in use by another program: choose another with --metrics-port"
    done
}

# edge_is_ready PORT: does /readyz say 200?
edge_is_ready() {
    if [[ $TLS == yes ]]; then
        tls_edge_is_ready "$1"
        return
    fi
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf 'GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$1" >&3
        read -r -t 2 -u 3 line
        [[ $line == "HTTP/1."?" 200"* ]]
    ) 2>/dev/null
}
