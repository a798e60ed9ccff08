#!/usr/bin/env bash
# Suite doc: the documentation builds without a warning, and its examples run.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 600 "$@"

RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
cargo test --workspace --doc --quiet
