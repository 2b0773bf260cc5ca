"""The digits example in workers that kill themselves in the middle of a compression.

    entrypoint: struck:task
    parameters: {blows: "solve obs:4, tune:3"}

A blow is PLACE:INDEX: SIGKILL to the worker of that index when it comes by the place for the
second time; once in a run, as the faults of `shardwise run` strike. Places are

    calibrate obs, calibrate gptq   before a micro-batch of the Hessians
    scores, teacher                 before one of the gradients, of the teacher's outputs
    ranges, histograms              before one of static int8's two passes
    solve obs, solve gptq           before a layer is solved for
    tune                            before a step of the fine-tuning
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

from shardwise import Task
from shardwise.api import environment
from shardwise.examples import digits

TIMES = 2
_context = [""]
_seen: Counter[str] = Counter()
_mine: set[str] = set()


def task(blows: str = "", hidden: int = 32) -> Task:
    if blows and not _mine:
        index = Path("/proc/self/comm").read_text().strip().rpartition("-")[2]
        listed = [blow.strip().rpartition(":") for blow in blows.split(",")]
        _mine.update(place for place, _, whose in listed if whose == index)
        _watch()
    return digits.task(hidden=hidden)


def _pass(place: str) -> None:
    _seen[place] += 1
    if place in _mine and _seen[place] == TIMES:
        index = os.environ[environment.INDEX]
        marker = Path(os.environ[environment.FAULT_MARKERS], f"{place}:{index}")
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            return  # in an earlier life
        os.kill(os.getpid(), signal.SIGKILL)


def _watch() -> None:
    from shardwise.compression import distilling, finetune, pruning, quantizing, reduction, static

    for owner, name, context in (
        (pruning, "gather_hessians", "calibrate obs"),
        (quantizing, "gather_hessians", "calibrate gptq"),
        (pruning, "gradient_scores", "scores"),
        (distilling, "gather_rows", "teacher"),
        (static.Prepared, "limits", "ranges"),
        (static.Prepared, "histograms", "histograms"),
    ):
        _within(owner, name, context)
    _before(pruning, "prune_with_hessian", "solve obs")
    _before(quantizing, "quantize_with_hessian", "solve gptq")
    _before(finetune.Tuning, "advance", "tune")

    batches = reduction.Samples.batches

    def watched(self, shard):
        for found in batches(self, shard):
            _pass(_context[0])
            yield found

    reduction.Samples.batches = watched


def _within(owner, name, context):
    call = getattr(owner, name)

    def wrapped(*args, **kwargs):
        _context[0] = context
        return call(*args, **kwargs)

    setattr(owner, name, wrapped)


def _before(owner, name, place):
    call = getattr(owner, name)

    def wrapped(*args, **kwargs):
        _pass(place)
        return call(*args, **kwargs)

    setattr(owner, name, wrapped)
