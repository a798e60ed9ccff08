#!/usr/bin/env bash
# Measures `hioload-ws serve` beside echo servers on other libraries and a bare epoll loop, in
# interleaved rounds on this machine's loopback, and writes a table. Nothing else should run
# meanwhile; with the defaults it takes about three quarters of an hour. It can be done in parts,
# and what a limit or a signal cut short goes on with --resume:
#
#   scripts/side-by-side.sh --rows ' (1|50|500), ' --limit 30
#   scripts/side-by-side.sh --rows ' 5000, ' --limit 25 --resume
#   python3 scripts/side_by_side_table.py target/side-by-side.json docs    # the tables in docs/
#
# The second command adds its rows to those of the first. --uws PATH takes a uWebSockets server in.
# --help names all options. Needs Linux, taskset, Python 3 and two cores: the server has core 0,
# the client (`hioload-ws bench`) core 1.
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$repo/target}

build=1 arguments=()
for argument in "$@"; do
    case $argument in
    --no-build) build=0 ;;
    -h | --help | --list) build=0 && arguments+=("$argument") ;;
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
