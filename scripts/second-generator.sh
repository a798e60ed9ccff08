#!/usr/bin/env bash
# Checks `hioload-ws bench` against a second load generator (on Node's `ws`): where neither is the
# bottleneck they have to agree on the throughput within 15 %. Once at a fixed rate against the
# appliance, once in closed loop against a server that answers each message after 10 ms.
#
#   scripts/second-generator.sh [--seconds N]
#
# Needs Node and npm (ci/install.sh node); takes about a minute.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/../ci/lib.sh"

seconds=3
if [[ ${1:-} == --seconds ]]; then seconds=${2:?}; fi

"$repo/ci/install.sh" node
build_appliance
export NODE_PATH=$cache/node/node_modules
generator=$repo/scripts/second_generator.cjs
trap stop_all EXIT

# compare NAME URL CONNECTIONS SIZE rate|depth N: both in turn, three times, and a verdict on the
# medians: one disturbance of the machine is not a disagreement.
failed=0
compare() {
    local name=$1 url=$2 connections=$3 size=$4 mode=$5 amount=$6 results=()
    for _ in 1 2 3; do
        results+=("$("$target/release/hioload-ws" bench "$url" --connections "$connections" \
            --size "$size" "--$mode" "$amount" --duration "${seconds}s" --warmup 500ms --json \
            2>/dev/null)")
        results+=("$(timeout $((seconds + 30)) node "$generator" load "$url" "$connections" \
            "$size" "$seconds" "$mode" "$amount")")
    done
    python3 - "$name" "${results[@]}" <<'PYTHON' || failed=1
import json, sys
from statistics import median

name, results = sys.argv[1], [json.loads(result) for result in sys.argv[2:]]
ours, theirs = results[::2], results[1::2]
rates = []
print(f"{name}:")
for who, runs in (("hioload-ws bench", ours), ("second generator", theirs)):
    rates.append(median(run["rate"] for run in runs))
    p50, p99 = (median(run["latency_us"][p] for run in runs) for p in ("p50", "p99"))
    print(f"  {who}  {rates[-1]:10,.0f} messages/s  p50 {p50:,.0f} us  p99 {p99:,.0f} us")
apart = abs(rates[0] - rates[1]) / rates[1]
busy = any(run["bottleneck"] for run in ours)
print(f"  {100 * apart:.1f} % apart" + ("; but ours was the bottleneck" if busy else ""))
sys.exit(apart > 0.15 or busy or any(run["errors"] for run in ours))
PYTHON
}

serve "$logs/second-generator-server.log" --listen 127.0.0.1:0 --workers 1
compare "fixed rate, 2,000 a second" "$url4" 20 64 rate 2000
start_server "$logs/second-generator-slow.log" node "$generator" serve 10 --listen
compare "closed loop, 20 connections, depth 4, served in 10 ms" "$url4" 20 64 depth 4
exit "$failed"
