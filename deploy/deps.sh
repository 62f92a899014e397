#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Installs the Debian packages that chasqui is built from and runs on; with --test also those of its tests.
# Does nothing, and needs no network, when everything is there.
set -euo pipefail

RUN_PACKAGES=(
    gcc libc6-dev cmake ninja-build pkg-config
    libczmq-dev libzmq3-dev libuv1-dev libsodium-dev libmsgpack-dev liblmdb-dev libhiredis-dev
    libwebsockets-dev libwebsockets-evlib-uv libsqlite3-dev libssl-dev
    libcurl4-openssl-dev libgd-dev libexif-dev libsndfile1-dev
    redis-server openssl
)
TEST_PACKAGES=(
    openssl chafa libcmocka-dev python3 python3-pil python3-pytest python3-pytest-xdist python3-msgpack python3-zmq python3-redis python3-nacl python3-websocket
    python3-prometheus-client
    clang clang-format clang-tidy libclang-rt-14-dev shellcheck lmdb-utils haproxy
)

say() {
    printf 'deps: %s\n' "$*"
}

die() {
    printf 'deps: %s\n' "$*" >&2
    exit 1
}

usage() {
    cat <<'END'
usage: deploy/deps.sh [--test] [--list]
  --test   also what the tests need
  --list   print the packages and exit
END
}

is_installed() {
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# Runs a command as root: directly, or through sudo.
as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        "$@"
    elif [[ -t 0 ]]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@"
}

# Debian starts a system-wide redis-server when the package is installed. chasqui runs its own on a unix socket: the
# one nobody asked for is not started and not enabled. One that was there before is left alone.
install_packages() {
    local fresh_redis=no
    if [[ " $* " == *" redis-server "* && -d /run/systemd/system ]]; then
        fresh_redis=yes
        as_root systemctl mask --runtime --quiet redis-server.service || fresh_redis=no
    fi
    local rc=0 said
    said=$(apt_get install -y --no-install-recommends "$@" 2>&1) || rc=$?
    # Without a network it complains of every package: the last lines say as much.
    ((rc == 0)) || tail -n 5 <<<"$said" >&2
    if [[ $fresh_redis == yes ]]; then
        as_root systemctl unmask --runtime --quiet redis-server.service || true
        as_root systemctl disable --quiet redis-server.service 2>/dev/null || true
    fi
    return "$rc"
}

main() {
    local -a wanted=("${RUN_PACKAGES[@]}") missing=()
    local list=no package said failed=
    while (($#)); do
        case $1 in
            --test)
                wanted+=("${TEST_PACKAGES[@]}")
                # Not beside a node that came from elsewhere.
                command -v node >/dev/null && command -v npm >/dev/null || wanted+=(nodejs npm)
                ;;
            --list) list=yes ;;
            --help | -h)
                usage
                exit 0
                ;;
            *)
                printf 'deps: unknown option %q\n' "$1" >&2
                usage >&2
                exit 2
                ;;
        esac
        shift
    done
    if [[ $list == yes ]]; then
        printf '%s\n' "${wanted[@]}"
        exit 0
    fi
    type dpkg-query apt-get >/dev/null 2>&1 ||
        die "this is not Debian (no dpkg-query or apt-get): install what 'deploy/deps.sh --list' prints by hand"
    for package in "${wanted[@]}"; do
        is_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || exit 0
    if [[ $(id -u) -ne 0 ]] && ! command -v sudo >/dev/null; then
        die "missing packages, and neither root nor sudo to install them; as root run: apt-get install ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    # Without a network the packages may be there all the same, in apt's cache or on a medium.
    said=$(apt_get -o APT::Update::Error-Mode=any update 2>&1) || failed="; nor could apt-get update: is the network there, and may you use sudo?"
    if ! install_packages "${missing[@]}"; then
        [[ -z $failed ]] || tail -n 2 <<<"$said" >&2
        die "apt-get could not install ${missing[*]}$failed"
    fi
}

main "$@"
