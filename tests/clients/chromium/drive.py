"""Runs check.js in a headless Chromium and says what came out.

drive.py echo URL...               against the echo app, each address in turn
drive.py broadcast URL             against the broadcast app
drive.py drain URL --pid PID       sends SIGTERM to the server when the page is connected
drive.py subprotocol URL           against the chat example

The page is served from 127.0.0.1, by this program, which also takes the page's verdict. The
standard library does all of it; the browser is CHROMIUM, or `chromium` from the PATH.
"""

import argparse
import functools
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlencode

LIMIT_S = 120
VERDICT_MAX_BYTES = 1 << 20
# No sandbox, since CI runs as root; the rest keeps the browser from talking to anyone else.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


class Page(http.server.SimpleHTTPRequestHandler):
    """The page's files, and the two things it can tell: its verdict, and `drain now`."""

    def do_POST(self):
        size = min(int(self.headers.get("Content-Length") or 0), VERDICT_MAX_BYTES)
        body = self.rfile.read(size)
        if self.path == "/drain" and self.server.pid:
            os.kill(self.server.pid, signal.SIGTERM)
        elif self.path == "/verdict":
            self.server.verdict = json.loads(body)
            self.server.done.set()
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        """Silent: the verdict is the output."""


def verdict_of(mode, urls, pid):
    """What the page reports, or None where it did not within the limit."""
    here = str(Path(__file__).resolve().parent)
    handler = functools.partial(Page, directory=here)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.pid, server.verdict, server.done = pid, None, threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        query = urlencode([("mode", mode)] + [("url", url) for url in urls])
        page = f"http://127.0.0.1:{server.server_address[1]}/index.html?{query}"
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            browser = start(page, profile)
            try:
                await_verdict(server.done, browser)
            finally:
                stop(browser)
        server.shutdown()
        return server.verdict


def await_verdict(done, browser):
    """Until the verdict is in, the browser is gone, or the limit is over."""
    for _ in range(LIMIT_S * 2):
        if done.wait(0.5) or browser.poll() is not None:
            return


def start(page, profile):
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if program is None:
        sys.exit("no chromium: install Debian's package chromium, or set CHROMIUM")
    command = [program, *ARGUMENTS, f"--user-data-dir={profile}", page]
    # A session of its own: the browser is many processes, and all of them have to end.
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def stop(browser):
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(browser.pid, how)
            browser.wait(5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["echo", "broadcast", "drain", "subprotocol"])
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--pid", type=int)
    args = parser.parse_args()
    # `timeout` ends a suite with SIGTERM: the browser must end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    verdict = verdict_of(args.mode, args.urls, args.pid)
    if verdict is None:
        sys.exit(f"FAIL chromium {args.mode}: no verdict (limit {LIMIT_S} s)")
    for failure in verdict["failures"]:
        print(f"FAIL {failure}")
    run, failed = verdict["run"], len(verdict["failures"])
    print(f"chromium {args.mode}: {run - failed} of {run} checks passed")
    sys.exit(1 if failed or run == 0 else 0)


if __name__ == "__main__":
    main()
