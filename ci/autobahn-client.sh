#!/usr/bin/env bash
# Suite autobahn-client: the Autobahn fuzzing server against the library's client. Every case has
# to be OK or INFORMATIONAL, in behaviour and in close behaviour, and none may be missing.
#
#   ci/autobahn-client.sh [--cases LIST]
#
# --cases  other cases than the 301 of sections 1-7, 9 and 10, such as '9.* 1.1.1'
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 420 "$@"

expected=301
cases='1.* 2.* 3.* 4.* 5.* 6.* 7.* 9.* 10.*'
while (($#)); do
    case $1 in
    --cases) cases=${2:?} expected=1 ;;
    *) die "unknown argument: $1" ;;
    esac
    shift 2
done

"$repo/ci/install.sh" autobahn
python27_env
cargo build --release --quiet --example autobahn_client
reports=$logs/autobahn-client
rm -rf "$reports"
mkdir -p "$reports"
trap stop_all EXIT

# A port that was free a moment ago; the suite has no way to let the system choose one.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
read -ra patterns <<<"$cases"
quoted=$(printf '"%s",' "${patterns[@]}")
cat >"$reports/spec.json" <<SPEC
{"url": "ws://127.0.0.1:$port", "outdir": "$reports/report", "cases": [${quoted%,}],
 "exclude-cases": [], "exclude-agent-cases": {}}
SPEC
# --webport 0: without the web page, which would have a port of its own.
"$cache/autobahn/bin/wstest" -m fuzzingserver -s "$reports/spec.json" --webport 0 \
    >"$reports/server.log" 2>&1 &
server_pid=$!
servers+=("$server_pid")
tries=200
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "$server_pid" 2>/dev/null || die "wstest ended at once: $(tail -n 3 "$reports/server.log")"
    ((tries-- > 0)) || die "wstest does not listen after 20 s: $(tail -n 3 "$reports/server.log")"
    sleep 0.1
done

failed=0
timeout 300 "$target/release/examples/autobahn_client" "ws://127.0.0.1:$port" hioload-ws ||
    { failed=1 && say "the client ended with an error or late"; }
stop_all
python3 "$repo/ci/autobahn_verdict.py" --expect "$expected" "$reports/report/index.json" || failed=1
exit "$failed"
