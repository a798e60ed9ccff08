#!/usr/bin/env bash
# Suite instructions: what a message costs in instructions, counted by callgrind, against the
# figures recorded in benches/instructions.tsv. More than 3 % and 3 instructions above fails.
#
#   ci/instructions.sh            compares
#   ci/instructions.sh --record   writes the figures anew (say why in the commit)
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 600 "$@"

recorded=$repo/benches/instructions.tsv
command -v valgrind >/dev/null || die "valgrind is missing: ci/install.sh valgrind installs it"
# The kernels are chosen by the processor; the figures hold for one with AVX2, which valgrind shows
# on any machine that has it.
grep -qw avx2 /proc/cpuinfo || die "the recorded figures are those of a processor with AVX2"

cargo build --release --quiet -p hioload-benches --bin instructions
cargo build --release --quiet -p hioload-stack --example echo_cost
program=$target/release/instructions
stack=$target/release/examples/echo_cost

# count NAME STEPS: instructions of the whole run.
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

few=200
measured=$logs/instructions.tsv
printf 'scenario\tinstructions_a_message\n' >"$measured"
while read -r name messages; do
    # Warm first: the difference of two runs leaves out start, handshakes and end.
    many=$((few + (messages >= 16 ? 500 : 2000)))
    low=$(count "$name" "$few")
    high=$(count "$name" "$many")
    [[ -n $low && -n $high ]] || die "callgrind gave no count for $name"
    awk -v name="$name" -v d=$((high - low)) -v n=$(((many - few) * messages)) \
        'BEGIN { printf "%s\t%.1f\n", name, d / n }' | tee -a "$measured"
done < <("$program" list)

# The stack alone: callgrind counts only what happens inside one function of the program, so that
# one run is enough. Name, that function, subject, connections, round trips.
while read -r name function subject connections rounds; do
    all=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect="*::$function" \
        "$stack" count "$subject" "$connections" random "$rounds" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p')
    [[ -n $all && $all -gt 0 ]] || die "callgrind gave no count for $name"
    awk -v name="$name" -v d="$all" -v n="$rounds" 'BEGIN { printf "%s\t%.1f\n", name, d / n }' |
        tee -a "$measured"
done <<'SCENARIOS'
stack_64B_1_connection measured stack 1 5000
stack_64B_10000_connections measured stack 10000 32000
stack_64B_96_connections_checksums measured layers 96 9600
stack_64B_10000_connections_smoltcp measured smoltcp 10000 32000
stack_thaw thaw_all thaw 96 960
SCENARIOS

if [[ ${1:-} == --record ]]; then
    cp "$measured" "$recorded"
    say "recorded in benches/instructions.tsv"
    exit 0
fi
awk -F'\t' '
    FNR == 1 { next }
    NR == FNR { was[$1] = $2; next }
    !($1 in was) { printf "%s has no recorded figure\n", $1; bad++; next }
    { seen++ }
    $2 > was[$1] * 1.03 + 3 { printf "%s: %.1f instructions, recorded %.1f\n", $1, $2, was[$1]; bad++ }
    $2 < was[$1] * 0.95 - 3 { printf "%s: %.1f instructions, recorded %.1f: record the gain\n", $1, $2, was[$1] }
    END { for (name in was) total++; if (seen != total) { print "recorded scenarios were not run"; bad++ }
          printf "%d scenarios within the gate, %d not\n", seen - bad, bad; exit bad > 0 }
' "$recorded" "$measured"
