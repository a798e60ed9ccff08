#!/usr/bin/env bash
# Suite nextest: every test of the workspace, each in a process of its own; and those of the stack
# that play a peer by hand once more without its fast path.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 900 "$@"

"$repo/ci/install.sh" nextest
cargo nextest run --workspace --no-fail-fast --status-level fail --final-status-level slow
HIOLOAD_FAST_PATH=off cargo nextest run --no-fail-fast --status-level fail -p hioload-stack \
    --test script --test basic --test hostile --test output -E 'not test(/^fast::/)'
