#!/usr/bin/env bash
# Suite dpdk-lab: the appliance and the dataplane's tests on DPDK's virtual devices, with Linux and
# real clients at their other end, in a network namespace that ends with the suite, however that
# ends. Wants root, and 256 hugepages of 2 MiB, which it reserves and gives back.
#
#   ci/dpdk-lab.sh [tests|devices|autobahn|memory|lcores|wire|capture|trouble|refusals]...   (default: all)
#
# tests     the program's tests with DPDK in it, and the dataplane's, with and without hugepages
# devices   af_packet, tap and af_xdp, each with and without hugepages: ping, Python and Node
#           clients, IPv4 and IPv6, broadcast, a drain under way
# autobahn  sections 1-7, 9 and 10 on af_packet, strict
# memory    without -m: hugepages are taken as the pools of one queue, and of two, need them
# lcores    two lcores with a queue pair each, under load from the kernel; `bench` on DPDK, too
# wire      a load over a wire that loses, reorders, duplicates and delays frames
# capture   dpdk-dumpcap beside the server: a whole connection, both directions, read by tcpdump
# trouble   under load: the link goes down and up, packet buffers are few, the interface is deleted;
#           a killed process left hugepage files; the other side of a vhost link was killed
# refusals  bad EAL arguments, no such device, no hugepages, no privilege, a second process of the
#           same name: each a message and an exit code, within seconds
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=ci/lab.sh
. "$repo/ci/lab.sh"
budget 900 "$@"

all=(tests devices autobahn memory lcores wire capture trouble refusals)
parts=("$@")
((${#parts[@]})) || parts=("${all[@]}")
for part in "${parts[@]}"; do
    [[ " ${all[*]} " == *" $part "* ]] || die "unknown part: $part (there are: ${all[*]})"
done
[[ $(id -u) -eq 0 ]] || die "only root can make network namespaces and reserve hugepages"
[[ -c /dev/net/tun ]] || die "no /dev/net/tun: modprobe tun"
appliance=$logs/hioload-ws-dpdk
# Two processes of 128 MiB, and buffers; all the rest is room to breathe.
hugepages_wanted=256 hugepages_least=160

# What needs the machine's own network comes before the namespace.
if [[ ${HIOLOAD_LAB:-} != namespace ]]; then
    "$repo/ci/install.sh" lab dpdk python node autobahn
    if [[ " ${parts[*]} " == *" tests "* ]]; then
        cargo test --quiet -p hioload-dataplane --features lab,dpdk --no-run
        cargo test --quiet --features dpdk --lib --bins --no-run
    fi
    [[ " ${parts[*]} " != *" wire "* ]] ||
        cargo build --release --quiet -p hioload-dataplane --example bad_wire
    cargo build --release --quiet --features dpdk --bin hioload-ws
    # The next build without DPDK takes its place.
    cp "$target/release/hioload-ws" "$appliance"
    exec env HIOLOAD_LAB=namespace unshare --net --mount bash "$0" "$@"
fi

hugepages_before=$(sysctl -n vm.nr_hugepages)
hugepages_free() { cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages; }
clean_up() {
    stop_all
    sysctl -qw vm.nr_hugepages="$hugepages_before" || true
}
trap clean_up EXIT
missing=$((hugepages_wanted - $(hugepages_free)))
if ((missing > 0)); then sysctl -qw vm.nr_hugepages=$((hugepages_before + missing)) || true; fi
(($(hugepages_free) >= hugepages_least)) ||
    die "$(hugepages_free) of $hugepages_least hugepages of 2 MiB can be had here: a container" \
        "that may not reserve them, or fragmented memory. DPDK with hugepages can't be tried"

settle_in

# eal huge|small NAME: arguments of the EAL, with hugepages or without any.
eal() {
    local common="--no-pci --no-telemetry --file-prefix hioload-lab-$2"
    case $1 in
    huge) say "-l 0 --in-memory -m 128 $common" ;;
    small) say "-l 0 --no-huge -m 256 $common" ;;
    esac
}

# start NET ARGS... -- EAL...: the appliance as host 2 of 10.NET.0.0/24 and fd00:NET::/64.
start() {
    local net=$1
    shift
    launch "$logs/dpdk-lab-server.log" "$appliance" serve --backend dpdk \
        --address "10.$net.0.2/24" --address "fd00:$net::2/64" --listen 0.0.0.0:9001 "$@"
    url4=ws://10.$net.0.2:9001 url6="ws://[fd00:$net::2]:9001"
}

# kernel INTERFACE NET: the kernel is host 1 there. It would leave checksums and segmentation to a
# device that does neither.
kernel() {
    host "$1" "$2"
    ethtool -K "$1" tx off >/dev/null
}

# pair NEAR FAR: a veth pair on whose near end the kernel keeps silent.
pair() {
    ip link delete "$1" 2>/dev/null || true
    ip link add "$1" type veth peer name "$2"
    quiet "$1"
}

# serve_on DEVICE huge|small ARGS...: the appliance on a device of DPDK with the kernel behind it.
net=10
serve_on() {
    local device=$1 memory=$2 vdev arguments
    shift 2
    stop_all
    net=$((net + 1))
    case $device in
    tap) vdev=net_tap0,iface=hd0 ;;
    af-packet) vdev=net_af_packet0,iface=hd0 ;;
    af-xdp) vdev=net_af_xdp0,iface=hd0 ;;
    esac
    if [[ $device == tap ]]; then
        ip link delete hd0 2>/dev/null || true
    else
        pair hd0 hd1
        kernel hd1 $net
    fi
    read -ra arguments <<<"$(eal "$memory" "$net")"
    start $net "$@" -- "${arguments[@]}" --vdev "$vdev"
    ready
    if [[ $device == tap ]]; then kernel hd0 $net; fi
}

