"""How long to wait before the next try, with jitter that follows from who waits.

Pure: the same job and attempt wait for the same time, and jobs that were refused together do not
come back together.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta

JITTER = 0.5
"""Of the pause: it lies between three quarters and five quarters of what the attempt stands for."""


def pause(uid: str, attempt: int, first: timedelta, longest: timedelta) -> timedelta:
    """The wait after this many failures in a row, from 1; it doubles until it is the longest."""
    grown = min(longest, first * (1 << min(max(attempt - 1, 0), 16)))
    digest = hashlib.sha256(f"{uid}/{attempt}".encode()).digest()
    share = int.from_bytes(digest[:4], "big") / 2**32
    return grown * (1 - JITTER / 2 + JITTER * share)
