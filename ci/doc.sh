#!/usr/bin/env bash
# Suite doc: the documentation builds without a warning, without and with DPDK, and its examples run.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 600 "$@"

"$repo/ci/install.sh" dpdk
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
RUSTDOCFLAGS="-D warnings" cargo doc -p hioload-ws -p hioload-dataplane -p hioload-dpdk-sys \
    --no-deps --quiet --features hioload-ws/dpdk
cargo test --workspace --doc --quiet
