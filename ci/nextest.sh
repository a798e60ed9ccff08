#!/usr/bin/env bash
# Suite nextest: every test of the workspace, each in a process of its own.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 900 "$@"

"$repo/ci/install.sh" nextest
cargo nextest run --workspace --no-fail-fast --status-level fail --final-status-level slow
