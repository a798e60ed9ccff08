"""Makes the Markdown tables of a side-by-side run out of its raw rounds.

    python3 scripts/side_by_side_table.py side-by-side.json          prints every figure
    python3 scripts/side_by_side_table.py side-by-side.json docs     writes docs/side-by-side.md
                                                                     and the table of
                                                                     docs/benchmarks.md

Every figure is the median over the rounds, with the first and third quartile behind it. The ratio
to the floor is taken within each round first, so that what disturbs a whole round cancels out."""

import json
import statistics
import sys
import textwrap
from collections import Counter, defaultdict
from pathlib import Path

FLOOR = "bare-epoll"
OURS = "hioload-ws"
REASONS = 10  # that are shown; the raw rounds have all
PEERS = ("fastwebsockets", "tokio-tungstenite", "yawc")  # of the short table
# What is between these lines of docs/benchmarks.md is written anew.
BEGIN = "<!-- from here: scripts/side_by_side_table.py -->"
END = "<!-- to here: scripts/side_by_side_table.py -->"
BUSY = 0.1  # a client with less idle time than this share may be what limits the rate


def spread(values):
    """(median, first quartile, third quartile)"""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def cell(values, form):
    """`median [q1–q3]`, or only the median where there is no spread to speak of."""
    if not values:
        return "–"
    middle, low, high = (format(value, form) for value in spread(values))
    return middle if low == high else f"{middle} [{low}–{high}]"


def size_name(size):
    return f"{size // 1024} KiB" if size >= 1024 else f"{size} B"


def header(record):
    machine, versions = record["machine"], record["versions"]
    names = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    rounds = Counter((run["server"], str(run["row"])) for run in record["runs"] if run["row"])
    fewest, most = min(rounds.values(), default=0), max(rounds.values(), default=0)
    count = f"{most}" if fewest == most else f"{fewest} to {most}"
    commands = ", then ".join(f"`{command}`" for command in dict.fromkeys(record["commands"]))
    lines = [
        f"{commands}, {record['date']}",
        "",
        f"- Machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']} "
        f"{machine['kernel']}; load average {machine['load_average']:.1f} before the first round. "
        "Loopback; server and client pinned to one core each.",
        f"- Versions: {names}.",
        f"- {count} interleaved rounds with a fresh server process each, "
        f"{record['duration_s']:g} s measured after all connections are open. "
        "Median [first–third quartile].",
        "- CPU: user and kernel time of the server process (scheduler's account, loopback "
        "processing on its core included) within the client's measured window, divided by the "
        "round trips that the client completed in it.",
        f"- × floor: CPU relative to {FLOOR} in the same round.",
        f"- †: the client was idle for less than {BUSY:.0%} of the window, so the rate and the "
        "latencies are bounded by it; CPU a message is not.",
    ]
    lines += [f"- Skipped: {what}: {why}." for what, why in record["skipped"].items()]
    reasons = Counter(run["failed"] for run in record["runs"] if "failed" in run)
    lines += [f"- Failed {count} times: {reason}." for reason, count in reasons.most_common(REASONS)]
    if record["ended"]:
        lines.append(f"- Incomplete: {record['ended']}.")
    return lines


def grouped(record):
    """Runs by row and server, each a dict by round; and how many failed."""
    runs, failed = defaultdict(lambda: defaultdict(dict)), defaultdict(int)
    for run in record["runs"]:
        row = tuple(run["row"]) if run["row"] else None
        of_row = runs[row]  # also where all fail: the row is shown
        if "failed" in run:
            failed[row, run["server"]] += 1
        else:
            of_row[run["server"]][run["round"]] = run
    return runs, failed


def ratios(of_row, server, against):
    """CPU a message of one server relative to another's, for each round that has both."""
    return [run["cpu_ns_per_message"] / of_row[against][number]["cpu_ns_per_message"]
            for number, run in of_row.get(server, {}).items()
            if of_row.get(against, {}).get(number, {}).get("cpu_ns_per_message")]


def line(name, connections, depth, runs, floor, failures):
    cells = [f"{connections:,}", str(depth)]
    values = list(runs.values())
    if values:
        idle = statistics.median(run["client_idle_share"] for run in values)
        name += " †" if idle < BUSY else ""
    name += f" ({failures} failed)" if failures else ""
    cells += [name, cell([run["cpu_ns_per_message"] for run in values], ",.0f"),
              cell(floor, ".2f"), cell([run["rate"] for run in values], ",.0f")]
    cells += [cell([run["latency_us"][key] for run in values], ",.0f")
              for key in ("p50", "p99", "p99_9")]
    return f"| {' | '.join(cells)} |"


