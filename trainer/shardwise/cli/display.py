"""What `shardwise run` shows: the picture of `watch` on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shardwise.cli.terminal import Screen, live, paint_for, width
from shardwise.cli.view.local import as_job, as_pods
from shardwise.cli.view.sight import Sight
from shardwise.cli.view.watch import frame

if TYPE_CHECKING:
    from shardwise.coordinator import TaskReport


@contextlib.contextmanager
def display(
    name: str, tasks: Mapping[str, Any] | None = None
) -> Iterator[Callable[[TaskReport], None]]:
    """A function that shows each report of the run, on standard error.

    Args:
        tasks: its spec.tasks.
    """
    if not live(sys.stderr):
        from shardwise.local.display import lines

        aims = [] if tasks is None else [each["metric"] for each in tasks.get("objectives") or ()]
        yield lines(name, aims)
        return
    screen = Screen(sys.stderr)
    paint, started = paint_for(sys.stderr), datetime.now(UTC)
    sight = Sight()

    def draw(report: TaskReport) -> None:
        sight.take_job("MODIFIED", as_job(name, report, started, tasks))
        sight.pods = {pod["metadata"]["name"]: pod for pod in as_pods(report)}
        screen.draw(frame(sight, datetime.now(UTC), width(), paint))

    screen.draw(["starting the workers"])
    try:
        yield draw
    finally:
        screen.close()