# load ARGS...: the load generator verifies every payload; what fails fails it.
load() {
    "$appliance" bench "$@" >"$logs/dpdk-lab-bench.log" 2>&1 ||
        { tail -n 12 "$logs/dpdk-lab-bench.log" && return 1; }
}

run_tests() {
    local memory
    check "tests of the program" cargo test --offline --quiet --features dpdk --lib --bins
    for memory in yes no; do
        check "tests, hugepages: $memory" env HIOLOAD_DPDK_HUGEPAGES=$memory \
            cargo test --offline --quiet -p hioload-dataplane --features lab,dpdk \
            --test dpdk --test dpdk_allocations --test dpdk_idle --test dpdk_trouble -- --test-threads=4
    done
}

run_devices() {
    local device memory
    for device in af-packet tap af-xdp; do
        for memory in huge small; do
            local what="$device, $memory pages"
            serve_on $device $memory --app echo
            check "$what: ping" answers_ping "10.$net.0.2"
            check "$what: ping6" answers_ping "fd00:$net::2"
            check "$what: python echo" python_client echo "$url4" "$url6"
            check "$what: node echo" node_client echo "$url4" "$url6"
            case $memory in
            huge) check "$what: python drain" drains python_client ;;
            small) check "$what: node drain" drains node_client ;;
            esac
        done
        serve_on $device huge --app broadcast
        check "$device: python broadcast" python_client broadcast "$url4"
        check "$device: SIGTERM" stop_server "$server_pid"
    done
}

run_autobahn() {
    serve_on af-packet huge --max-frame 16MiB --max-message 16MiB
    check "af-packet: autobahn 1-7, 9 and 10" bash "$repo/ci/autobahn.sh" --url "$url4"
    check "af-packet: SIGTERM" stop_server "$server_pid"
}

# takes_what_it_needs QUEUES: the EAL maps the pages of the queues' pools, and few besides.
takes_what_it_needs() {
    local queues=$1 folder=$logs/hugetlbfs page=$((2 << 20)) mbufs pages least most
    mkdir -p "$folder"
    mount -t hugetlbfs none "$folder"
    net=$((net + 1))
    pair hd0 hd1
    kernel hd1 $net
    start $net --workers "$queues" -- --huge-dir "$folder" --no-pci --no-telemetry \
        --file-prefix hioload-lab-memory --vdev "net_af_packet0,iface=hd0,qpairs=$queues"
    ready
    mbufs=$(sed -n 's/.* \([0-9]*\) mbufs each.*/\1/p' "$log")
    pages=$(compgen -G "$folder/hioload-lab-memorymap_*" | wc -l)
    # An mbuf is 128 bytes of its own, 64 of its pool's, 128 of headroom and 2,048 of frame. A pool
    # has its ring and caches besides, and begins and ends where it will; DPDK has tables.
    least=$((queues * mbufs * 2368 / page)) most=$((queues * (mbufs * 2368 / page + 2) + 1))
    answers_ping "10.$net.0.2" && stop_server "$server_pid" || return 1
    umount "$folder"
    ((mbufs > 0 && pages >= least && pages <= most)) ||
        { say "$pages pages for $queues x $mbufs mbufs, not $least to $most" && return 1; }
}

