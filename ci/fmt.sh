#!/usr/bin/env bash
# Suite fmt: the sources are as rustfmt writes them.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 120 "$@"

cargo fmt --all --check
