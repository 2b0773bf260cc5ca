"""`shardwise logs`: the logs of all workers of a job, merged by time, a colour for each rank."""

from __future__ import annotations

import heapq
import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from shardwise.cli import exitcodes
from shardwise.cli.errors import ApiError, CliError
from shardwise.cli.names import CONTAINER, INDEX, JOB_UID, PLURAL, pods_of
from shardwise.cli.options import DURATION, cluster_options, find_job, job_argument

if TYPE_CHECKING:
    from shardwise.cli.cluster import Cluster
    from shardwise.cli.view.style import Paint

FOLLOW_SECONDS = 300.0
"""A followed log that is silent for so long is asked for anew: the connection may be dead."""
LOOK_SECONDS = 1.0
"""Between two looks at the job and its pods."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 10.0
"""Before a log is asked for again: its container has not started, or the server is away."""


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """A line of a worker's log; the time is RFC 3339 with nanoseconds, so it sorts as a text."""

    time: str
    index: int
    text: str


def parse_ranks(text: str) -> set[int]:
    """0,2,5-7 as a set. Raises CliError."""
    ranks: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise CliError(f"--rank: {text!r} is no list of ranks; write for example 0,2,5-7")
        ranks.update(range(int(first), int(last or first) + 1))
    return ranks


@click.command()
@job_argument
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come, until the job ends.")
@click.option("--rank", "ranks", help="Only these: 0,2,5-7. The number in the pod's name.")
@click.option("--since", type=DURATION, help="Only lines of so long ago: 30s, 5m, 2h.")
@click.option("--tail", type=click.IntRange(0), help="Only so many last lines of each worker.")
@click.option("-c", "--container", default=CONTAINER, show_default=True, help="Container.")
@click.option("--timestamps", is_flag=True, help="Begin each line with its time.")
@cluster_options
def logs(
    cluster: Cluster,
    job: str,
    follow: bool,
    ranks: str | None,
    since: float | None,
    tail: int | None,
    container: str,
    timestamps: bool,
) -> None:
    """The logs of all workers of JOB, in the order of time, each line with its worker's number.

    With -f, workers that come later are followed too. Logs go with their pods: of one that failed
    and is gone, `shardwise describe` keeps the last lines.
    """
    from shardwise.cli.terminal import paint_for
    from shardwise.cli.view.fields import text

    found = find_job(cluster, job)
    wanted = parse_ranks(ranks) if ranks else None
    query = {"container": container, "timestamps": "true"}
    if since:
        query["sinceSeconds"] = str(max(1, round(since)))
    if tail is not None:
        query["tailLines"] = str(tail)
    uid = text(found, "metadata.uid")
    reader = _Reader(cluster, job, uid, wanted, query)
    printer = _Printer(paint_for(sys.stdout), timestamps)
    if follow:
        if not _follow(reader, printer):
            raise CliError(_no_pods(found, wanted), exitcodes.FAILED)
        return
    pods = reader.pods()
    if not pods:
        raise CliError(_no_pods(found, wanted), exitcodes.FAILED)
    for line in heapq.merge(*map(reader.read, pods)):
        printer.show(line)


class _Printer:
    def __init__(self, paint: Paint, timestamps: bool) -> None:
        self._paint = paint
        self._timestamps = timestamps

    def show(self, line: Line) -> None:
        head = self._paint.rank(f"[{line.index}]", line.index)
        stamp = f"{line.time} " if self._timestamps else ""
        click.echo(f"{head} {stamp}{line.text}", color=self._paint.enabled or None)


