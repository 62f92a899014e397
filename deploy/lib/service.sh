# shellcheck shell=bash
# SPDX-License-Identifier: MPL-2.0
# What the services are, and how one is started and stopped.

LOG_MAX_BYTES=$((16 * 1024 * 1024))

declare -A PID=() STARTED_CS=() BACKOFF_CS=() DUE_CS=() LOG_BEGIN=()
SERVICES=() # in the order of starting

list_services() {
    local n
    SERVICES=(redis broker store blobd presence)
    for ((n = 1; n <= EDGES; n++)); do
        SERVICES+=("edge.$n")
    done
    printf '%s\n' "${SERVICES[@]}" >"$RUN/services"
}

# other_edges N: the URLs of all edges but this one, for clients that must go elsewhere.
other_edges() {
    local n urls= scheme=ws
    [[ $TLS == no ]] || scheme=wss
    for ((n = 1; n <= EDGES; n++)); do
        ((n == $1)) || urls+=",$scheme://127.0.0.1:$((PORT + n - 1))/ws"
    done
    printf '%s\n' "${urls#,}"
}

# service_command NAME: sets COMMAND.
service_command() {
    local broker=ipc://$RUN/broker.sock number peers
    case $1 in
        redis)
            # Presence is a cache, but last-seen should survive a restart: hence the append-only file.
            COMMAND=(redis-server --port 0 --unixsocket "$RUN/redis.sock" --unixsocketperm 700 --dir "$DATA/redis"
                --appendonly yes --appendfsync everysec --save "" --daemonize no --loglevel notice)
            ;;
        broker) COMMAND=("$BIN/chasqui-broker" --endpoint "$broker") ;;
        store)
            COMMAND=("$BIN/chasqui-store" --name store.1 --broker "$broker" --data "$DATA/store"
                --master-key "$DATA/keys/master.key")
            ;;
        blobd) COMMAND=("$BIN/chasqui-blobd" --name blobd.1 --broker "$broker" --data "$DATA/blobs") ;;
        presence)
            COMMAND=("$BIN/chasqui-presence" --name presence.1 --broker "$broker" --redis-socket "$RUN/redis.sock")
            ;;
        edge.*)
            number=${1#edge.}
            COMMAND=("$BIN/chasqui-edge" --name "$1" --broker "$broker" --listen-port "$((PORT + number - 1))")
            ((!METRICS_PORT)) || COMMAND+=(--metrics-port "$((METRICS_PORT + number - 1))")
            peers=$(other_edges "$number")
            [[ -z $peers ]] || COMMAND+=(--peers "$peers")
            [[ $TLS == no ]] || COMMAND+=(--tls-certificate "$TLS_DIR/cert.pem" --tls-key "$TLS_DIR/key.pem")
            ;;
    esac
}

rotate_log() {
    local file=$LOG/$1.log
    [[ -f $file ]] || return 0
    (($(stat -c %s -- "$file") < LOG_MAX_BYTES)) || mv -f -- "$file" "$file.1"
}

# Told to end if the supervisor is killed, so that nothing is left running. A supervisor that was killed before this could
# be asked for tells nobody: whoever has another parent by now ends at once.
# shellcheck disable=SC2016 # for the shell that is started
WITH_PARENT='[ "$PPID" = "$1" ] || exit 1; shift; exec setsid "$@"'

# In a session of its own, so that a ^C in the terminal reaches only the supervisor, which stops all in order.
start_service() {
    local name=$1
    local -a COMMAND
    service_command "$name"
    rotate_log "$name"
    LOG_BEGIN[$name]=$(($(stat -c %s -- "$LOG/$name.log" 2>/dev/null || printf 0) + 1))
    setpriv --pdeathsig TERM sh -c "$WITH_PARENT" "$name" "$$" "${COMMAND[@]}" </dev/null >>"$LOG/$name.log" 2>&1 {LOCK_FD}>&- {PAUSE_FD}>&- &
    PID[$name]=$!
    read_clock
    STARTED_CS[$name]=$NOW_CS
    printf '%s\n' "${PID[$name]}" >"$RUN/$name.pid"
}

# stop_services SECONDS NAME...: TERM to all, KILL to those that are still there after SECONDS.
stop_services() {
    local deadline name
    read_clock
    deadline=$((NOW_CS + $1 * 100))
    shift
    for name in "$@"; do
        ! is_alive "${PID[$name]:-}" || kill -TERM "${PID[$name]}" 2>/dev/null || true
    done
    for name in "$@"; do
        while is_alive "${PID[$name]:-}" && is_before "$deadline"; do
            pause 0.05
        done
        if is_alive "${PID[$name]:-}"; then
            note "$name does not stop: killed"
            kill -KILL "${PID[$name]}" 2>/dev/null || true
            wait "${PID[$name]}" 2>/dev/null || true
        fi
        rm -f -- "$RUN/$name.pid"
        PID[$name]=
    done
}

# The reverse of starting: nobody is asked for something by a service whose own servers are gone.
stop_everything() {
    local name
    local -a edges=()
    for name in "${SERVICES[@]}"; do
        [[ $name != edge.* ]] || edges+=("$name")
    done
    stop_services 15 "${edges[@]}"
    stop_services 5 presence
    stop_services 10 blobd
    stop_services 15 store
    stop_services 5 broker
    stop_services 5 redis
    rm -f -- "$RUN/ready" "$RUN/services" "$RUN/run.pid" "$RUN/broker.sock" "$RUN/redis.sock"
}
