"""Runs the rounds of side-by-side.sh: starts each server pinned to one core and the load generator
pinned to another, reads the server's CPU time at both ends of the measured window, and keeps every
round in a JSON file, from which side_by_side_table.py makes the table."""

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import platform
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import side_by_side_table

PEERS = ("bare-epoll", "peer-fastwebsockets", "peer-tokio-tungstenite", "peer-yawc")
SIZES = (20, 1024, 16384)  # bytes
CONNECTIONS = (1, 50, 500, 5000)
DEPTHS = (1, 16)
IDLE = (2000, 8000)  # connections
IDLE_ROUNDS = 3  # it hardly varies
IDLE_HOLD_S = 1
START_LIMIT_S = 5
RAMP_LIMIT_S = 60  # for the generator to connect, and to end after its window
SPARE_DESCRIPTORS = 64


class Failed(Exception):
    """One measurement did not come about; the message says why."""


class Stop(Exception):
    """A signal came, or the time is over."""


@dataclass(frozen=True)
class Server:
    name: str
    command: tuple


@dataclass(frozen=True)
class Row:
    size: int
    connections: int
    depth: int

    def __str__(self):
        return f"{self.size} B, connections {self.connections}, depth {self.depth}"


def arguments():
    parser = argparse.ArgumentParser(prog="side-by-side.sh", description=__doc__)
    parser.add_argument("--rounds", type=int, help="interleaved rounds [15; with --quick 3]")
    parser.add_argument("--quick", action="store_true", help="1 and 50 connections, short windows")
    parser.add_argument("--duration", type=float, help="measured seconds a run [0.7; quick 0.5]")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the table; the raw rounds "
                        "go beside it as .json [target/side-by-side.md]")
    parser.add_argument("--uws", metavar="PATH",
                        help="a uWebSockets echo server that takes `--listen 127.0.0.1:PORT`")
    parser.add_argument("--rows", metavar="REGEX", default="",
                        help="only rows that match, e.g. '^20 B.*depth 16$' (see --list)")
    parser.add_argument("--servers", metavar="REGEX", default="", help="only these, by name")
    parser.add_argument("--no-idle", action="store_true", help="leave out the memory measurement")
    parser.add_argument("--limit", type=float, default=180, metavar="MINUTES",
                        help="ends after so long with the rounds there are [180]")
    parser.add_argument("--resume", action="store_true",
                        help="add to the rounds that --out has: what it holds isn't measured "
                        "again, what failed or is missing is; with other --rows it grows by them")
    parser.add_argument("--list", action="store_true", help="print servers and rows, run nothing")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--no-build", action="store_true", help="take the binaries as they are")
    parser.add_argument("--repo", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--ours", required=True, metavar="PATH", help="the hioload-ws binary")
    parser.add_argument("--peers", type=Path, required=True, metavar="DIR", help="their binaries")
    args = parser.parse_args()
    args.rounds = args.rounds or (3 if args.quick else 15)
    args.duration = args.duration or (0.5 if args.quick else 0.7)
    args.out = args.out or args.repo / "target/side-by-side.md"
    return args


def servers_of(args):
    ours = (args.ours, "serve", "--workers", "1", "--app", "echo")
    servers = [Server("hioload-ws", ours)]
    servers += [Server(name.removeprefix("peer-"), (str(args.peers / name),)) for name in PEERS]
    if args.uws:
        servers.append(Server("uWebSockets", (args.uws,)))
    return [server for server in servers if re.search(args.servers, server.name)]


def rows_of(args):
    rows = [Row(size, connections, depth)
            for size in SIZES
            for connections in (CONNECTIONS[:2] if args.quick else CONNECTIONS)
            for depth in DEPTHS]
    return [row for row in rows if re.search(args.rows, str(row))]


def obstacle(row, descriptors):
    """Why this row cannot run on this machine, or None."""
    if row.connections + SPARE_DESCRIPTORS > descriptors:
        return f"{row.connections} connections, but {descriptors} file descriptors (ulimit -Hn)"
    pages = int(Path("/proc/sys/net/ipv4/tcp_mem").read_text().split()[1])
    pressure = pages * resource.getpagesize()
    flight = row.connections * row.depth * row.size
    if flight > pressure:
        return f"{flight >> 20} MiB in flight, but TCP is short of memory at {pressure >> 20} MiB"
    return None


def pinned(core, command):
    return ["taskset", "--cpu-list", str(core), *command]


def end(process):
    """Ends a process that this script started, and waits for it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(START_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def tail(file):
    """The last lines that a process wrote into `file`, for a message."""
    file.seek(0)
    return " | ".join(file.read().decode(errors="replace").split("\n")[-6:]).strip(" |") or "silent"


@contextlib.contextmanager
def running(server, core):
    """`server` on a free port, for as long as the block lasts: yields (process, port)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = pinned(core, [*server.command, "--listen", f"127.0.0.1:{port}"])
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        except OSError as error:
            raise Failed(f"{server.name} does not start: {error}") from error
        try:
            deadline = time.monotonic() + START_LIMIT_S
            while True:
                if process.poll() is not None:
                    raise Failed(f"{server.name} ended at its start with code "
                                 f"{process.returncode}: {tail(log)}")
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                if time.monotonic() > deadline:
                    raise Failed(f"{server.name} does not listen on port {port} after "
                                 f"{START_LIMIT_S} s: {tail(log)}")
                time.sleep(0.02)
            try:
                yield process, port
            except (Failed, OSError) as failure:
                if process.poll() is None:
                    raise
                raise Failed(f"{failure}; {server.name} had ended with code "
                             f"{process.returncode}: {tail(log)}") from failure
        finally:
            end(process)


def cpu_ns(pid):
    """What all threads of a process have run so far, in ns: (all of it by the scheduler's account;
    in user mode, in the kernel, by the account in ticks of 10 ms)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that just ended
            total += int((task / "schedstat").read_text().split()[0])
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return total, int(fields[11]) * tick_ns, int(fields[12]) * tick_ns


def anonymous_bytes(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)[1]) * 1024


def bench(args, port, options, duration, at_start, at_end):
    """Runs the generator. It writes `measuring` to stderr when its window begins and `measured`
    when that ends: then `at_start` and `at_end` are called. Returns its result."""
    command = [args.ours, "bench", f"ws://127.0.0.1:{port}", "--workers", "1", "--json",
               "--duration", f"{round(duration * 1000)}ms", *map(str, options)]
    seen, said = set(), []
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(pinned(args.client_core, command), stdin=subprocess.DEVNULL,
                                   stdout=out, stderr=subprocess.PIPE, text=True)
        killer = threading.Timer(duration + RAMP_LIMIT_S, process.kill)
        killer.start()
        try:
            for line in process.stderr:
                word = line.strip()
                if word in ("measuring", "measured") and word not in seen:
                    seen.add(word)
                    (at_start if word == "measuring" else at_end)()
                elif word:
                    said = [*said[-3:], word]
            code = process.wait()
        finally:
            killer.cancel()
            end(process)
            process.stderr.close()
        heard = " | ".join(said) or "silent"
        if code == -signal.SIGKILL:
            raise Failed(f"the generator took longer than {duration + RAMP_LIMIT_S:.0f} s: {heard}")
        if code != 0:
            raise Failed(f"the generator ended with code {code}: {heard}")
        if seen != {"measuring", "measured"}:
            raise Failed("the generator did not say when its window began and ended")
        out.seek(0)
        try:
            return json.load(out)
        except ValueError as error:
            raise Failed(f"the generator's --json is not JSON: {error}") from error


def measure(args, server, row):
    """One run: what the generator counted, and the server's CPU time in the same window."""
    samples = []
    with running(server, args.server_core) as (process, port):
        def sample():
            samples.append((time.monotonic_ns(), *cpu_ns(process.pid)))
        options = ("--connections", row.connections, "--size", row.size, "--depth", row.depth)
        result = bench(args, port, options, args.duration, sample, sample)
    if result["errors"]:
        raise Failed(f"{result['errors']} errors")
    if not result["messages"]:
        raise Failed("no message came back")
    (began, cpu0, user0, system0), (ended, cpu1, user1, system1) = samples
    return {
        "messages": result["messages"],
        "rate": result["rate"],
        "latency_us": result["latency_us"],
        "client_idle_share": result["client_idle_share"],
        "window_ns": ended - began,
        "server_cpu_ns": cpu1 - cpu0,
        "server_user_ns": user1 - user0,
        "server_system_ns": system1 - system0,
        "cpu_ns_per_message": (cpu1 - cpu0) / result["messages"],
    }


def measure_idle(args, server):
    """User memory that one more idle connection costs, in bytes, between two counts of them."""
    held = []
    for connections in IDLE:
        with running(server, args.server_core) as (process, port):
            def sample():
                time.sleep(IDLE_HOLD_S / 2)  # what the handshakes left behind is done with
                held.append(anonymous_bytes(process.pid))
            options = ("--idle", "--connections", connections)
            bench(args, port, options, IDLE_HOLD_S, sample, lambda: None)
    return {"anonymous_bytes": held,
            "bytes_per_connection": (held[1] - held[0]) / (IDLE[1] - IDLE[0])}


def machine():
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(["lscpu"], capture_output=True, text=True, check=True,
                                env={**os.environ, "LC_ALL": "C"}).stdout
        named = dict(re.findall(r"^(Model name|Hypervisor vendor):\s+(.+)$", listed, re.MULTILINE))
        cpu = named.get("Model name", cpu)
        if "Hypervisor vendor" in named:
            cpu += f" (virtual, {named['Hypervisor vendor']})"
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(),
            "system": platform.system(), "load_average": os.getloadavg()[0]}


