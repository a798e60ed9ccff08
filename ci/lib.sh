# shellcheck shell=bash
# What every suite's script shares: the time budget, the places for logs and caches, and a server
# that is started, found ready, and always stopped again. Sourced, never run.
#
#   HIOLOAD_SERVE  the command to start instead of `target/release/hioload-ws serve`
#   HIOLOAD_CHAT   the same for `target/release/examples/chat`
#   HIOLOAD_CACHE  where installed tools are kept (default: the user's cache folder)

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repo" || exit
target=${CARGO_TARGET_DIR:-$repo/target}
logs=$target/ci
cache=${HIOLOAD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hioload-ws-ci}
mkdir -p "$logs" "$cache"

say() { printf '%s\n' "$*"; }
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# budget SECONDS ARGS...: runs the calling script again under `timeout`, which ends its whole
# process group, so that a suite that hangs fails and leaves nothing behind.
budget() {
    local seconds=$1 me
    shift
    me=$(basename "$0")
    [[ ${HIOLOAD_BUDGETED:-} == "$me" ]] && return 0
    local rc=0
    HIOLOAD_BUDGETED=$me timeout --kill-after=30 "$seconds" bash "$0" "$@" &
    local child=$!
    # timeout moves to a process group of its own: a Ctrl-C here must be handed on.
    trap 'kill -TERM $child 2>/dev/null || true; wait $child || true; exit 130' INT TERM
    wait "$child" || rc=$?
    [[ $rc -eq 124 || $rc -eq 137 ]] && say "$me: over its budget of $seconds s" >&2
    exit "$rc"
}

servers=()

# Ends every server that this script started, by its pid. Meant for `trap stop_all EXIT`.
stop_all() {
    local pid
    for pid in "${servers[@]:+${servers[@]}}"; do
        kill -TERM "$pid" 2>/dev/null || continue
        await_exit "$pid" 10 || kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    servers=()
}

# await_exit PID SECONDS: true once the process is gone (a zombie counts as gone).
await_exit() {
    local pid=$1 tries=$(($2 * 20)) state
    while ((tries-- > 0)); do
        state=$(sed 's/.*) //; s/ .*//' "/proc/$pid/stat" 2>/dev/null) || return 0
        [[ -z $state || $state == Z ]] && return 0
        sleep 0.05
    done
    return 1
}

# The release binary, unless a stand-in is given.
build_appliance() {
    [[ -n ${HIOLOAD_SERVE:-} ]] || cargo build --release --quiet --bin hioload-ws
}

# The chat example, unless a stand-in is given.
build_chat() {
    [[ -n ${HIOLOAD_CHAT:-} ]] || cargo build --release --quiet --example chat
}

# launch LOG COMMAND...: starts a server in the background; its log is $log, its pid $server_pid.
launch() {
    log=$1
    shift
    : >"$log"
    NO_COLOR=1 "$@" >"$log" 2>&1 &
    server_pid=$!
    servers+=("$server_pid")
}

# start_server LOG COMMAND...: starts it in the background, waits until it says `listening on`
# for each --listen argument and accepts there. Sets server_pid, url4 and, if asked for, url6.
start_server() {
    local log wanted=0 word tries=200
    for word in "${@:2}"; do [[ $word == --listen ]] && wanted=$((wanted + 1)); done
    launch "$@"
    while (($(listening "$log" | wc -l) < wanted)); do
        kill -0 "$server_pid" 2>/dev/null || die "the server ended at once: ${*:2} ($(tail -n 3 "$log"))"
        ((tries-- > 0)) || die "the server was not ready within 10 s: ${*:2} ($(tail -n 3 "$log"))"
        sleep 0.05
    done
    local port4 port6
    port4=$(listening "$log" | sed -n 's/^127\.0\.0\.1://p' | head -n 1)
    port6=$(listening "$log" | sed -n 's/^\[::1\]://p' | head -n 1)
    # shellcheck disable=SC2034 # url4 and url6 are for the caller
    url4=${port4:+ws://127.0.0.1:$port4} url6=${port6:+ws://[::1]:$port6}
    (exec 3<>"/dev/tcp/127.0.0.1/$port4") 2>/dev/null || die "127.0.0.1:$port4 does not accept"
}

# The addresses that a server's log says it listens on, one a line.
listening() {
    grep 'listening on' "$1" | grep -oE '(127\.0\.0\.1|\[::1\]):[0-9]+' | awk '!seen[$0]++' || true
}

# serve LOG ARGS...: the appliance (or its stand-in) with these arguments, ready.
serve() {
    local log=$1 program
    shift
    read -ra program <<<"${HIOLOAD_SERVE:-$target/release/hioload-ws serve}"
    start_server "$log" "${program[@]}" "$@"
}

# drained PID: true where the server ends after a SIGTERM, with exit code 0; says so if it does not.
drained() {
    local pid=$1 rc=0 kept=() other
    if ! await_exit "$pid" 35; then
        say "the server (pid $pid) was still running 35 s after SIGTERM"
        return 1
    fi
    wait "$pid" || rc=$?
    for other in "${servers[@]}"; do [[ $other == "$pid" ]] || kept+=("$other"); done
    servers=("${kept[@]:+${kept[@]}}")
    ((rc == 0)) || say "the server (pid $pid) left with exit code $rc after SIGTERM, not 0"
    return "$rc"
}

# Stops a server as an operator would; true where it leaves with exit code 0.
stop_server() {
    kill -TERM "$1" 2>/dev/null || true # it may be on its way already
    drained "$1"
}

# The client programs, as ci/install.sh leaves them.
python_client() { "$cache/python/bin/python" tests/clients/python/check.py "$@"; }

node_client() { NODE_PATH=$cache/node/node_modules node tests/clients/node/check.cjs "$@"; }

chromium_client() { python3 tests/clients/chromium/drive.py "$@"; }

need_nightly() {
    cargo +nightly --version >/dev/null 2>&1 ||
        die "no nightly toolchain: \`rustup toolchain install nightly\` (sanitizers need it)"
}

host_triple() { rustc -vV | sed -n 's/^host: //p'; }

# Where Python 2.7 was unpacked from Debian packages, its libraries are found through this.
python27_env() {
    local lib
    lib=$cache/autobahn/python27/usr/lib/$(uname -m)-linux-gnu
    [[ -d $lib ]] && export LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    return 0
}
