# shellcheck shell=bash
# SPDX-License-Identifier: MPL-2.0
# shellcheck disable=SC2004 # the arrays are associative: without $ the index would be the word "name"
# Rolling restart: the edges one after the other, each when all others can serve. --restart-rolling leaves a request in
# the run folder; the supervisor, which alone may start and stop services, does it in its watch and tells how far it is.

DRAIN_SECONDS=30 # an edge ends by itself long before (drain-limit-ms)

ROLL_PHASE=none # wait (for the other edges), drain, ready
ROLL_QUEUE=()
ROLL_NAME=
ROLL_SINCE_CS=0

# What --restart-rolling prints. The last line is "done" or "failed".
tell_rolling() {
    printf '%s\n' "$1" >>"$RUN/rolling"
}

end_rolling() {
    note "rolling restart: $1"
    tell_rolling "$1"
    tell_rolling "$2"
    ROLL_PHASE=none
    ROLL_QUEUE=()
}

edge_port() {
    printf '%s\n' "$((PORT + ${1#edge.} - 1))"
}

# Can every edge but this one serve? Alone on the system it need not wait.
others_are_ready() {
    local name
    for name in "${SERVICES[@]}"; do
        [[ $name == edge.* && $name != "$1" ]] || continue
        [[ -n ${PID[$name]:-} ]] && edge_is_ready "$(edge_port "$name")" || return 1
    done
}

begin_rolling() {
    local name
    : >"$RUN/rolling"
    if [[ $TLS == yes ]] && ! (keep_certificate); then
        end_rolling "no certificate: see $LOG/run.log" "failed"
        return
    fi
    rm -f -- "$RUN/rolling.request"
    for name in "${SERVICES[@]}"; do
        [[ $name != edge.* ]] || ROLL_QUEUE+=("$name")
    done
    note "rolling restart: ${#ROLL_QUEUE[@]} edges"
    next_rolling "$1"
}

next_rolling() {
    ROLL_SINCE_CS=$1
    if ((!${#ROLL_QUEUE[@]})); then
        end_rolling "all edges are new" "done"
        return
    fi
    ROLL_NAME=${ROLL_QUEUE[0]}
    ROLL_QUEUE=("${ROLL_QUEUE[@]:1}")
    ROLL_PHASE='wait'
}

# The old process has gone: the new one, at once.
replace_rolling() {
    local status=0 now=$1
    wait "${PID[$ROLL_NAME]}" 2>/dev/null || status=$?
    ((!status)) || note "$ROLL_NAME ended with $status while draining"
    start_service "$ROLL_NAME"
    tell_rolling "$ROLL_NAME drained in $(((now - ROLL_SINCE_CS) * 10)) ms"
    ROLL_PHASE=ready
    ROLL_SINCE_CS=$now
}

# One look at the edge whose turn it is. Nothing here waits: deaths of other services must be noticed meanwhile.
step_rolling() {
    local now=$1 pid=${PID[$ROLL_NAME]:-} passed
    passed=$((now - ROLL_SINCE_CS))
    case $ROLL_PHASE in
        wait)
            if [[ -n $pid ]] && others_are_ready "$ROLL_NAME"; then
                kill -TERM "$pid" 2>/dev/null || true
                ROLL_PHASE=drain
                ROLL_SINCE_CS=$now
            elif ((passed > READY_SECONDS * 100)); then
                end_rolling "$ROLL_NAME was not restarted: the other edges are not ready" "failed"
            fi
            ;;
        drain)
            if ! is_alive "$pid"; then
                replace_rolling "$now"
            elif ((passed > DRAIN_SECONDS * 100)); then
                note "$ROLL_NAME does not end: killed"
                kill -KILL "$pid" 2>/dev/null || true
            fi
            ;;
        ready)
            if [[ -z $pid ]] || ! is_alive "$pid"; then
                end_rolling "the new $ROLL_NAME stopped: see $LOG/$ROLL_NAME.log; the edges behind it run on as they were" "failed"
            elif edge_is_ready "$(edge_port "$ROLL_NAME")"; then
                tell_rolling "$ROLL_NAME is ready again (pid $pid)"
                next_rolling "$now"
            elif ((passed > READY_SECONDS * 100)); then
                end_rolling "the new $ROLL_NAME is not ready: see $LOG/$ROLL_NAME.log; the edges behind it run on as they were" "failed"
            fi
            ;;
    esac
}

# Is the supervisor replacing this service, so that its end is no death?
is_rolling() {
    [[ $ROLL_PHASE == drain && $ROLL_NAME == "$1" ]]
}

watch_rolling() {
    if [[ $ROLL_PHASE != none ]]; then
        step_rolling "$1"
    elif [[ -f $RUN/rolling.request ]]; then
        begin_rolling "$1"
    fi
}

# Before a build of minutes: is there anything to restart?
check_rolling() {
    if [[ ! -e $RUN/lock ]] || ! is_locked || [[ ! -f $RUN/ready ]]; then
        die "nothing runs on $DATA"
    fi
}

# --restart-rolling: asks for it and prints what happens. 0 when all edges are new.
rolling_all() {
    local shown=0 line deadline
    check_rolling
    exec {ROLL_FD}>>"$RUN/rolling.lock"
    flock --nonblock "$ROLL_FD" || die "a rolling restart is under way already"
    rm -f -- "$RUN/rolling"
    : >"$RUN/rolling.request"
    read_clock
    deadline=$((NOW_CS + 32 * (DRAIN_SECONDS + READY_SECONDS) * 100))
    while is_before "$deadline"; do
        is_locked || die "the system stopped meanwhile"
        if [[ -f $RUN/rolling ]]; then
            while read -r line; do
                case $line in
                    done) return 0 ;;
                    failed) return 1 ;;
                esac
                say "$line"
                shown=$((shown + 1))
            done < <(tail -n "+$((shown + 1))" -- "$RUN/rolling")
        fi
        pause 0.1
    done
    die "no end of it: see $LOG/run.log"
}