run_memory() {
    check "no -m: pages for one queue" takes_what_it_needs 1
    check "no -m: pages for two queues" takes_what_it_needs 2
}

run_lcores() {
    local common=(--in-memory -m 128 --no-pci --no-telemetry)
    # A frame that a ring has no room for goes to the other one, as the driver asked the kernel, and
    # its connection ends there: so these rings are larger than what may be in flight.
    local two="net_af_packet0,iface=hd0,qpairs=2,framecnt=4096"
    net=$((net + 1))
    pair hd0 hd1
    kernel hd1 $net
    # More lcores than cores: 0 is the main one.
    start $net --app broadcast -- --lcores 0@0,1@0,2@1 "${common[@]}" \
        --vdev "$two"
    ready
    check "two lcores: two workers" grep -q 'workers      2, pinned to cores 0 1' "$log"
    check "two lcores: python broadcast" python_client broadcast "$url4"
    check "two lcores: SIGTERM" stop_server "$server_pid"
    start $net --app echo -- --lcores 0@0,1@0,2@1 "${common[@]}" \
        --vdev "$two"
    ready
    check "two lcores: load" load "$url4" --connections 200 --size 1-4096 --depth 4 --duration 3s
    check "two lcores: load over IPv6" load "$url6" --connections 50 --duration 1s
    check "two lcores: SIGTERM" stop_server "$server_pid"

    # Both sides on DPDK, over the same pair; the kernel has nothing to say.
    net=$((net + 1))
    pair hd0 hd1
    echo 1 >/proc/sys/net/ipv6/conf/hd1/disable_ipv6
    ip link set hd1 arp off up
    start $net --app echo -- -l 0 "${common[@]}" --vdev net_af_packet0,iface=hd0
    ready
    check "bench on DPDK" load "$url4" --backend dpdk --address "10.$net.0.1/24" \
        --connections 100 --size 1-4096 --depth 4 --duration 2s -- \
        -l 1 "${common[@]}" --vdev net_af_packet0,iface=hd1
    check "bench on DPDK: SIGTERM" stop_server "$server_pid"
}

# bad_wire: netem where this kernel has it, else a wire of our own between two pairs of veth.
run_wire() {
    local arguments
    read -ra arguments <<<"$(eal huge wire)"
    net=$((net + 1))
    pair hd0 hd1
    if tc qdisc add dev hd1 root netem loss 1% duplicate 1% delay 3ms 2ms 2>/dev/null; then
        say "wire: tc netem (loss 1 %, duplicates 1 %, reordering by 3 +- 2 ms)"
        kernel hd1 $net
    else
        say "wire: bad_wire of our own (loss, duplicates, corruption, reordering 1 % each, 2 ms):" \
            "this kernel has no netem"
        pair hd2 hd3
        ip link set hd1 arp off up
        echo 1 >/proc/sys/net/ipv6/conf/hd1/disable_ipv6
        kernel hd3 $net
        "$target/release/examples/bad_wire" --seed 7 --loss 10 --duplicate 10 --corrupt 10 \
            --reorder 10 --delay-ms 2 hd1 hd2 >"$logs/dpdk-lab-wire.log" 2>&1 &
        servers+=("$!")
    fi
    start $net --app echo -- "${arguments[@]}" --vdev net_af_packet0,iface=hd0
    ready
    check "wire: load" load "$url4" --connections 50 --size 1-8192 --depth 2 --duration 8s \
        --timeout 30s
    check "wire: SIGTERM" stop_server "$server_pid"
    stop_all
}

# Both directions of one connection, from its handshake to its end, as the server's queue had them.
captures() {
    local file=$logs/dpdk-lab-capture.pcapng words=$logs/dpdk-lab-capture.log tries=100 dumpcap
    # Chatty: it counts on one line.
    dpdk-dumpcap --file-prefix=hioload-lab-capture -q -p -i net_af_packet0 -w "$file" \
        >"$words" 2>&1 &
    dumpcap=$!
    servers+=("$dumpcap")
    until grep -q '^Capturing on' "$words" || ((tries-- == 0)); do sleep 0.1; done
    # The line comes before the callbacks are in place.
    sleep 0.5
    python_client echo "$url4" || return 1
    sleep 0.5
    kill -INT "$dumpcap" && await_exit "$dumpcap" 10 || return 1
    tcpdump -Annr "$file" >"$words" 2>&1
    local host=10.$net.0.2.9001 kernel="10.$net.0.1.[0-9]+" seen
    for seen in "$kernel > $host: Flags \[S\]" "$host > $kernel: Flags \[S\.\]" \
        "GET /.* HTTP/1\.1" "HTTP/1\.1 101" "$kernel > $host: Flags \[F" \
        "$host > $kernel: Flags \[F"; do
        grep -qaE "$seen" "$words" || { say "no \`$seen\` in what was captured" && return 1; }
    done
}

