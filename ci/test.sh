#!/usr/bin/env bash
# Runs the suites in order and says how each went. Each suite is ci/<suite>.sh, can be run alone,
# and ends itself when its own time budget is over; its output is kept in target/ci/<suite>.log.
#
#   ci/test.sh             installs what is missing, then all suites
#   ci/test.sh SUITE...    only these
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"

all=(install fmt hygiene clippy nextest doc loom asan fuzz autobahn autobahn-client clients stack-lab
    dpdk-lab instructions)
suites=("$@")
((${#suites[@]})) || suites=("${all[@]}")
for suite in "${suites[@]}"; do
    [[ " ${all[*]} " == *" $suite "* ]] || die "no suite $suite (there are: ${all[*]})"
done

child=''
# A suite runs in a process group of its own (see budget): an interrupt is handed on to it.
trap '[[ -z $child ]] || { kill -TERM "$child" 2>/dev/null; wait "$child"; }; exit 130' INT TERM

# run SUITE COMMAND...: its log in $logs, its exit code in rc, its time in seconds.
run() {
    local log=$logs/$1.log started=$SECONDS
    shift
    rc=0
    "$@" >"$log" 2>&1 </dev/null &
    child=$!
    wait "$child" || rc=$?
    child=''
    seconds=$((SECONDS - started))
}

# why LOG: the first failures in it, with what led to them, and its end.
why() {
    local end=40 before
    before=$(($(wc -l <"$1") - end))
    if ((before > 0)); then
        head -n "$before" "$1" | grep -m 8 -n -B 16 -A 4 -E 'FAILED|panicked at' || true
        say "..."
    fi
    tail -n "$end" "$1"
}

passed=0 failed=0 table=()
started=$SECONDS

for suite in "${suites[@]}"; do
    script=$repo/ci/$suite.sh
    if [[ -f $script ]]; then
        run "$suite" bash "$script"
    else
        rc=1 seconds=0
        say "there is no ci/$suite.sh" >"$logs/$suite.log"
    fi
    result=ok
    if ((rc == 0)); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1)) result=FAILED
        say "--- $suite failed (exit code $rc); from target/ci/$suite.log:"
        why "$logs/$suite.log"
        say "---"
    fi
    table+=("$(printf '%-14s %-8s %5d s' "$suite" "$result" "$seconds")")
    say "${table[-1]}"
done

say
say "suite          result     time"
printf '%s\n' "${table[@]}"
say "all in $((SECONDS - started)) s"
say "$passed passed, $failed failed"
((failed == 0))
