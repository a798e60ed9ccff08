#!/usr/bin/env bash
# The appliance on DPDK's TAP device: installs what is missing, builds, starts, and prints the URL
# that a browser or a client on this machine can open. For trying: a TAP device is slow.
#
#   scripts/tap-demo.sh            until Ctrl-C; asks sudo for what only root may
#   scripts/tap-demo.sh --check    loads it for two seconds instead, and ends
#
# It makes the interface hiodemo0 with 10.99.7.1/24 and fd99:7::1/64, which vanishes with it.
set -euo pipefail
# shellcheck source=scripts/demo-lib.sh
. "$(dirname "$0")/demo-lib.sh"

prepare
[[ -c /dev/net/tun ]] || "${as_root[@]}" modprobe tun || die "this kernel has no TAP devices"
[[ ! -e /sys/class/net/hiodemo0 ]] || die "there is an interface hiodemo0: does this run twice?"
trap stop_demo EXIT
trap 'exit 130' HUP INT TERM
start_demo 7 net_tap0,iface=hiodemo0
kernel_end hiodemo0 7
show 7 "$@"
