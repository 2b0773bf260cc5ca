"""Exit codes of a worker process: what its pod's status tells when nothing else is left to ask."""

from __future__ import annotations

OK = 0
USAGE = 64
"""The environment that the worker was started with is incomplete or wrong."""
USER_CODE = 70
"""The user's code raised: entrypoint, model, loss, metric or data; or made what is not finite."""
GROUP_LOST = 71
"""The group was lost: a peer died, or the coordinator ended the task."""
REFUSED = 72
"""The coordinator refused this worker."""
OUTPUT = 73
"""The result could not be written, or the checkpoints could not be read."""
AGAIN = 74
"""In a pool: its task is over for this process, and another one is to come for the next."""
HUNG = 75
"""The training thread stood still; the process is begun anew in its pod."""
TERMINATED = 143
"""Ended by SIGTERM."""
