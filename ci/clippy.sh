#!/usr/bin/env bash
# Suite clippy: no warning in any target of the workspace.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 600 "$@"

cargo clippy --workspace --all-targets --quiet -- -D warnings
