#!/usr/bin/env bash
# Suite clients: Python `websockets`, Node `ws` and Chromium against the echo and the broadcast
# app, through a drain, and against the chat example. (The client from crates.io is a Rust test.)
#
#   ci/clients.sh [python|node|chromium]... [--backend NAME]
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 420 "$@"

clients=() backend=()
while (($#)); do
    case $1 in
    python | node | chromium) clients+=("$1") ;;
    --backend) backend=(--backend "${2:?}") && shift ;;
    *) die "unknown argument: $1" ;;
    esac
    shift
done
((${#clients[@]})) || clients=(python node chromium)
extra=("${backend[@]:+${backend[@]}}")

"$repo/ci/install.sh" "${clients[@]}"
build_appliance
build_chat
trap stop_all EXIT
grep -q '^0\{31\}1 ' /proc/net/if_inet6 2>/dev/null || die "this machine has no IPv6 loopback (::1)"

failed=0

serve "$logs/clients-echo.log" --listen 127.0.0.1:0 --listen '[::1]:0' --workers 2 --app echo \
    "${extra[@]:+${extra[@]}}"
for client in "${clients[@]}"; do "${client}_client" echo "$url4" "$url6" || failed=1; done
stop_server "$server_pid" || failed=1

serve "$logs/clients-broadcast.log" --listen 127.0.0.1:0 --workers 2 --app broadcast \
    "${extra[@]:+${extra[@]}}"
for client in "${clients[@]}"; do "${client}_client" broadcast "$url4" || failed=1; done
stop_server "$server_pid" || failed=1

for client in "${clients[@]}"; do
    serve "$logs/clients-drain.log" --listen 127.0.0.1:0 --workers 2 --app echo \
        "${extra[@]:+${extra[@]}}"
    # A client that failed may not have told the server to go; telling it twice would cut the drain.
    if "${client}_client" drain "$url4" --pid "$server_pid"; then
        drained "$server_pid" || failed=1
    else
        failed=1
        stop_server "$server_pid" || true
    fi
done

read -ra chat <<<"${HIOLOAD_CHAT:-$target/release/examples/chat}"
start_server "$logs/clients-chat.log" "${chat[@]}" --listen 127.0.0.1:0
for client in "${clients[@]}"; do "${client}_client" subprotocol "$url4" || failed=1; done

exit "$failed"
