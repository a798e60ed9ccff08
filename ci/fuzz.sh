#!/usr/bin/env bash
# Suite fuzz: each fuzz target for a bounded time, beginning with its seeds (fuzz/seeds, which the
# program of that name writes). What it finds stays in target/ci/fuzz. FUZZ_SECONDS sets the time of
# one target (default 20).
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
seconds=${FUZZ_SECONDS:-20}
budget $((600 + 3 * seconds)) "$@"

"$repo/ci/install.sh" fuzz
need_nightly
corpus=$(mktemp -d)
trap 'rm -rf "$corpus"' EXIT
findings=$logs/fuzz
mkdir -p "$findings"

out=$target/fuzz
cargo +nightly fuzz build --target-dir "$out" 2>"$logs/fuzz-build.log" ||
    { tail -n 40 "$logs/fuzz-build.log" >&2 && die "the fuzz targets do not build"; }
seeds=$repo/fuzz/seeds
"$out/$(host_triple)/release/seeds" "$corpus/seeds"
diff -rq "$corpus/seeds" "$seeds" ||
    die "fuzz/seeds isn't what its program writes: \`$out/$(host_triple)/release/seeds fuzz/seeds\`"
for name in decode handshake client_handshake encode_roundtrip segments; do
    mkdir "$corpus/$name"
    if ! cargo +nightly fuzz run --target-dir "$out" "$name" "$corpus/$name" "$seeds/$name" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="$findings/$name-" >"$logs/fuzz-$name.log" 2>&1; then
        grep -E -A 2 -m 6 'panicked at|ERROR:|SUMMARY:|Base64:' "$logs/fuzz-$name.log" >&2 || true
        die "$name: found something, kept in $findings; the whole log: $logs/fuzz-$name.log"
    fi
    covered=$(grep -oE '(INITED|DONE) +cov: [0-9]+' "$logs/fuzz-$name.log" | grep -oE '[0-9]+$')
    say "$name: $(grep -oE '^Done [0-9]+ runs' "$logs/fuzz-$name.log" | tail -n 1), no finding," \
        "coverage ${covered/$'\n'/ to }"
done
