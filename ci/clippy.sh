#!/usr/bin/env bash
# Suite clippy: no warning in any target of the workspace.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 600 "$@"

cargo clippy --workspace --all-targets --quiet -- -D warnings
# What links libdpdk, where there is one.
if pkg-config --exists libdpdk 2>/dev/null; then
    cargo clippy -p hioload-dataplane -p hioload-dpdk-sys --all-targets --quiet \
        --features hioload-dataplane/dpdk,hioload-dataplane/lab -- -D warnings
fi
