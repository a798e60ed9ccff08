#!/usr/bin/env bash
# The appliance on DPDK's AF_PACKET device, on one end of a veth pair whose other end is this
# machine's kernel: installs what is missing, builds, starts, and prints the URL that a browser or a
# client on this machine can open. On a real interface it is the same with `iface=eth0`.
#
#   scripts/af-packet-demo.sh            until Ctrl-C; asks sudo for what only root may
#   scripts/af-packet-demo.sh --check    loads it for two seconds instead, and ends
#
# It makes the interfaces hiodemo1 and hiodemo2 (10.99.8.1/24, fd99:8::1/64) and removes them.
set -euo pipefail
# shellcheck source=scripts/demo-lib.sh
. "$(dirname "$0")/demo-lib.sh"

prepare
[[ ! -e /sys/class/net/hiodemo1 ]] ||
    die "there is an interface hiodemo1: does this run twice? If not: ip link delete hiodemo1"
remove() {
    stop_demo
    [[ ! -e /sys/class/net/hiodemo1 ]] || "${as_root[@]}" ip link delete hiodemo1 || true
}
trap remove EXIT
trap 'exit 130' HUP INT TERM
"${as_root[@]}" ip link add hiodemo1 type veth peer name hiodemo2
# The kernel is to keep silent at the server's end.
silent=/proc/sys/net/ipv6/conf/hiodemo1/disable_ipv6
[[ ! -e $silent ]] || "${as_root[@]}" tee "$silent" <<<1 >/dev/null
"${as_root[@]}" ip link set hiodemo1 arp off up
kernel_end hiodemo2 8
start_demo 8 net_af_packet0,iface=hiodemo1 hiodemo1
show 8 "$@"
