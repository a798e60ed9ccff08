#!/usr/bin/env bash
# Suite clippy: no warning in any target of the workspace, without and with DPDK.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 600 "$@"

"$repo/ci/install.sh" dpdk
cargo clippy --workspace --all-targets --quiet -- -D warnings
cargo clippy -p hioload-ws -p hioload-dataplane -p hioload-dpdk-sys --all-targets --quiet \
    --features hioload-ws/dpdk,hioload-dataplane/lab -- -D warnings
