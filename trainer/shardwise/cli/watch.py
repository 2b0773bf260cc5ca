"""`shardwise watch`: follows a job, or all of them, until it ends."""

from __future__ import annotations

import contextlib
import queue
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from shardwise.cli import exitcodes
from shardwise.cli.names import PLURAL, events_of, pods_of
from shardwise.cli.options import cluster_options, complete_jobs, find_job, timeout_option

if TYPE_CHECKING:
    from shardwise.cli.cluster import Cluster
    from shardwise.cli.follow import News
    from shardwise.cli.view.fields import Object
    from shardwise.cli.view.sight import Sight

DRAW_SECONDS = 1.0
"""Ages grow while nothing is new."""
LINE_SECONDS = 5.0
"""The least time between two lines of progress."""


@click.command()
@click.argument("job", required=False, shell_complete=complete_jobs)
@click.option("-A", "--all-namespaces", is_flag=True, help="Without JOB: of all namespaces.")
@timeout_option("waiting for the job's end")
@cluster_options
@click.pass_context
def watch(
    context: click.Context,
    cluster: Cluster,
    job: str | None,
    all_namespaces: bool,
    timeout: float | None,
) -> None:
    """Follow JOB until it ends, or without JOB all jobs until interrupted.

    On a terminal: a picture with the progress, the loss since you watch, a sign for each rank, and
    recoveries as they happen. Elsewhere: a line for each change, and one of progress every 5 s.

    Exits with 0 when the job succeeded, 1 when it failed or was deleted, 3 after --timeout.
    """
    if job is None:
        watch_all(cluster, "" if all_namespaces else cluster.namespace, timeout)
        return
    context.exit(watch_job(cluster, job, timeout))


def watch_job(cluster: Cluster, name: str, timeout: float | None) -> int:
    """Shows the job until it ends; the exit code."""
    from shardwise.cli.follow import Follower, Source
    from shardwise.cli.terminal import live
    from shardwise.cli.view.sight import Sight

    find_job(cluster, name)
    here = cluster.namespace
    follower = Follower(
        cluster,
        [
            Source("job", PLURAL, here, fields=f"metadata.name={name}"),
            Source("pods", "pods", here, selector=pods_of(name)),
            Source("events", "events", here, fields=events_of(name)),
        ],
    )
    sight = Sight()
    shown = _Picture() if live(sys.stdout) else _Lines()
    end = time.monotonic() + timeout if timeout else None
    try:
        while True:
            for item in waiting(follower.news, end):
                take(sight, item)
                shown.note(sight)
            if sight.job is not None:
                shown.show(sight)
            if over(sight):
                return _end(sight, shown, name)
            if end is not None and time.monotonic() >= end:
                shown.close(sight)
                click.echo(f"Error: {name} has not ended within {timeout:.0f} s", err=True)
                return exitcodes.TIMED_OUT
    except BaseException:
        shown.close(sight)
        raise
    finally:
        follower.close()


def waiting(news: queue.SimpleQueue[News], end: float | None) -> Iterator[News]:
    """All news that are there, at most so many as to draw in time; where there are none, the
    first that comes in a while."""
    until = time.monotonic() + DRAW_SECONDS
    until = until if end is None else min(until, end)
    with contextlib.suppress(queue.Empty):
        yield news.get(timeout=max(0.0, until - time.monotonic()))
        while time.monotonic() < until:
            yield news.get_nowait()


def take(sight: Sight, item: News) -> None:
    """One piece of news. Raises the error of a job's watch that cannot go on."""
    if item.type == "FAILED" and item.source == "job" and item.error is not None:
        raise item.error
    if item.type in ("FAILED", "BROKEN"):
        again = "; it is tried again" if item.type == "BROKEN" else ""
        sight.trouble = f"{item.source}: {item.error.message if item.error else ''}{again}"
        return
    if item.source == "job":
        sight.trouble = ""
    if item.type == "LISTED":
        # It was there just before.
        sight.deleted = sight.deleted or (item.source == "job" and sight.job is None)
        return
    {"job": sight.take_job, "pods": sight.take_pod, "events": sight.take_event}[item.source](
        item.type, item.object
    )


