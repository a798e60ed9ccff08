#!/usr/bin/env bash
# Measures `hioload-ws serve` beside echo servers on other libraries and a bare epoll loop, in
# interleaved rounds on this machine's loopback, and writes a table. Nothing else should run
# meanwhile; with the defaults it takes about an hour.
#
#   scripts/side-by-side.sh [--rounds N] [--quick] [--out FILE] [--uws PATH] [--no-build] ...
#
# --help names all options. Needs Linux, taskset, Python 3 and two cores: the server has core 0,
# the client (`hioload-ws bench`) core 1.
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$repo/target}

build=1 arguments=()
for argument in "$@"; do
    case $argument in
    --no-build) build=0 ;;
    -h | --help) build=0 && arguments+=("$argument") ;;
    *) arguments+=("$argument") ;;
    esac
done

if ((build)); then
    # In the repository, so that its Cargo configuration holds wherever this is called from.
    (
        cd "$repo"
        cargo build --quiet --release --bin hioload-ws
        cargo build --quiet --release --manifest-path benches/peers/Cargo.toml \
            --target-dir "$target/peers"
    )
fi

exec python3 "$repo/scripts/side_by_side.py" --repo "$repo" --ours "$target/release/hioload-ws" \
    --peers "$target/peers/release" "${arguments[@]:+${arguments[@]}}"
