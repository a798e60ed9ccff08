#!/usr/bin/env bash
# Suite stack-lab: Linux's TCP against this program's own, over TAP and over AF_PACKET, in a
# network namespace that ends with the suite, however that ends. Wants root.
#
#   ci/stack-lab.sh [tests|tap|af-packet|bench|bad-wire]...   (default: all)
#
# tests      the backend suite, and Linux as peer: bulk on good and bad wires, short connections,
#            half-close, RST, keep-alive, zero window, VLAN, ping; IPv4 and IPv6
# tap        the appliance on a TAP device: real clients, and Autobahn 1-7, 9 and 10; a trace
# af-packet  the appliance on one end of a veth pair, with and without the other end's offloads
# bench      the load generator on this program's own TCP/IP: against the same over a veth pair,
#            against kernel sockets over TAP and over a veth pair; 2,000 connections, IPv4 and IPv6
# bad-wire   real clients and verified bulk over a wire that loses 1 % and 5 % of the frames, reorders,
#            duplicates, corrupts and delays them: `tc netem` where the kernel has it, else the seeded
#            example bad_wire
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=ci/lab.sh
. "$repo/ci/lab.sh"
budget 900 "$@"

parts=("$@")
((${#parts[@]})) || parts=(tests tap af-packet bench bad-wire)
for part in "${parts[@]}"; do
    [[ " tests tap af-packet bench bad-wire " == *" $part "* ]] || die "unknown part: $part"
done
[[ $(id -u) -eq 0 ]] || die "only root can make network namespaces and TAP devices"
[[ -c /dev/net/tun ]] || die "no /dev/net/tun: modprobe tun"

# What needs the machine's own network comes before the namespace.
if [[ ${HIOLOAD_LAB:-} != namespace ]]; then
    "$repo/ci/install.sh" lab python node chromium autobahn
    cargo test --quiet -p hioload-dataplane --features lab --no-run
    cargo build --quiet --release -p hioload-dataplane --example bad_wire
    build_appliance
    exec env HIOLOAD_LAB=namespace unshare --net bash "$0" "$@"
fi

trap stop_all EXIT
settle_in

# serve_on BACKEND INTERFACE NET ARGS...: the appliance as host 2 of 10.NET.0.0/24 and
# fd00:NET::/64, ready.
serve_on() {
    local backend=$1 interface=$2 net=$3
    shift 3
    serve_two "$logs/stack-lab-$backend.log" --backend "$backend" --interface "$interface" \
        --address "10.$net.0.2/24" --address "fd00:$net::2/64" --listen 0.0.0.0:9001 "$@"
    url4=ws://10.$net.0.2:9001 url6="ws://[fd00:$net::2]:9001"
}

# serve_two LOG ARGS...: the appliance, ready on two addresses.
serve_two() {
    local program log_file=$1
    shift
    read -ra program <<<"${HIOLOAD_SERVE:-$target/release/hioload-ws serve}"
    launch "$log_file" "${program[@]}" "$@"
    ready
}

# bench_to URL ARGS...: a load whose every payload is verified, without an error.
bench_to() {
    local log=$logs/stack-lab-bench.log program rc=0
    read -ra program <<<"${HIOLOAD_BENCH:-$target/release/hioload-ws bench}"
    "${program[@]}" "$@" >"$log" 2>&1 || rc=$?
    grep -E '^  (connections|throughput|latency)' "$log" || true
    ((rc == 0)) || tail -n 12 "$log"
    return "$rc"
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
    for client in python_client node_client chromium_client; do
        check "tap: $client echo" "$client" echo "$url4" "$url6"
    done
    check "tap: SIGTERM" stop_server "$server_pid"
    serve_on tap hw0 9 --app echo --max-frame 16MiB --max-message 16MiB
    check "tap: autobahn 1-7, 9 and 10" bash "$repo/ci/autobahn.sh" --url "$url4" \
        --cases '1.* 2.* 3.* 4.* 5.*,6.* 7.* 10.*,9.*'
    check "tap: SIGTERM" stop_server "$server_pid"
    serve_on tap hw0 9 --app echo --trace-connection 10.9.0.1 --trace-file "$logs/stack-lab.pcap"
    check "tap: a load with a trace" bench_to "$url4" --connections 3 --duration 200ms
    check "tap: tcpdump reads the trace" reads_trace
    check "tap: SIGTERM" stop_server "$server_pid"
    serve_on tap hw0 9 --app broadcast
    for client in python_client node_client chromium_client; do
        check "tap: $client broadcast" "$client" broadcast "$url4"
    done
    check "tap: SIGTERM" stop_server "$server_pid"
    for client in python_client node_client chromium_client; do
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
    quiet hw1
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

# reads_trace: three handshakes, and what was said after them; nothing that tcpdump can't make out.
reads_trace() {
    local text
    text=$(tcpdump -n -r "$logs/stack-lab.pcap" 2>/dev/null) || return 1
    ! grep -qi invalid <<<"$text" || return 1
    (($(grep -c 'Flags \[S\]' <<<"$text") == 3 && $(grep -c 'Flags \[S.\]' <<<"$text") == 3)) &&
        (($(grep -c 'Flags \[P.\]' <<<"$text") > 10))
}

# The stack's own ends take host 3, so that a server of the kernel's is host 1.
run_bench() {
    local url many=(--connections 2000 --duration 2s --size 1-3000 --timeout 20s)
    local own=(--address 10.6.0.3/24 --address fd00:6::3/64)
    ip link add hw4 type veth peer name hw5
    quiet hw4
    quiet hw5
    serve_on af-packet hw4 6 --app echo
    for url in "$url4" "$url6"; do
        check "bench: own stack at both ends, $url" bench_to "$url" "${many[@]}" \
            --backend af-packet --interface hw5 "${own[@]}"
    done
    check "bench: 1 MiB messages, own stack at both ends" bench_to "$url4" --size 1048576 \
        --connections 4 --duration 2s --timeout 20s --backend af-packet --interface hw5 "${own[@]}"
    check "bench: SIGTERM" stop_server "$server_pid"
    serve_on af-packet hw4 6 --app echo --freeze-after 500ms
    check "bench: 2,000 idle connections" bench_to "$url4" --idle --connections 2000 \
        --duration 2s --backend af-packet --interface hw5 "${own[@]}"
    check "bench: SIGTERM" stop_server "$server_pid"
    check "bench: idle connections were frozen" grep -qE 'freezes [2-9][0-9]{3},' \
        "$logs/stack-lab-af-packet.log"
    ip link delete hw4

    serve_kernel
    ip link add hw4 type veth peer name hw5
    quiet hw4
    host hw5 6
    ethtool -K hw5 tx off >/dev/null
    for url in "ws://10.6.0.1:$kernel_port" "ws://[fd00:6::1]:$kernel_port"; do
        check "bench: over af-packet against kernel sockets, $url" bench_to "$url" "${many[@]}" \
            --backend af-packet --interface hw4 "${own[@]}"
    done
    ip link delete hw4
    ip tuntap add dev hw4 mode tap
    host hw4 6
    for url in "ws://10.6.0.1:$kernel_port" "ws://[fd00:6::1]:$kernel_port"; do
        check "bench: over tap against kernel sockets, $url" bench_to "$url" "${many[@]}" \
            --backend tap --interface hw4 "${own[@]}"
    done
    ip link delete hw4
    check "bench: SIGTERM" stop_server "$server_pid"
}

# serve_kernel: the appliance on kernel sockets, on all addresses. Sets kernel_port.
serve_kernel() {
    kernel_port=9101
    serve_two "$logs/stack-lab-kernel.log" --listen "0.0.0.0:$kernel_port" \
        --listen "[::]:$kernel_port" --app echo
}

# The appliance on TAP device hw6; behind it a wire to w1, whose peer w0 is the kernel's.
run_bad-wire() {
    local settings what netem harm wire
    ip tuntap add dev hw6 mode tap
    quiet hw6
    ip link add w0 type veth peer name w1
    quiet w1
    host w0 7
    ethtool -K w0 tx off >/dev/null
    serve_on tap hw6 7 --app echo --handshake-timeout 60s
    if tc qdisc add dev w1 root netem delay 1ms 2>/dev/null; then
        tc qdisc delete dev w1 root
        wire=netem
    else
        wire=seeded
    fi
    say "bad-wire: faults by ${wire/seeded/the seeded example bad_wire (this kernel has no netem)}"
    settings=(
        "1 % lost|loss 1%|--loss 10"
        "5 % lost|loss 5%|--loss 50"
        "reordered, duplicated, corrupted|delay 1ms reorder 90% duplicate 2% corrupt 1%|--reorder 100 --duplicate 20 --corrupt 10"
        "20 ms late|delay 20ms|--delay-ms 20"
    )
    for what in "${settings[@]}"; do
        IFS='|' read -r what netem harm <<<"$what"
        bad_wire "$wire" "$netem" "$harm"
        check "bad-wire: clients, $what" clients_together
        check "bad-wire: bulk, $what" bench_to "$url4" --connections 20 --size 1-65536 \
            --duration 3s --timeout 60s
        end_wire "$wire"
    done
    check "bad-wire: SIGTERM" stop_server "$server_pid"
    ip link delete w0
    ip link delete hw6
}

# bad_wire WIRE NETEM HARM: carries frames between hw6 and w1, both ways through the faults.
bad_wire() {
    local arguments end
    arguments=$3
    if [[ $1 == netem ]]; then
        arguments=''
        # shellcheck disable=SC2086 # several words
        for end in hw6 w1; do tc qdisc add dev "$end" root netem $2; done
    fi
    # shellcheck disable=SC2086 # several words
    "$target/release/examples/bad_wire" $arguments hw6 w1 >"$logs/stack-lab-wire.log" 2>&1 &
    wire_pid=$!
    servers+=("$wire_pid")
}

# end_wire WIRE
end_wire() {
    local end
    kill -TERM "$wire_pid" && wait "$wire_pid" || true
    [[ $1 == seeded ]] || for end in hw6 w1; do tc qdisc delete dev "$end" root; done
}

# clients_together: each on each family, side by side, as they wait most of the time.
clients_together() {
    local client url pids=() pid rc=0
    for client in python_client node_client; do
        for url in "$url4" "$url6"; do
            "$client" bad-wire "$url" &
            pids+=($!)
        done
    done
    for pid in "${pids[@]}"; do wait "$pid" || rc=1; done
    return "$rc"
}

for part in "${parts[@]}"; do "run_$part"; done
exit "$failed"
