"""The program on a real pseudo-terminal: it draws in place, in colour, and cleans up."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from cli_api import JOBS
from samples import RECOVERED, job, pod

SECONDS = 30.0
ANSI = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


class OnTerminal:
    """A process whose standard output is a terminal, and what it has written."""

    def __init__(self, *arguments, **environment):
        self.master, slave = pty.openpty()
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "shardwise.cli.main", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=subprocess.PIPE,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "90", "LINES": "40", **environment},
        )
        os.close(slave)

    def until(self, words):
        """Reads until the words have been drawn; None: until the end."""
        end = time.monotonic() + SECONDS
        while words is None or words not in ANSI.sub("", self.text):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                raise AssertionError(f"not within {SECONDS} s: {words!r}; drawn: {self.text!r}")
            try:
                data = os.read(self.master, 65_536)
            except OSError:  # EIO: the other side is closed.
                data = b""
            if not data:
                assert words is None, self.text
                return
            self.text += data.decode()

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.communicate(timeout=SECONDS)
        os.close(self.master)


@pytest.fixture
def terminal(kubeconfig):
    opened = []

    def start(*arguments, **environment):
        opened.append(OnTerminal(*arguments, **environment))
        return opened[-1]

    # What runs in the background ignores interrupts, and its children would.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield start
    signal.signal(signal.SIGINT, before)
    for process in opened:
        process.close()


def test_watch_draws_in_place_until_the_job_ends(api, terminal):
    api.put(JOBS, job())
    for index in range(4):
        api.put("pods", pod(index))
    shown = terminal("watch", "digits")
    shown.until("0 ■ ■ ■ ■")
    api.update("digits", **RECOVERED)
    shown.until("↻ digits-2 Killed at step 1200")
    api.update("digits", state="Succeeded", reason="Completed")
    shown.until(None)
    assert shown.process.wait(SECONDS) == 0
    assert re.search(r"\x1b\[\d+A\r\x1b\[J", shown.text)
    assert "\x1b[32m" in shown.text
    assert shown.text.count("\x1b[?25l") == 1
    assert shown.text.endswith("\x1b[?25h")


def test_an_interrupted_watch_gives_the_cursor_back_and_is_130(api, terminal):
    api.put(JOBS, job())
    shown = terminal("watch", "digits", NO_COLOR="1")
    shown.until("42 %")
    shown.process.send_signal(signal.SIGINT)
    shown.until(None)
    assert shown.process.wait(SECONDS) == 130
    assert shown.text.endswith("\x1b[?25h")
    assert "\x1b[32m" not in shown.text
    assert b"Traceback" not in shown.process.stderr.read()


def test_a_fleet_on_a_terminal(api, terminal):
    for name in ("a", "b"):
        api.put(JOBS, job(name))
    shown = terminal("watch")
    shown.until("2 jobs: 2 Running")
    api.remove(JOBS, "default", "b")
    shown.until("1 job: 1 Running")
    shown.process.send_signal(signal.SIGINT)
    assert shown.process.wait(SECONDS) == 130


def test_a_reader_that_goes_away_is_no_error(api, kubeconfig):
    """As in `shardwise get | head -1`."""
    for number in range(200):
        api.put(JOBS, job(f"job-{number}"))
    command = f"{sys.executable} -m shardwise.cli.main get -o yaml | head -1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "apiVersion: v1\n"
    assert "Traceback" not in done.stderr
