"""Reads the indexes of Autobahn's reports: any case that is not OK or INFORMATIONAL fails, and so
does a number of cases below --expect."""

import argparse
import json
import sys
from collections import Counter

GOOD = ("OK", "INFORMATIONAL")


def cases_of(paths):
    for path in paths:
        try:
            with open(path) as file:
                agents = json.load(file)
        except OSError:
            continue  # a run without a report is missing cases, which --expect finds
        for cases in agents.values():
            yield from cases.items()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--expect", type=int, required=True)
    parser.add_argument("indexes", nargs="+")
    args = parser.parse_args()

    seen = dict(cases_of(args.indexes))
    counts = Counter(case["behavior"] for case in seen.values())
    bad = 0
    for name, case in sorted(seen.items(), key=lambda item: [int(n) for n in item[0].split(".")]):
        behavior, close = case["behavior"], case["behaviorClose"]
        if behavior not in GOOD or close not in GOOD:
            bad += 1
            print(f"case {name}: {behavior}, close {close} (code {case['remoteCloseCode']})")
    print(f"{len(seen)} cases: " + ", ".join(f"{n} {what}" for what, n in counts.most_common()))
    if len(seen) < args.expect:
        print(f"only {len(seen)} of {args.expect} cases ran")
    sys.exit(1 if bad or len(seen) < args.expect else 0)


if __name__ == "__main__":
    main()
