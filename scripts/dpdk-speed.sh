#!/usr/bin/env bash
# How fast the appliance is on DPDK where no kernel is in the way: `serve` on net_vhost, pinned to
# one core, and `bench` on net_virtio_user, pinned to another; beside it the epoll backend on
# loopback, on the same cores. Prints a table in Markdown and writes JSON.
#
#   scripts/dpdk-speed.sh [--seconds N] [--rounds N] [--connections N,...] [--sizes N,...]
#                         [--depths N,...] [--cores SERVER,BENCH] [--json FILE]
#
# Wants root, two cores that nothing else uses, and 1,024 hugepages of 2 MiB, which it reserves and
# gives back. With 100,000 connections it takes about 10 minutes; a quiet machine matters more.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/../ci/lib.sh"

[[ $(id -u) -eq 0 ]] || die "only root may reserve hugepages"
"$repo/scripts/install-dpdk.sh"
cargo build --release --quiet --features dpdk --bin hioload-ws
before=$(sysctl -n vm.nr_hugepages)
trap 'sysctl -qw vm.nr_hugepages="$before"' EXIT
if ((before < 1024)); then sysctl -qw vm.nr_hugepages=1024 || true; fi
(($(sysctl -n vm.nr_hugepages) >= 1024)) || die "1,024 hugepages of 2 MiB are not to be had here"
python3 "$repo/scripts/dpdk_speed.py" --program "$target/release/hioload-ws" "$@"