def versions(args):
    lock = (args.repo / "benches/peers/Cargo.lock").read_text()
    found = dict(re.findall(r'name = "(fastwebsockets|tokio-tungstenite|yawc)"\nversion = "(.+)"',
                            lock))
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found["hioload-ws"] = subprocess.run(
            ["git", "-C", args.repo, "describe", "--always", "--dirty"],
            capture_output=True, text=True, check=True).stdout.strip()
    return found


def command_line():
    """As it was typed, without what the wrapper added and without one machine's folders."""
    words, shown = iter(sys.argv[1:]), ["scripts/side-by-side.sh"]
    for word in words:
        if word in ("--repo", "--ours", "--peers"):
            next(words, None)
        else:
            shown.append(os.path.basename(word) if os.path.isabs(word) else word)
    return shlex.join(shown)


def binaries(args, servers):
    """What each server's program is, so that no two versions come together in one record."""
    found = {}
    for server in servers:
        program = Path(server.command[0])
        if program.is_file():
            found[server.name] = hashlib.sha256(program.read_bytes()).hexdigest()[:16]
    return found


def resumed(args, record):
    """Takes over what the record at `--out` holds. It must be of the same programs and windows."""
    raw = args.out.with_suffix(".json")
    if not raw.exists():
        return
    try:
        held = json.loads(raw.read_text())
    except ValueError as error:
        sys.exit(f"side-by-side: --resume: {raw} is not JSON ({error}); remove it to begin anew")
    for key in ("binaries", "duration_s", "idle_connections"):
        was, now = held.get(key), json.loads(json.dumps(record[key]))
        if isinstance(was, dict):
            # A run may leave servers out.
            now = {name: now.get(name, value) for name, value in was.items()}
        if was != now:
            sys.exit(f"side-by-side: --resume: {raw} was measured with other {key}; "
                     "leave out --resume, or name another --out")
    record["binaries"] = held["binaries"] | record["binaries"]
    record["runs"] = [run for run in held["runs"] if "failed" not in run]
    record["commands"] = held["commands"] + record["commands"]
    measured = {str(Row(*run["row"])) for run in record["runs"] if run["row"]}
    record["skipped"] = {what: why for what, why in (held["skipped"] | record["skipped"]).items()
                         if what not in measured}
    record["servers"] = list(dict.fromkeys(held["servers"] + record["servers"]))
    for key in ("date", "machine", "versions"):
        record[key] = held[key]


