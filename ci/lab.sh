# shellcheck shell=bash
# What the suites in a network namespace share (stack-lab, dpdk-lab): the kernel's side of a link,
# clients over it, and a server that is found ready. Sourced after lib.sh, never run.

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

# ready: waits until the server that was launched listens on two addresses.
ready() {
    local tries=400
    until (($(grep -c 'listening on' "$log") == 2)); do
        kill -0 "$server_pid" 2>/dev/null || die "the server ended at once: $(tail -n 3 "$log")"
        ((tries-- > 0)) || die "the server was not ready within 20 s: $(tail -n 3 "$log")"
        sleep 0.05
    done
}

# settle_in: what a new namespace needs. Linux's TCP is Reno's there, which every kernel has: with
# BBR, the default of some machines, a sender that met heavy loss paces itself to two segments a
# second for long after the wire is good again, and no bound on a load's time holds.
settle_in() {
    ip link set lo up
    sysctl -qw net.ipv4.tcp_congestion_control=reno
}

# host INTERFACE NET: the kernel is host 1 of 10.NET.0.0/24 and fd00:NET::/64 there.
host() {
    ip address add "10.$2.0.1/24" dev "$1"
    ip address add "fd00:$2::1/64" dev "$1" nodad
    ip link set "$1" up
}

# quiet INTERFACE: it carries frames, and the kernel has nothing to say on it.
quiet() {
    echo 1 >"/proc/sys/net/ipv6/conf/$1/disable_ipv6"
    ip link set "$1" arp off up
}

answers_ping() { ping -q -c 3 -i 0.2 -W 2 "$1" >"$logs/lab-ping.log" 2>&1; }

# drains CLIENT: the server ends in order while that client is connected to $url4.
drains() {
    local pid=$server_pid
    "$1" drain "$url4" --pid "$pid" && drained "$pid"
}