def table(record, runs, failed, size):
    lines = [
        f"### {size_name(size)}", "",
        "| connections | depth | server | CPU ns a message | × floor | messages/s "
        "| p50 µs | p99 µs | p99.9 µs |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in sorted(row for row in runs if row and row[0] == size):
        for server in record["servers"]:
            lines.append(line(server, row[1], row[2], runs[row].get(server, {}),
                              ratios(runs[row], server, FLOOR), failed[row, server]))
    return lines


def behind(record, runs):
    """The rows in which a peer needs less CPU than we do (the floor is no peer)."""
    lines = []
    for row in sorted(row for row in runs if row):
        for server in record["servers"]:
            paired = ratios(runs[row], OURS, server)
            if server in (OURS, FLOOR) or not paired or statistics.median(paired) <= 1:
                continue
            size, connections, depth = row
            lines.append(f"- {size_name(size)}, connections {connections:,}, depth {depth}: "
                         f"{cell(paired, '.2f')} of {server}")
    return lines


def idle_table(record, runs, failed):
    low, high = record["idle_connections"]
    lines = [
        "### Idle connections", "",
        f"User memory (RssAnon), and its slope between {low:,} and {high:,} idle connections.", "",
        f"| server | bytes a connection | MiB at {high:,} |", "| --- | ---: | ---: |",
    ]
    for server in record["servers"]:
        values = list(runs[None].get(server, {}).values())
        count = failed[None, server]
        name = server + (f" ({count} failed)" if count else "")
        slope = cell([run["bytes_per_connection"] for run in values], ",.0f")
        held = cell([run["anonymous_bytes"][1] / (1 << 20) for run in values], ",.1f")
        lines.append(f"| {name} | {slope} | {held} |")
    return lines


def markdown(record):
    runs, failed = grouped(record)
    blocks = [header(record)]
    for size in sorted({row[0] for row in runs if row}):
        blocks.append(table(record, runs, failed, size))
    if OURS in record["servers"] and any(runs):
        less = behind(record, runs) or ["None."]
        blocks.append([f"### Where a peer needs less CPU a message than {OURS}", "", *less])
    if None in runs:
        blocks.append(idle_table(record, runs, failed))
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def short_row(row, of_row):
    """One line of the short table: ours, and how the others compare with the floor."""
    size, connections, depth = row
    values = list(of_row[OURS].values())
    cells = [size_name(size), f"{connections:,}", str(depth), str(len(values)),
             cell([run["cpu_ns_per_message"] for run in values], ",.0f"),
             cell(ratios(of_row, OURS, FLOOR), ".2f")]
    for peer in PEERS:
        paired = ratios(of_row, peer, FLOOR)
        cells.append(format(statistics.median(paired), ".2f") if paired else "–")
    middle = {key: statistics.median(run["latency_us"][key] for run in values)
              for key in ("p50", "p99", "p99_9")}
    cells += [format(statistics.median(run["rate"] for run in values), ",.0f"),
              " / ".join(format(value, ",.0f") for value in middle.values())]
    return f"| {' | '.join(cells)} |"


def short(record):
    """The table of docs/benchmarks.md, and a sentence on memory."""
    runs, _ = grouped(record)
    lines = [
        "| payload | connections | depth | rounds | ours, CPU ns a message | × floor "
        f"| {' | '.join(PEERS)} | ours, messages/s | p50 / p99 / p99.9 µs |",
        "| --- | ---: | ---: | ---: | ---: | ---: " + "| ---: " * len(PEERS) + "| ---: | --- |",
        *(short_row(row, runs[row]) for row in sorted(row for row in runs if row)
          if runs[row].get(OURS)),
        "",
        textwrap.fill(
            "Median over the rounds, first and third quartile in brackets; the columns of the "
            "others are their CPU a message relative to the floor. "
            "[side-by-side.md](side-by-side.md) has every figure of every server.", 100),
    ]
    slopes = {server: statistics.median(run["bytes_per_connection"] for run in of_round.values())
              for server, of_round in runs.get(None, {}).items()}
    if slopes:
        low, high = record["idle_connections"]
        told = ", ".join(f"{server} {slopes[server]:,.0f}" for server in record["servers"]
                         if server in slopes)
        lines += ["", textwrap.fill(
            f"User memory (RssAnon) of one more idle connection, between {low:,} and {high:,} of "
            f"them, in bytes: {told}.", 100)]
    return "\n".join(lines)


def write_docs(record, docs):
    """Puts every figure into one page of `docs`, and the short table into another."""
    page = docs / "benchmarks.md"
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"{page}: needs one line `{BEGIN}` and, below it, one `{END}`")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{short(record)}\n\n{END}{after}")
    intro = "# Side by side: every figure\n\nSee [benchmarks.md](benchmarks.md) for what it says.\n"
    (docs / "side-by-side.md").write_text(f"{intro}\n{markdown(record)}")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__.split("\n\n")[1])
    record = json.loads(Path(sys.argv[1]).read_text())
    if len(sys.argv) == 3:
        write_docs(record, Path(sys.argv[2]))
    else:
        print(markdown(record), end="")


if __name__ == "__main__":
    main()