def check(args, servers):
    """What would make every run fail is said before the first."""
    cores = {args.server_core, args.client_core}
    missing = cores - os.sched_getaffinity(0)
    if missing or len(cores) < 2:
        sys.exit(f"side-by-side: needs two cores of its own; {sorted(cores)} are asked for, "
                 f"{sorted(os.sched_getaffinity(0))} may be used")
    try:
        for server in servers:
            with running(server, args.server_core):
                pass
    except Failed as failure:
        sys.exit(f"side-by-side: {failure}")
    os.sched_setaffinity(0, {args.client_core})
    # On the client's core, so that the server's stays its own; ahead of the client where that is
    # allowed, so that both ends of a window are read at once. What is started here is not.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def stop_on_signals():
    """The first signal ends the run in order; those that follow must not cut that short."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(first, _frame):
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise Stop(f"ended by {signal.Signals(first).name}")
    for number in numbers:
        signal.signal(number, stop)


def write(args, record):
    raw = args.out.with_suffix(".json")
    raw.write_text(json.dumps(record, indent=1) + "\n")
    args.out.write_text(side_by_side_table.markdown(record))
    return raw


def say(text):
    print(text, file=sys.stderr, flush=True)


def rounds(args, servers, rows, record):
    """All rounds: each takes every row, each row every server, in an order that turns."""
    deadline = time.monotonic() + args.limit * 60
    idle = not args.no_idle and max(IDLE) + SPARE_DESCRIPTORS <= record["descriptors"]
    done = {(run["round"], run["server"], str(run["row"])) for run in record["runs"]}
    for number in range(args.rounds):
        turn = number % len(servers)
        order = servers[turn:] + servers[:turn]
        work = [(server, row) for row in rows for server in order]
        if idle and number < IDLE_ROUNDS:
            work += [(server, None) for server in order]
        began = time.monotonic()
        for server, row in work:
            entry = {"round": number, "server": server.name,
                     "row": row and [row.size, row.connections, row.depth]}
            if (number, server.name, str(entry["row"])) in done:
                continue
            if time.monotonic() > deadline:
                raise Stop(f"the limit of {args.limit:g} minutes is over")
            try:
                entry |= measure(args, server, row) if row else measure_idle(args, server)
            except Failed as failure:
                entry["failed"] = str(failure)
                say(f"  {server.name}, {row or 'idle'}: {failure}")
            record["runs"].append(entry)
        write(args, record)  # what has been measured outlives whatever ends the next round
        took = time.monotonic() - began
        left = min(took * (args.rounds - number - 1), deadline - time.monotonic())
        say(f"round {number + 1} of {args.rounds}: {took:.0f} s; about {left / 60:.0f} min left")


def main():
    args = arguments()
    servers, rows = servers_of(args), rows_of(args)
    if args.list:
        print("\n".join([*(server.name for server in servers), *map(str, rows)]))
        return
    if not servers:
        sys.exit("side-by-side: no server is left to measure (--list names them)")
    if args.out.suffix == ".json":
        sys.exit("side-by-side: --out is the table's file; the raw rounds go beside it as .json")
    args.out.parent.mkdir(parents=True, exist_ok=True)

    stop_on_signals()

    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        descriptors = 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    skipped = {str(row): why for row in rows if (why := obstacle(row, descriptors))}
    rows = [row for row in rows if str(row) not in skipped]
    if not args.no_idle and max(IDLE) + SPARE_DESCRIPTORS > descriptors:
        skipped["idle memory"] = f"{max(IDLE)} connections, but {descriptors} file descriptors"
    for what, why in skipped.items():
        say(f"skipped: {what}: {why}")

    record = {
        "commands": [command_line()], "date": datetime.date.today().isoformat(),
        "machine": machine(), "versions": versions(args), "descriptors": descriptors,
        "duration_s": args.duration, "idle_connections": IDLE, "skipped": skipped,
        "servers": [server.name for server in servers], "ended": None, "runs": [],
        "binaries": binaries(args, servers),
    }
    if record["machine"]["load_average"] > 0.5:
        say(f"load average {record['machine']['load_average']:.1f}: something else runs here, "
            "and will show in the figures")
    if args.resume:
        resumed(args, record)
    status = 0
    try:
        check(args, servers)
        rounds(args, servers, rows, record)
    except Stop as reason:
        record["ended"] = str(reason)
        say(f"side-by-side: {reason}; what there is, is written")
        status = 1
    if not record["runs"]:
        sys.exit("side-by-side: nothing was measured")

    raw = write(args, record)
    say(f"{args.out} and {raw} written")
    sys.exit(status)


if __name__ == "__main__":
    main()
