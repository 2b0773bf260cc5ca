"""Training, saved by some number of workers and resumed from the files by another: same bytes."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import pytest
from cases import ending, make_training, same, trained, undisturbed
from threads import together

from shardwise.checkpoint import Checkpointer, Report, newest
from shardwise.coordinator.protocol import CheckpointReport
from shardwise.worker.checkpoints import Checkpoints

SECONDS = 30.0


def save(members: list[Any], location: Path) -> None:
    """The members of a group write the step that they are at."""
    reports: queue.Queue[Report] = queue.Queue()
    savers = [
        Checkpointer(str(location), identity="job", keep=2, on_report=reports.put) for _ in members
    ]
    for rank, (member, saver) in enumerate(zip(members, savers, strict=True)):
        assert saver.save(member.snapshot(), rank=rank, size=len(members), generation=1)
    for saver in savers:
        assert saver.wait(SECONDS)
        saver.close()
    assert reports.get_nowait().error == ""


def resume(case: str, size: int, location: Path) -> list[Any]:
    """Each of a group of fresh members reads the newest checkpoint and goes on to the end."""
    members = [make_training(case) for _ in range(size)]

    def train(group: Any) -> Any:
        member = members[group.rank]
        snapshot = newest(str(location), "job")
        assert snapshot is not None
        member.restore(snapshot)
        member.join(group)
        while not member.done:
            member.step()
            if member.evaluation_due:
                member.evaluate()
        return ending(member)

    return together(size, train)


@pytest.mark.parametrize("before, after", [(1, 3), (3, 1), (2, 5), (5, 2), (3, 3)])
@pytest.mark.parametrize("case", ["sgd, whole", "adamw, partitioned", "stateless, partitioned"])
def test_another_number_of_workers_ends_in_the_same_bytes(
    case: str, before: int, after: int, tmp_path: Path
) -> None:
    save(trained(case, 2, before), tmp_path)
    for one in resume(case, after, tmp_path):
        same(one, undisturbed(case))


@pytest.mark.parametrize(
    ("damaged", "resumed", "then"),
    [((2,), 1, "resumed from step 1"), ((1, 2), 0, "begun anew")],
)
def test_a_damaged_one_is_told_to_the_coordinator(
    damaged: tuple[int, ...], resumed: int, then: str, tmp_path: Path
) -> None:
    case = "sgd, whole"
    for step in (1, 2):
        save(trained(case, step, 1), tmp_path)
    parts = {step: next(tmp_path.glob(f"step-{step:010d}-*/*.safetensors")) for step in (1, 2)}
    for step in damaged:
        parts[step].write_bytes(parts[step].read_bytes()[:-9])
    told: list[CheckpointReport] = []
    training = make_training(case)
    assert Checkpoints(str(tmp_path), {}, "job", told.append).resume(training) is bool(resumed)
    assert training.steps_done == resumed
    (report,) = told
    assert report.error.startswith(f"{parts[2]}: has ")
    assert "it was truncated or changed" in report.error
    assert report.error.endswith(f"it was skipped, and the training {then}")
    assert ("(and 1 more)" in report.error) == (len(damaged) > 1)
