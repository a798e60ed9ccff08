#!/usr/bin/env bash
# Suite loom: core's rings, sleep flag and pool inbox under every interleaving that loom explores.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 420 "$@"

# A target folder of its own: another cfg would rebuild everything, back and forth. Without the
# cfg the tests do not exist, so that none at all has to be a failure.
for tests in "--test loom" "--lib loom_"; do
    read -ra which <<<"$tests"
    RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$target/loom" \
        cargo test --release --quiet -p hioload-core "${which[@]}" 2>&1 | tee "$logs/loom-tests.log"
    grep -qE 'test result: ok\. [1-9]' "$logs/loom-tests.log" || die "no loom test ran ($tests)"
done
