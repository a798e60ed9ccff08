#!/usr/bin/env bash
# Suite stack-lab: Linux's TCP against this program's own, over TAP and over AF_PACKET, in a
# network namespace that ends with the suite, however that ends. Wants root.
#
#   ci/stack-lab.sh [tests|tap|af-packet]...   (default: all)
#
# tests      the backend suite, and Linux as peer: bulk on good and bad wires, short connections,
#            half-close, RST, keep-alive, zero window, VLAN, ping; IPv4 and IPv6
# tap        the appliance on a TAP device: real clients, and Autobahn 1-7 and 10
# af-packet  the appliance on one end of a veth pair, with and without the other end's offloads
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 600 "$@"

parts=("$@")
((${#parts[@]})) || parts=(tests tap af-packet)
for part in "${parts[@]}"; do
    [[ " tests tap af-packet " == *" $part "* ]] || die "unknown part: $part"
done
[[ $(id -u) -eq 0 ]] || die "only root can make network namespaces and TAP devices"
[[ -c /dev/net/tun ]] || die "no /dev/net/tun: modprobe tun"

# What needs the machine's own network comes before the namespace.
if [[ ${HIOLOAD_LAB:-} != namespace ]]; then
    "$repo/ci/install.sh" lab python node autobahn
    cargo test --quiet -p hioload-dataplane --features lab --no-run
    build_appliance
    exec env HIOLOAD_LAB=namespace unshare --net bash "$0" "$@"
fi

trap stop_all EXIT
ip link set lo up
failed=0

# check WHAT COMMAND...: says how it went.
check() {
    local what=$1 started=$SECONDS
    shift
    if "$@"; then
        say "$what: ok ($((SECONDS - started)) s)"
    else
        say "$what: FAILED"
        failed=1
    fi
}

# serve_on BACKEND INTERFACE NET ARGS...: the appliance as host 2 of 10.NET.0.0/24 and
# fd00:NET::/64, ready.
serve_on() {
    local backend=$1 interface=$2 net=$3 log tries=200
    shift 3
    log=$logs/stack-lab-$backend.log
    local program
    read -ra program <<<"${HIOLOAD_SERVE:-$target/release/hioload-ws serve}"
    NO_COLOR=1 "${program[@]}" --backend "$backend" --interface "$interface" \
        --address "10.$net.0.2/24" --address "fd00:$net::2/64" --listen 0.0.0.0:9001 "$@" \
        >"$log" 2>&1 &
    server_pid=$!
    servers+=("$server_pid")
    until (($(grep -c 'listening on' "$log") == 2)); do
        kill -0 "$server_pid" 2>/dev/null || die "the server ended at once: $(tail -n 3 "$log")"
        ((tries-- > 0)) || die "the server was not ready within 10 s: $(tail -n 3 "$log")"
        sleep 0.05
    done
    url4=ws://10.$net.0.2:9001 url6="ws://[fd00:$net::2]:9001"
}

# host INTERFACE NET: the kernel is host 1 there.
host() {
    ip address add "10.$2.0.1/24" dev "$1"
    ip address add "fd00:$2::1/64" dev "$1" nodad
    ip link set "$1" up
}

answers_ping() { ping -q -c 3 -i 0.2 -W 2 "$1" >"$logs/stack-lab-ping.log" 2>&1; }

python_client() { "$cache/python/bin/python" tests/clients/python/check.py "$@"; }

node_client() { NODE_PATH=$cache/node/node_modules node tests/clients/node/check.cjs "$@"; }

# drains CLIENT: the server ends in order while that client is connected.
drains() {
    local pid=$server_pid
    "$1" drain "$url4" --pid "$pid" && drained "$pid"
}

# waits_for INTERFACE ADDRESS: the server outlives that its interface is down for a moment.
waits_for() {
    ip link set "$1" down
    sleep 0.5
    ip link set "$1" up
    answers_ping "$2"
}

# ends_without INTERFACE: the server ends by itself, with a failure, when its interface is gone.
ends_without() {
    ip link delete "$1"
    await_exit "$server_pid" 10 && ! wait "$server_pid"
}

run_tests() {
    check "tests" cargo test --offline -p hioload-dataplane --features lab -- --test-threads=4 \
        --nocapture
}

run_tap() {
    local client
    ip tuntap add dev hw0 mode tap
    host hw0 9
    serve_on tap hw0 9 --app echo
    check "tap: ping" answers_ping 10.9.0.2
    check "tap: ping6" answers_ping fd00:9::2
    check "tap: python echo" python_client echo "$url4" "$url6"
    check "tap: node echo" node_client echo "$url4" "$url6"
    check "tap: autobahn 1-7 and 10" bash "$repo/ci/autobahn.sh" --url "$url4" \
        --cases '1.* 2.* 3.* 4.* 5.*,6.* 7.* 10.*'
    check "tap: SIGTERM" stop_server "$server_pid"
    serve_on tap hw0 9 --app broadcast
    for client in python_client node_client; do
        check "tap: $client broadcast" "$client" broadcast "$url4"
    done
    check "tap: SIGTERM" stop_server "$server_pid"
    for client in python_client node_client; do
        serve_on tap hw0 9 --app echo
        check "tap: $client drain" drains "$client"
    done
    serve_on tap hw0 9 --app echo
    check "tap: the interface is down and up" waits_for hw0 10.9.0.2
    check "tap: the interface is deleted" ends_without hw0
}

run_af-packet() {
    ip link add hw1 type veth peer name hw2
    # The kernel is to keep silent at the server's end.
    echo 1 >/proc/sys/net/ipv6/conf/hw1/disable_ipv6
    ip link set hw1 arp off up
    host hw2 8
    serve_on af-packet hw1 8 --app echo
    check "af-packet: ping" answers_ping 10.8.0.2
    check "af-packet: ping6" answers_ping fd00:8::2
    check "af-packet: python echo, peer with offloads" python_client echo "$url4" "$url6"
    check "af-packet: node echo, peer with offloads" node_client echo "$url4" "$url6"
    ethtool -K hw2 tx off >/dev/null
    check "af-packet: python echo, peer without offloads" python_client echo "$url4" "$url6"
    check "af-packet: SIGTERM" stop_server "$server_pid"
    serve_on af-packet hw1 8 --app broadcast --mac 02:00:00:00:00:42
    check "af-packet: python broadcast, another station address" python_client broadcast "$url4"
    check "af-packet: SIGTERM" stop_server "$server_pid"
    serve_on af-packet hw1 8 --app echo
    check "af-packet: the interface is down and up" waits_for hw1 10.8.0.2
    check "af-packet: the interface is deleted" ends_without hw1
}

for part in "${parts[@]}"; do "run_$part"; done
exit "$failed"