# ends_while_captured: a capture under way is no hindrance for a server that is to end.
ends_while_captured() {
    dpdk-dumpcap --file-prefix=hioload-lab-capture -q -p -i net_af_packet0 \
        -w "$logs/dpdk-lab-capture.pcapng" >"$logs/dpdk-lab-capture.log" 2>&1 &
    local dumpcap=$!
    servers+=("$dumpcap")
    sleep 2
    stop_server "$server_pid" && await_exit "$dumpcap" 15
}

run_capture() {
    local folder=$logs/hugetlbfs
    mkdir -p "$folder"
    mount -t hugetlbfs none "$folder"
    net=$((net + 1))
    pair hd0 hd1
    kernel hd1 $net
    start $net --dpdk-capture -- -l 0 -m 64 --huge-dir "$folder" --no-pci --no-telemetry \
        --file-prefix hioload-lab-capture --vdev net_af_packet0,iface=hd0
    ready
    check "capture: a connection, both directions" captures
    check "capture: SIGTERM while it goes on" ends_while_captured
    umount "$folder"
    check "capture: refused where no other process gets in" refused 'captured with .--in-memory' \
        "$appliance" serve --backend dpdk --address 10.9.0.2/24 --dpdk-capture -- -l 0 --no-pci \
        --no-telemetry --in-memory -m 64 --vdev net_af_packet0,iface=hd0
}

# goes_on DEVICE: a load during which the link is down for a moment is answered to the last byte.
goes_on() {
    "$appliance" bench "$url4" --connections 50 --size 1-4096 --duration 5s --timeout 20s \
        >"$logs/dpdk-lab-bench.log" 2>&1 &
    local bench=$!
    sleep 1.5
    ip link set hd0 down
    sleep 0.7
    ip link set hd0 up
    wait "$bench" || { tail -n 12 "$logs/dpdk-lab-bench.log" && return 1; }
}

# ends_without INTERFACE: the server ends by itself, with a failure, when its interface is gone.
ends_without() {
    ip link delete "$1"
    await_exit "$server_pid" 10 || return 1
    local rc=0
    wait "$server_pid" || rc=$?
    ((rc == 1)) || { say "exit code $rc" && return 1; }
    grep -q '^hioload-ws: ' "$log"
}

# survives_a_kill: a process killed with its hugepage files in place is no hindrance for the next.
survives_a_kill() {
    local folder=$logs/hugetlbfs
    mkdir -p "$folder"
    mount -t hugetlbfs none "$folder"
    local arguments=(-l 0 -m 64 --huge-dir "$folder" --no-pci --no-telemetry
        --file-prefix hioload-lab-killed --vdev "net_af_packet0,iface=hd0")
    start $net -- "${arguments[@]}"
    ready
    kill -KILL "$server_pid"
    await_exit "$server_pid" 10 || return 1
    compgen -G "$folder/hioload-lab-killedmap_*" >/dev/null || { say "no files left" && return 1; }
    start $net -- "${arguments[@]}"
    ready
    answers_ping "10.$net.0.2" && stop_server "$server_pid"
    umount "$folder"
}

# ends_without_a_peer: who takes frames is killed under load; the ring that stays full then doesn't
# keep the server from ending.
ends_without_a_peer() {
    local socket=$logs/dpdk-lab-vhost common=(--in-memory --single-file-segments -m 64 --no-pci
        --no-telemetry) bench
    net=$((net + 1))
    rm -f "$socket"
    start $net --drain-limit 5s -- -l 0 "${common[@]}" --vdev "net_vhost0,iface=$socket,queues=1"
    ready
    "$appliance" bench "$url4" --backend dpdk --address "10.$net.0.1/24" --connections 50 \
        --size 1-4096 --depth 4 --duration 60s -- -l 1 "${common[@]}" \
        --vdev "net_virtio_user0,path=$socket,queues=1" >"$logs/dpdk-lab-bench.log" 2>&1 &
    bench=$!
    servers+=("$bench")
    local tries=200
    until grep -q '[1-9][0-9,]* messages/s' "$logs/dpdk-lab-bench.log" || ((tries-- == 0)); do
        sleep 0.1
    done
    kill -KILL "$bench"
    wait "$bench" 2>/dev/null || true
    ((tries > 0)) && stop_server "$server_pid"
}

