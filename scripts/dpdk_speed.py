"""The runs of dpdk-speed.sh, and their table.

A run is a server and a load generator. What the server spent on opening and closing connections
is measured by a run that only holds them, and taken off. On DPDK what counts are the worker's own
busy cycles (turns of its loop that had something to do); on epoll the CPU time of the process.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

EAL = ["--in-memory", "-m", "256", "--single-file-segments", "--no-pci", "--no-telemetry"]
READY_S = 30
PORT = 9001
# What `bench` needs beyond its window: to open, to end.
GRACE_S = 240
# Beyond these a client address has no ports left, and a process on sockets no descriptors.
SOCKETS_MAX = 19_000
# Rings that a connection can begin with, and what a message has beside its payload at most.
RINGS = {"2KiB": 2 << 10, "16KiB": 16 << 10, "64KiB": 64 << 10}
HEADERS = 14
# From here on the largest don't fit in most machines, and none is frozen while others open.
MANY = 50_000


def arguments():
    numbers = lambda text: [int(part) for part in text.split(",")]
    parser = argparse.ArgumentParser(prog="dpdk-speed.sh")
    parser.add_argument("--program", required=True)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=numbers, default=[50, 5_000, 100_000])
    parser.add_argument("--sizes", type=numbers, default=[20, 64, 1024])
    parser.add_argument("--depths", type=numbers, default=[1, 16])
    parser.add_argument("--cores", type=numbers, default=[0, 1])
    parser.add_argument("--backends", type=lambda text: text.split(","), default=["dpdk", "epoll"])
    parser.add_argument("--json")
    return parser.parse_args()


class Server:
    """The appliance on one core, ready when made; its totals when ended."""

    def __init__(self, options, backend, rings, folder):
        self.log = open(os.path.join(folder, "server.log"), "w+")
        core = str(options.cores[0])
        command = [options.program, "serve", "--dead-after", "0", "--ping-after", "0"]
        if backend == "dpdk":
            command += ["--backend", "dpdk", "--dpdk-idle", "busy", "--listen", f"0.0.0.0:{PORT}"]
            command += ["--address", "10.0.0.1/24", *rings, "--", "-l", core, *EAL]
            command += [f"--vdev=net_vhost0,iface={folder}/vhost"]
        else:
            command = ["taskset", "-c", core, *command, "--backend", "epoll", "--workers", "1"]
            command += ["--listen", f"127.0.0.1:{PORT}"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        began = time.monotonic()
        while "listening on" not in self.text():
            if self.process.poll() is not None or time.monotonic() - began > READY_S:
                self.process.kill()
                raise SystemExit(f"the server did not start:\n{self.text()}")
            time.sleep(0.05)
        self.ready = time.monotonic()

    def text(self):
        self.log.flush()
        with open(self.log.name) as log:
            return log.read()

    def end(self):
        """Messages, busy and all cycles of the loop, CPU seconds, seconds since it was ready."""
        # Not by send_signal, which might reap it, and its CPU time with it.
        os.kill(self.process.pid, signal.SIGTERM)
        time.sleep(0.2)
        # The second one ends at once: nobody is left to be told.
        os.kill(self.process.pid, signal.SIGTERM)
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        text = self.text()
        count = lambda name: int((re.search(rf"{name} (\d+)", text) or [0, 0])[1])
        return {
            "messages": int((re.search(r"(\d+) messages in", text) or [0, 0])[1]),
            "busy": count("cycles busy"),
            "cycles": count("cycles busy") + count("cycles idle"),
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "seconds": time.monotonic() - self.ready,
            "drops": {name: count(name) for name in
                      ("tx ring full", "tx no mbuf", "rx missed", "retransmits")},
        }


def memory(connections, in_flight):
    """Rings as for this load at both ends: the usual ones, or what holds more in flight; where
    there are many connections, the smallest that will do."""
    least = 0 if connections >= MANY else RINGS["16KiB"]
    fit = [name for name, size in RINGS.items() if size >= max(least, in_flight)] or ["64KiB"]
    if connections < MANY:
        return ["--tcp-ring", fit[0]]
    return ["--tcp-ring", min(fit[0], "16KiB", key=RINGS.get), "--freeze-after", "0"]


def run(options, backend, connections, load, in_flight=0):
    """One run: what the generator and what the server say."""
    rings = memory(connections, in_flight)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(options, backend, rings, folder)
        core = str(options.cores[1])
        url = f"ws://{'10.0.0.1' if backend == 'dpdk' else '127.0.0.1'}:{PORT}/"
        command = [options.program, "bench", url, "--json", "--timeout", "60s",
                   "--connections", str(connections), *load]
        if backend == "dpdk":
            command += ["--backend", "dpdk", "--dpdk-idle", "busy", *rings]
            # An address has some 60,000 ports towards a server.
            for host in (2, 3, 4):
                command += ["--address", f"10.0.0.{host}/24"]
            command += ["--", "-l", core, *EAL, f"--vdev=net_virtio_user0,path={folder}/vhost"]
        else:
            command = ["taskset", "-c", core, *command]
        try:
            done = subprocess.run(command, capture_output=True, text=True,
                                  timeout=options.seconds + GRACE_S)
        except subprocess.TimeoutExpired:
            server.end()
            raise SystemExit(f"no end: {' '.join(command)}")
        told = server.end()
        if not done.stdout.strip():
            raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
        return json.loads(done.stdout.strip().splitlines()[-1]), told


def measure(options, backend, connections, size, depth, base):
    """The median run by its rate, with what a message cost."""
    duration = f"{options.seconds * 1000:.0f}ms"
    load = ["--size", str(size), "--depth", str(depth), "--duration", duration]
    cells = []
    for _ in range(options.rounds):
        in_flight = (size + HEADERS) * depth
        bench, server = run(options, backend, connections, load, in_flight)
        messages = max(server["messages"], 1)
        hz = server["cycles"] / server["seconds"]
        cell = {
            "backend": backend, "connections": connections, "size": size, "depth": depth,
            "rate": bench["rate"], "errors": bench["errors"], "connected": bench["connections"],
            "latency_us": bench["latency_us"], "drops": server["drops"],
        }
        if backend == "dpdk":
            cell["cycles"] = max(server["busy"] - base["busy"], 0) / messages
            cell["ns"] = cell["cycles"] / hz * 1e9
            cell["tsc_hz"] = hz
        else:
            cell["ns"] = max(server["cpu_s"] - base["cpu_s"], 0) / messages * 1e9
        cells.append(cell)
    cells.sort(key=lambda cell: cell["rate"])
    median = cells[len(cells) // 2]
    median["rates"] = [cell["rate"] for cell in cells]
    return median


def table(cells):
    hz = statistics.median([cell["tsc_hz"] for cell in cells if "tsc_hz" in cell] or [0])
    print("| backend | connections | size | depth | messages/s | cycles a message | ns | p50 us | "
          "p99 us | p99.9 us |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for cell in cells:
        cycles = cell.get("cycles", cell["ns"] * hz / 1e9)
        latency = cell["latency_us"]
        flaw = f" ({cell['errors']} errors)" if cell["errors"] else ""
        print(f"| {cell['backend']} | {cell['connected']:,}{flaw} | {cell['size']} | "
              f"{cell['depth']} | {cell['rate']:,.0f} | {cycles:,.0f} | {cell['ns']:,.0f} | "
              f"{latency['p50']:,.1f} | {latency['p99']:,.1f} | {latency['p99_9']:,.1f} |")
    print(f"\ndpdk: busy cycles of the worker's loop; epoll: CPU time of the process, at "
          f"{hz / 1e9:.2f} GHz. Opening and closing is taken off.")


def main():
    options = arguments()
    cells = []
    for connections in options.connections:
        for backend in options.backends:
            if backend == "epoll" and connections > SOCKETS_MAX:
                print(f"epoll, {connections:,} connections: left out, more than one client "
                      "address has ports", file=sys.stderr)
                continue
            _, base = run(options, backend, connections, ["--mode", "idle", "--duration", "1s"])
            for size in options.sizes:
                for depth in options.depths:
                    cell = measure(options, backend, connections, size, depth, base)
                    print(f"{backend} {connections:,} x {size} B, depth {depth}: "
                          f"{cell['rate']:,.0f}/s, {cell['ns']:,.0f} ns", file=sys.stderr)
                    cells.append(cell)
    cells.sort(key=lambda cell: (cell["connections"], cell["size"], cell["depth"]))
    table(cells)
    if options.json:
        with open(options.json, "w") as out:
            json.dump({"cells": cells}, out, indent=1)
    return any(cell["errors"] or not cell["rate"] for cell in cells)


if __name__ == "__main__":
    sys.exit(main())
