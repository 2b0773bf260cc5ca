"""What a long test tells while it runs."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import Any

EVERY_SECONDS = 60.0
capture: list[Any] = []
"""pytest's capture manager, once there is one."""


def call(command: list[str], seconds: float, **options: Any) -> str:
    """What the command printed. Says that it still runs, once a minute.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
        TimeoutExpired: it took too long.
    """
    started = time.monotonic()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, **pipes, **options) as process:
        while True:
            try:
                printed, _ = process.communicate(timeout=EVERY_SECONDS)
                break
            except subprocess.TimeoutExpired:
                taken = time.monotonic() - started
                say(f"{' '.join(command[:3])}: {taken:.0f} s so far")
                if taken > seconds:
                    process.kill()
                    raise
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {printed[-4000:]}")
    return str(printed)


def say(text: str) -> None:
    """Progress, past pytest's capture: bringing a cluster up takes minutes."""
    with capture[0].global_and_fixture_disabled() if capture else contextlib.nullcontext():
        print(f"\n[cluster {time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