def over(sight: Sight) -> bool:
    from shardwise.cli.view.fields import ended, state

    if sight.deleted or sight.job is None:
        return sight.deleted
    return ended(sight.job) or state(sight.job) == "Invalid"


def _end(sight: Sight, shown: _Picture | _Lines, name: str) -> int:
    from shardwise.cli.view.fields import ended, state

    shown.close(sight)
    if sight.job is None or (sight.deleted and not ended(sight.job)):
        click.echo(f"Error: {name} was deleted", err=True)
        return exitcodes.FAILED
    return exitcodes.SUCCEEDED if state(sight.job) == "Succeeded" else exitcodes.FAILED


class _Picture:
    """Draws in place."""

    def __init__(self) -> None:
        from shardwise.cli.terminal import Screen, paint_for

        self._screen = Screen(sys.stdout)
        self._paint = paint_for(sys.stdout)

    def note(self, sight: Sight) -> None:
        """One piece of news has come. Only the last of several is drawn."""

    def show(self, sight: Sight) -> None:
        from shardwise.cli.terminal import width
        from shardwise.cli.view.watch import frame

        self._screen.draw(frame(sight, datetime.now(UTC), width(), self._paint))

    def close(self, sight: Sight) -> None:
        if sight.job is not None:
            self.show(sight)
        self._screen.close()


class _Lines:
    """Tells what is new, and the progress now and then."""

    def __init__(self) -> None:
        self._told: Object | None = None
        self._progress = ""
        self._next = 0.0
        self._trouble = ""

    def note(self, sight: Sight) -> None:
        """One piece of news has come. Every state is told, however short it was."""
        self.show(sight)

    def show(self, sight: Sight) -> None:
        from shardwise.cli.terminal import show
        from shardwise.cli.view.watch import news, progress_line

        if sight.trouble and sight.trouble != self._trouble:
            click.echo(f"Warning: {sight.trouble}", err=True)
        self._trouble = sight.trouble
        if sight.job is None:
            return
        lines = news(self._told, sight.job, datetime.now(UTC))
        self._told = sight.job
        progress = progress_line(sight.job)
        if progress != self._progress and (time.monotonic() >= self._next or over(sight)):
            self._progress, self._next = progress, time.monotonic() + LINE_SECONDS
            lines.append(progress)
        show(lines)

    def close(self, sight: Sight) -> None:
        self.show(sight)


def watch_all(cluster: Cluster, namespace: str, timeout: float | None) -> None:
    """Shows all jobs until interrupted, or for so long."""
    from shardwise.cli.follow import Follower, Source
    from shardwise.cli.terminal import Screen, live, paint_for, show, width
    from shardwise.cli.view.watch import fleet

    follower = Follower(cluster, [Source("jobs", PLURAL, namespace)])
    screen = Screen(sys.stdout) if live(sys.stdout) else None
    paint = paint_for(sys.stdout)
    jobs: dict[str, Object] = {}
    listed = False
    end = time.monotonic() + timeout if timeout else None
    try:
        while end is None or time.monotonic() < end:
            for item in waiting(follower.news, end):
                listed = listed or item.type == "LISTED"
                told = _take_one_of(jobs, item)
                if screen is None:
                    show(told)
            if screen is not None and listed:
                screen.draw(fleet(jobs.values(), datetime.now(UTC), width(), paint))
    finally:
        follower.close()
        if screen is not None:
            screen.close()


def _take_one_of(jobs: dict[str, Object], item: News) -> list[str]:
    """News of one of many jobs; what to tell of it in lines."""
    from shardwise.cli.view.watch import news

    if item.type == "FAILED" and item.error is not None:
        raise item.error
    if item.type not in ("ADDED", "MODIFIED", "DELETED"):
        return []
    meta = item.object["metadata"]
    key = f"{meta.get('namespace')}/{meta['name']}"
    before = jobs.pop(key, None)
    if item.type == "DELETED":
        return [f"{meta['name']}: deleted"]
    jobs[key] = item.object
    return news(before, item.object, datetime.now(UTC))
