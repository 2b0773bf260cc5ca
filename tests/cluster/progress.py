"""What a long test tells while it runs."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

capture: list[Any] = []
"""pytest's capture manager, once there is one."""


def say(text: str) -> None:
    """Progress, past pytest's capture: bringing a cluster up takes minutes."""
    with capture[0].global_and_fixture_disabled() if capture else contextlib.nullcontext():
        print(f"\n[cluster {time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
