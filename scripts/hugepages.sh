#!/usr/bin/env bash
# Hugepages of 2 MiB for DPDK and for the buffers: shows, reserves and frees them. A reservation
# lasts until the next boot; for longer, write vm.nr_hugepages to a file in /etc/sysctl.d.
#
#   scripts/hugepages.sh               shows them, by NUMA node, and who holds files on them
#   scripts/hugepages.sh N [NODE]      reserves N in all (512 are 1 GiB), or on that node
#   scripts/hugepages.sh free [NODE]   gives back all that nobody uses
set -euo pipefail

kind=hugepages-2048kB
die() {
    echo "hugepages.sh: $*" >&2
    exit 1
}

show() {
    local node folder
    for folder in /sys/devices/system/node/node*/hugepages/"$kind"; do
        [[ -d $folder ]] || die "this kernel has no hugepages of 2 MiB"
        node=${folder#*/node/node}
        echo "node ${node%%/*}: $(<"$folder/nr_hugepages") reserved," \
            "$(<"$folder/free_hugepages") free (2 MiB each)"
    done
    # What a killed DPDK process left is taken over or removed by the next one with the same
    # --file-prefix; only the others have to be removed by hand.
    local file
    for file in /dev/hugepages/*map_*; do
        [[ -e $file ]] || continue
        if command -v fuser >/dev/null && ! fuser -s "$file"; then
            echo "left behind: $file"
        else
            echo "in use: $file"
        fi
    done
}

# set_pages N FILE: the kernel may give less than it is asked for.
set_pages() {
    local wanted=$1 file=$2 got
    [[ -e $file ]] || die "there is no $file: no such node, or no hugepages of 2 MiB"
    [[ -w $file ]] || die "only root may reserve or free hugepages"
    echo "$wanted" >"$file" 2>/dev/null || die "the kernel refused (a container often may not)"
    got=$(<"$file")
    ((wanted == 0 || got >= wanted)) ||
        die "only $got of $wanted: memory is too fragmented or too small; try after a boot"
}

file_of() {
    case ${1:-} in
    '') echo "/sys/kernel/mm/hugepages/$kind/nr_hugepages" ;;
    *) echo "/sys/devices/system/node/node$1/hugepages/$kind/nr_hugepages" ;;
    esac
}

case ${1:-show} in
show) ;;
free) set_pages 0 "$(file_of "${2:-}")" ;;
*[!0-9]*) die "unknown: $1 (show, free, or a number of pages)" ;;
*) set_pages "$1" "$(file_of "${2:-}")" ;;
esac
show