run_trouble() {
    local device
    for device in af-packet af-xdp; do
        serve_on $device huge
        check "$device: the link is down and up under load" goes_on
        check "$device: the interface is deleted" ends_without hd0
    done
    serve_on tap huge
    check "tap: the link is down and up under load" goes_on
    check "tap: SIGTERM" stop_server "$server_pid"

    serve_on af-packet huge --dpdk-mbufs 512 --dpdk-rx-descriptors 256 --dpdk-tx-descriptors 256
    check "few packet buffers: load" load "$url4" --connections 200 --size 1-16384 --depth 8 \
        --duration 3s --timeout 20s
    check "few packet buffers: SIGTERM" stop_server "$server_pid"
    check "killed with hugepage files in place" survives_a_kill
    check "the peer of a vhost link was killed: SIGTERM" ends_without_a_peer
}

# refused PATTERN COMMAND...: it ends by itself within 20 s, with exit code 1 or 2 and a message.
refused() {
    local pattern=$1 rc=0
    shift
    NO_COLOR=1 timeout --kill-after=5 20 "$@" >"$logs/dpdk-lab-refused.log" 2>&1 || rc=$?
    if ((rc != 1 && rc != 2)) || ! grep '^hioload-ws: ' "$logs/dpdk-lab-refused.log" |
        grep -qE "$pattern"; then
        say "exit code $rc, and not a word of \`$pattern\`:"
        tail -n 5 "$logs/dpdk-lab-refused.log"
        return 1
    fi
}

run_refusals() {
    local serve=("$appliance" serve --backend dpdk --address 10.9.0.2/24)
    local common=(-l 0 --no-pci --no-telemetry --file-prefix hioload-lab-refused)
    pair hd0 hd1
    check "an option that the EAL doesn't know" \
        refused 'EAL' "${serve[@]}" -- "${common[@]}" --no-huge -m 64 --no-such-option
    check "a core that isn't there" \
        refused 'EAL' "${serve[@]}" -- -l 1000 --no-huge -m 64 --no-pci
    check "no device" \
        refused 'no device.*--vdev' "${serve[@]}" -- "${common[@]}" --no-huge -m 256
    check "a device on no interface" refused 'none0|device' \
        "${serve[@]}" -- "${common[@]}" --no-huge -m 256 --vdev net_af_packet0,iface=none0
    check "more hugepages than there are" refused 'hugepages' \
        "${serve[@]}" -- "${common[@]}" --in-memory -m 1000000 --vdev net_af_packet0,iface=hd0
    check "a port that isn't there" refused 'no port .5.' \
        "${serve[@]}" --dpdk-port 5 -- "${common[@]}" --no-huge -m 256 \
        --vdev net_af_packet0,iface=hd0
    check "more workers than lcores" refused 'workers' \
        "${serve[@]}" --workers 3 -- "${common[@]}" --no-huge -m 256 \
        --vdev net_af_packet0,iface=hd0
    # A copy that a plain user may read, wherever the repository is.
    local folder
    folder=$(mktemp -d)
    chmod 755 "$folder"
    cp "$appliance" "$folder/hioload-ws"
    check "no privilege" refused 'root|CAP_|privilege|permitted' \
        setpriv --reuid=65534 --regid=65534 --clear-groups env XDG_RUNTIME_DIR="$folder" \
        "$folder/hioload-ws" serve --backend dpdk --address 10.9.0.2/24 -- "${common[@]}" \
        --no-huge -m 256 --vdev net_af_packet0,iface=hd0
    rm -rf "$folder"
    serve_on af-packet small
    check "a second process of the same name" refused 'file-prefix|another' \
        "${serve[@]}" -- -l 0 --no-huge -m 64 --no-pci --no-telemetry \
        --file-prefix "hioload-lab-$net"
    check "the first goes on" python_client echo "$url4"
    check "the first: SIGTERM" stop_server "$server_pid"
}

for part in "${parts[@]}"; do "run_$part"; done
exit "$failed"
