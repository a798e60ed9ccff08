#!/usr/bin/env bash
# Suite asan: the tests of core, ws, pipeline, stack, the epoll backend, and the backend on the stack
# (over a pair of sockets) under AddressSanitizer (nightly).
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 900 "$@"

"$repo/ci/install.sh" nextest
need_nightly
# With --target, build scripts and proc macros stay uninstrumented.
# The simulation of the stack has its thousands of seeds in the suite nextest.
HIOLOAD_SEEDS=200 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR="$target/asan" \
    cargo +nightly nextest run --tests --target "$(host_triple)" --no-fail-fast \
    --status-level fail --final-status-level slow \
    -p hioload-core -p hioload-ws-proto -p hioload-pipeline -p hioload-sockets -p hioload-stack \
    -p hioload-dataplane
