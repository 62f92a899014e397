# shellcheck shell=bash
# SPDX-License-Identifier: MPL-2.0
# shellcheck disable=SC2004 # the arrays are associative: without $ the index would be the word "name"
# The supervisor: starts all, waits until they answer, restarts what dies; and --stop and --status, which talk about it.

READY_SECONDS=60
STOP_SECONDS=45
BACKOFF_MIN_CS=20
BACKOFF_MAX_CS=1000
HEALTHY_CS=3000

take_lock() {
    exec {LOCK_FD}>>"$RUN/lock"
    flock --nonblock "$LOCK_FD" || die "already running on $DATA (pid $(running_pid)): stop it with --stop"
}

# A pid file without a lock: the run before was killed. After a reboot that means nothing. On a machine that went on
# running, services of that run may still be there: they are ended, and a person should know before a new start.
check_leftovers() {
    local boot was pid file ended=0
    boot=$(</proc/sys/kernel/random/boot_id)
    if [[ -f $RUN/run.pid ]]; then
        was=$(sed -n 2p -- "$RUN/run.pid")
        if [[ $was == "$boot" || -z $was ]]; then
            pid=$(running_pid)
            for file in "$RUN"/*.pid; do
                [[ $file == "$RUN/run.pid" ]] || ! end_leftover "$(<"$file")" || ended=$((ended + 1))
            done
            rm -f -- "$RUN"/*.pid "$RUN/ready" "$RUN/services"
            die "the run before was killed (stale pid $pid in $RUN/run.pid; $ended of its services were still there and are ended now): start again"
        fi
        rm -f -- "$RUN"/*.pid
    fi
    rm -f -- "$RUN/ready" "$RUN/services" "$RUN/broker.sock" "$RUN/redis.sock" "$RUN/rolling.request"
    printf '%s\n%s\n' "$$" "$boot" >"$RUN/run.pid"
}

# end_leftover PID: true if it was one of ours (its command line names this data folder or our programs) and had to be ended.
end_leftover() {
    local words deadline
    process_stat "$1" || return 1
    words=$(tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline") || return 1
    [[ $words == *"$RUN/"* || $words == *redis-server*unixsocket* ]] || return 1
    kill -TERM "$1" 2>/dev/null || return 1
    read_clock
    deadline=$((NOW_CS + 1500))
    while process_stat "$1" && is_before "$deadline"; do
        pause 0.05
    done
    kill -KILL "$1" 2>/dev/null || true
}

# What it says goes to whoever started us; nothing is left running.
fail_start() {
    note "$1" >&2
    stop_everything
    exit 1
}

# Fails the start if a service has died already: a wrong setting is told at once instead of tried for ever.
check_started() {
    local name
    for name in "${SERVICES[@]}"; do
        [[ -n ${PID[$name]:-} ]] || continue
        is_alive "${PID[$name]}" && continue
        tail -c "+${LOG_BEGIN[$name]}" -- "$LOG/$name.log" 2>/dev/null | tail -n 5 >&2 || true
        fail_start "$name stopped while starting: see $LOG/$name.log"
    done
    ((!STOPPING)) || fail_start "stopped while starting"
}

# wait_until DEADLINE_CS WHAT COMMAND...: until the command succeeds.
wait_until() {
    local deadline=$1 what=$2
    shift 2
    until "$@"; do
        check_started
        is_before "$deadline" || fail_start "$what does not answer after $READY_SECONDS s: see the logs in $LOG"
        pause 0.05
    done
}

start_everything() {
    local name n deadline
    read_clock
    deadline=$((NOW_CS + READY_SECONDS * 100))
    for name in "${SERVICES[@]}"; do
        start_service "$name"
        case $name in
            redis | broker) wait_until "$deadline" "$name" test -S "$RUN/$name.sock" ;;
        esac
    done
    for ((n = 1; n <= EDGES; n++)); do
        wait_until "$deadline" "edge.$n" edge_is_ready $((PORT + n - 1))
    done
    check_started
}

# on_death NAME NOW_CS: says so and plans the restart.
on_death() {
    local name=$1 now=$2 status=0 how
    wait "${PID[$name]}" 2>/dev/null || status=$?
    how="exit code $status"
    ((status <= 128)) || how="signal $((status - 128))"
    PID[$name]=
    rm -f -- "$RUN/$name.pid"
    if ((now - STARTED_CS[$name] >= HEALTHY_CS)) || [[ -z ${BACKOFF_CS[$name]:-} ]]; then
        BACKOFF_CS[$name]=$BACKOFF_MIN_CS
    fi
    DUE_CS[$name]=$((now + BACKOFF_CS[$name]))
    note "$name died ($how): restarted in $((BACKOFF_CS[$name] * 10)) ms"
    BACKOFF_CS[$name]=$((BACKOFF_CS[$name] * 2))
    ((BACKOFF_CS[$name] <= BACKOFF_MAX_CS)) || BACKOFF_CS[$name]=$BACKOFF_MAX_CS
}

watch() {
    local name now
    while ((!STOPPING)); do
        if [[ $ROLL_PHASE == none ]]; then pause 0.2; else pause 0.05; fi
        read_clock
        now=$NOW_CS
        for name in "${SERVICES[@]}"; do
            if [[ -n ${PID[$name]:-} ]]; then
                is_rolling "$name" || is_alive "${PID[$name]}" || on_death "$name" "$now"
            elif ((now >= DUE_CS[$name] && !STOPPING)); then
                start_service "$name"
                note "$name restarted (pid ${PID[$name]})"
            fi
        done
        watch_rolling "$now"
    done
}

supervise() {
    local scheme=http
    [[ $MODE == foreground ]] || prepare_folders
    check_programs
    take_lock
    check_leftovers
    check_ports_locked
    STOPPING=0
    trap 'STOPPING=1' INT TERM HUP
    ulimit -c 0 # no secrets in core files
    pause 0     # opens what pause needs, before it is passed on
    list_services
    [[ $TLS == no ]] || (keep_certificate) || fail_start "no certificate: see above"
    start_everything
    [[ $TLS == no ]] || scheme=https
    printf 'ready %s://127.0.0.1:%s\n' "$scheme" "$PORT" >"$RUN/ready.new"
    mv -f -- "$RUN/ready.new" "$RUN/ready"
    note "all services run on $DATA"
    say_how_to_connect
    cat -- "$RUN/ready"
    watch
    note "stopping"
    stop_everything
    note "stopped"
}

# check_ports of process.sh, after the pid file is ours.
check_ports_locked() {
    (check_ports) || {
        rm -f -- "$RUN/run.pid"
        exit 1
    }
}

stop_all() {
    local pid deadline
    pid=$(running_pid)
    if [[ ! -e $RUN/lock ]] || ! is_locked; then
        [[ $pid == unknown ]] || say "the run before was killed: the next start cleans up"
        die "nothing runs on $DATA"
    fi
    kill -TERM "$pid" 2>/dev/null || die "cannot stop pid $pid: is it yours?"
    read_clock
    deadline=$((NOW_CS + STOP_SECONDS * 100))
    while is_locked; do
        if ! is_before "$deadline"; then
            # Its services end with it: they asked for a TERM at its death.
            kill -KILL "$pid" 2>/dev/null || true
            die "pid $pid did not stop in $STOP_SECONDS s: killed"
        fi
        pause 0.1
    done
    say "stopped"
}

# status_line NAME SUPERVISOR: false if it does not run.
status_line() {
    local name=$1 supervisor=$2 pid=- uptime=- memory=- state=down seconds key value
    [[ ! -f $RUN/$name.pid ]] || pid=$(<"$RUN/$name.pid")
    if process_stat "$pid" && [[ $STAT_PARENT == "$supervisor" ]]; then
        state=up
        read_clock
        seconds=$(((NOW_CS - STAT_START * 100 / TICKS_PER_SECOND) / 100))
        printf -v uptime '%d:%02d:%02d' $((seconds / 3600)) $((seconds / 60 % 60)) $((seconds % 60))
        while read -r key value _; do
            [[ $key != VmRSS: ]] || printf -v memory '%d.%d MiB' $((value / 1024)) $((value * 10 / 1024 % 10))
        done <"/proc/$pid/status"
    else
        pid=-
    fi
    printf '%-10s %8s %10s %12s  %s\n' "$name" "$pid" "$uptime" "$memory" "$state"
    [[ $state == up ]]
}

status_all() {
    local name supervisor failed=0
    supervisor=$(running_pid)
    if [[ ! -e $RUN/lock ]] || ! is_locked || [[ ! -f $RUN/services ]]; then
        die "nothing runs on $DATA"
    fi
    TICKS_PER_SECOND=$(getconf CLK_TCK)
    printf '%-10s %8s %10s %12s  %s\n' SERVICE PID UPTIME MEMORY STATE
    while read -r name; do
        status_line "$name" "$supervisor" || failed=1
    done <"$RUN/services"
    [[ -f $RUN/ready ]] || failed=1
    return "$failed"
}
