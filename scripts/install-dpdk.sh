#!/usr/bin/env bash
# Installs what a build with `--features dpdk` needs on Debian 12: DPDK with its drivers, what
# bindgen reads its headers with, hwloc, a C compiler. With all of it there it only looks.
#
#   scripts/install-dpdk.sh            as root, or with sudo
#   scripts/install-dpdk.sh --demo     also ip, ethtool, and curl to install Rust with
#   scripts/install-dpdk.sh --nic      also dpdk-devbind.py
set -euo pipefail

packages=(build-essential pkg-config libdpdk-dev libclang1-14 libclang-common-14-dev
    libhwloc-dev libudev-dev)
case ${1:-} in
'') ;;
--demo) packages+=(iproute2 ethtool curl ca-certificates) ;;
--nic) packages+=(dpdk pciutils) ;;
*) echo "unknown: $1 (--demo, --nic)" >&2 && exit 2 ;;
esac

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing+=("$package")
done
if ((${#missing[@]})); then
    command -v apt-get >/dev/null || {
        echo "this is not a Debian: install by its own means what these are: ${missing[*]}" >&2
        exit 1
    }
    as_root=()
    if [[ $(id -u) -ne 0 ]]; then
        command -v sudo >/dev/null || {
            echo "only root can install: ${missing[*]}" >&2
            exit 1
        }
        as_root=(sudo)
    fi
    echo "installing: ${missing[*]}"
    # A machine that has just booted may be upgrading itself: apt-get waits until it is done.
    wait=(-o DPkg::Lock::Timeout=300)
    "${as_root[@]}" apt-get "${wait[@]}" update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get "${wait[@]}" install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
echo "DPDK $(pkg-config --modversion libdpdk), hwloc $(pkg-config --modversion hwloc)"
[[ ${1:-} == --demo ]] || command -v cargo >/dev/null ||
    echo "there is no cargo: install Rust from https://rustup.rs (Debian's own is too old)" >&2
