#!/usr/bin/env bash
# Gives a NIC to DPDK (driver vfio-pci) and back to the kernel. A thin wrapper of DPDK's own
# dpdk-devbind.py that refuses the NIC which carries this machine's default route. It could not be
# tried on a physical NIC by its authors: have a console at hand.
#
#   scripts/bind-nic.sh                 shows all NICs and their drivers
#   scripts/bind-nic.sh dpdk PCI        to DPDK: 0000:03:00.0; prints how to give it back
#   scripts/bind-nic.sh kernel PCI DRIVER
#
# Mellanox (mlx4, mlx5) NICs stay with their kernel driver: DPDK works through it. A machine
# without an IOMMU needs enable_unsafe_noiommu_mode of vfio, which gives DPDK all of its memory.
set -euo pipefail

die() {
    echo "bind-nic.sh: $*" >&2
    exit 1
}
devbind=$(command -v dpdk-devbind.py) || die "no dpdk-devbind.py: scripts/install-dpdk.sh --nic"
action=${1:-show} pci=${2:-}
if [[ $action == show ]]; then exec "$devbind" --status-dev net; fi
[[ $(id -u) -eq 0 ]] || die "only root may bind devices"
[[ -d /sys/bus/pci/devices/$pci && -n $pci ]] || die "no PCI device \`$pci\` (like 0000:03:00.0)"

case $action in
dpdk)
    for interface in "/sys/bus/pci/devices/$pci"/net/*; do
        name=${interface##*/}
        if ip -o route show default | grep -qw "dev $name"; then
            die "$pci is $name, which carries the default route: this machine would be cut off"
        fi
    done
    driver=$(basename "$(readlink -f "/sys/bus/pci/devices/$pci/driver" || echo none)")
    [[ $driver != mlx* ]] || die "$pci has driver $driver: DPDK uses it through that driver"
    [[ $driver != vfio-pci ]] || die "$pci is with vfio-pci already"
    modprobe vfio-pci || die "no module vfio-pci in this kernel"
    [[ -n $(ls -A /sys/kernel/iommu_groups) ]] ||
        die "no IOMMU: turn it on (firmware; intel_iommu=on or amd_iommu=on at boot)"
    "$devbind" --bind=vfio-pci "$pci"
    echo "back to the kernel: $0 kernel $pci $driver"
    ;;
kernel)
    "$devbind" --bind="${3:?the driver, as printed when it was bound}" "$pci"
    ;;
*) die "unknown: $action (show, dpdk, kernel)" ;;
esac