@dataclass(frozen=True)
class _Reader:
    """Reads logs of the pods of one job."""

    cluster: Cluster
    job: str
    uid: str
    wanted: set[int] | None
    query: dict[str, str]

    def pods(self) -> list[dict[str, Any]]:
        """Those whose logs were asked for, of this very job."""
        found = self.cluster.list("pods", selector=pods_of(self.job))["items"]
        return [
            pod
            for pod in found
            if pod["metadata"]["labels"].get(JOB_UID) in (None, self.uid)
            and (self.wanted is None or index_of(pod) in self.wanted)
        ]

    def read(self, pod: dict[str, Any]) -> Iterator[Line]:
        """A pod's log so far, as it is read; none where its container has not started."""
        try:
            yield from self.lines(pod, {})
        except ApiError as error:
            if error.status not in (400, 404):
                raise
            _warn(pod, error)

    def lines(self, pod: dict[str, Any], more: dict[str, str]) -> Iterator[Line]:
        from shardwise.cli.cluster import CALL_SECONDS, path

        name, place = pod["metadata"]["name"], pod["metadata"]["namespace"]
        silence = FOLLOW_SECONDS if more.get("follow") else CALL_SECONDS
        stream = self.cluster.lines(
            path("pods", place, name, "log"), {**self.query, **more}, silence
        )
        return split(stream, index_of(pod))

    def ended(self) -> bool:
        from shardwise.cli.view.fields import ended

        try:
            return ended(self.cluster.get(PLURAL, self.job))
        except ApiError as error:
            return error.status == 404


def split(stream: Iterator[str], index: int) -> Iterator[Line]:
    """Lines with their times; one without a time has that of the line before."""
    last = ""
    for text in stream:
        stamp, space, rest = text.partition(" ")
        if space and stamp[:1].isdigit() and stamp.endswith("Z"):
            last = stamp
        else:
            rest = text
        yield Line(last, index, rest)


def index_of(pod: dict[str, Any]) -> int:
    label = str(pod["metadata"]["labels"].get(INDEX, ""))
    return int(label) if label.isdecimal() else -1


def _no_pods(job: dict[str, Any], wanted: set[int] | None) -> str:
    from shardwise.cli.view.fields import name, text

    which = f" of rank {', '.join(map(str, sorted(wanted)))}" if wanted else ""
    tail = text(job, "status.lastFailure.logTail")
    hint = "`shardwise describe` has the last lines" if tail else "`shardwise explain` tells why"
    return f"{name(job)} has no pods{which}; {hint}"


def _follow(reader: _Reader, printer: _Printer) -> bool:
    """Prints lines as they come and looks for new pods now and then, until the job ends; whether
    there was a pod."""
    lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
    threads: dict[str, threading.Thread] = {}
    ended, look = False, 0.0
    while True:
        if time.monotonic() >= look:
            for pod in reader.pods():
                uid = str(pod["metadata"]["uid"])
                if uid not in threads:
                    threads[uid] = threading.Thread(
                        target=_tail, args=(reader, pod, lines), name=f"follow-{uid}", daemon=True
                    )
                    threads[uid].start()
            ended, look = reader.ended(), time.monotonic() + LOOK_SECONDS
        # Asked before the queue is: what ends later may still put lines into it.
        running = any(thread.is_alive() for thread in threads.values())
        try:
            printer.show(lines.get(timeout=max(0.0, look - time.monotonic())))
        except queue.Empty:
            if ended and not running:
                return bool(threads)


def _tail(reader: _Reader, pod: dict[str, Any], lines: queue.SimpleQueue[Line]) -> None:
    """Puts a pod's lines into the queue until its log ends or the pod is gone."""
    last, wait = "", FIRST_WAIT_SECONDS
    while True:
        seen = last
        more = {"follow": "true", **({"sinceTime": seen} if seen else {})}
        try:
            for line in reader.lines(pod, more):
                # The API server cuts sinceTime to seconds, and so says some lines again.
                if line.time > seen or not seen:
                    lines.put(line)
                    last, wait = line.time, FIRST_WAIT_SECONDS
            return
        except ApiError as error:
            if error.status == 404:
                return
            # 400: the container has not started yet.
            if error.status not in (0, 400, 429, 500, 502, 503, 504):
                _warn(pod, error)
                return
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def _warn(pod: dict[str, Any], error: ApiError) -> None:
    click.echo(f"Warning: no log of {pod['metadata']['name']}: {error.message}", err=True)
