#!/usr/bin/env bash
# Suite loom: core's rings and sleep protocol under every interleaving that loom explores.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 420 "$@"

# A target folder of its own: another cfg would rebuild everything, back and forth.
RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$target/loom" \
    cargo test --release --quiet -p hioload-core --test loom
