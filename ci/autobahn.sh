#!/usr/bin/env bash
# Suite autobahn: the Autobahn fuzzing client against the echo server. Every case has to be OK or
# INFORMATIONAL, in behaviour and in close behaviour, and none may be missing.
#
#   ci/autobahn.sh [--url ws://HOST:PORT] [--backend NAME] [--cases LIST[,LIST]...]
#
# --url      tests a server that already runs (with a message limit of 16 MiB), starts none
# --backend  is handed on to `serve`
# --cases    other cases than the 301 of sections 1-7, 9 and 10; each comma-separated part is a run
#            of its own, all at the same time: --cases '12.1.* 12.2.*,12.3.*,13.*'
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
case " $* " in *" --cases "*) seconds=1800 ;; *) seconds=420 ;; esac
budget "$seconds" "$@"

url='' backend=() expected=301
cases='9.*,1.* 2.* 3.* 4.* 5.* 6.* 7.* 10.*'
while (($#)); do
    case $1 in
    --url) url=${2:?} ;;
    --backend) backend=(--backend "${2:?}") ;;
    --cases) cases=${2:?} expected=1 ;;
    *) die "unknown argument: $1" ;;
    esac
    shift 2
done

"$repo/ci/install.sh" autobahn
python27_env
reports=$logs/autobahn
rm -rf "$reports"
mkdir -p "$reports"
trap stop_all EXIT

if [[ -z $url ]]; then
    build_appliance
    # Section 9 has messages of 16 MiB; the default limit is 1 MiB.
    serve "$logs/autobahn-server.log" --listen 127.0.0.1:0 --workers 2 --app echo \
        --max-frame $((16 << 20)) --max-message $((16 << 20)) "${backend[@]:+${backend[@]}}"
    url=$url4
fi

# The report is written at the end of a run only: a run that hangs has to be ended in time to
# be told from the others.
runs=()
IFS=, read -ra shards <<<"$cases"
for i in "${!shards[@]}"; do
    read -ra patterns <<<"${shards[$i]}"
    quoted=$(printf '"%s",' "${patterns[@]}")
    cat >"$reports/spec$i.json" <<SPEC
{"outdir": "$reports/$i", "servers": [{"agent": "hioload-ws", "url": "$url"}],
 "cases": [${quoted%,}], "exclude-cases": [], "exclude-agent-cases": {}}
SPEC
    timeout $((seconds - 120)) "$cache/autobahn/bin/wstest" -m fuzzingclient \
        -s "$reports/spec$i.json" >"$reports/run$i.log" 2>&1 &
    runs+=("$!")
done
failed=0
for i in "${!runs[@]}"; do
    wait "${runs[$i]}" || { failed=1 && say "run $i (${shards[$i]}) ended with an error or late"; }
done

python3 "$repo/ci/autobahn_verdict.py" --expect "$expected" "$reports"/*/index.json || failed=1
if ((${#servers[@]})); then stop_server "$server_pid" || failed=1; fi
exit "$failed"
