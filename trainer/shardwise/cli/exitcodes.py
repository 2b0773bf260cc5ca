"""The exit codes of the command line; docs/cli.md tells them to users."""

from __future__ import annotations

from typing import Final

SUCCEEDED: Final = 0
"""Done; of a job: it succeeded."""
FAILED: Final = 1
"""The job failed, or a check of `doctor` did."""
USAGE: Final = 2
"""The command line, a manifest or a file is wrong."""
TIMED_OUT: Final = 3
"""The time limit passed before what was waited for came."""
NOT_FOUND: Final = 4
"""There is no such job."""
API: Final = 5
"""The API server could not be reached, or refused."""
INTERRUPTED: Final = 130
"""Ended by SIGINT."""
