#!/usr/bin/env bash
# What the demos run as root: a server, ended in order as soon as the pipe on the standard input is
# closed, after which its traces are removed. So all is gone however the demo ended, by `kill -9`
# too, and nobody is asked for a password at the end.
#
#   demo-keeper.sh FOLDER INTERFACE SERVER ARGS...    INTERFACE is removed; '' for none
set -uo pipefail

folder=$1 interface=$2
shift 2
# Where DPDK puts its run-time files, else under /var/run.
export RUNTIME_DIRECTORY=$folder

exec 3<&0
"$@" </dev/null 3<&- &
server=$!
cat <&3 >/dev/null &
pipe=$!
rc=0
wait -n "$server" "$pipe" || rc=$?
if kill -TERM "$server" 2>/dev/null; then
    rc=0
    wait "$server" || rc=$?
fi
kill "$pipe" 2>/dev/null
rm -rf "$folder/dpdk"
[[ -z $interface || ! -e /sys/class/net/$interface ]] || ip link delete "$interface"
exit "$rc"
