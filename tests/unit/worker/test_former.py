"""What an earlier run has left in an output folder is not taken for a later one's."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardwise.api.validation import validate
from shardwise.coordinator.report import Stretch
from shardwise.local.run import LocalRun, Setting
from shardwise.worker.collecting import TABLE
from shardwise.worker.former import TOLD, forget_states
from shardwise.worker.output import OutputError
from shardwise.worker.stretch import forget_former

OURS, THEIRS = "0123456789abcdef", "fedcba9876543210"
FILES = ("tasks/task-0/result.json", "tasks/task-0/weights.safetensors", "weights.safetensors")


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A folder with what two pools have left."""
    for pool in (OURS, THEIRS):
        for folder in (f"shared-{pool[:8]}/ab", f"tasks/task-0/state-{pool[:8]}/step"):
            (tmp_path / folder).mkdir(parents=True)
            (tmp_path / folder / "part").write_text("x")
    for name in (*TOLD, *FILES):
        (tmp_path / name).write_text("old")
    return tmp_path


def there(base: Path) -> set[str]:
    return {str(path.relative_to(base)) for path in base.rglob("*") if path.is_file()}


def states(pool: str) -> set[str]:
    return {f"shared-{pool[:8]}/ab/part", f"tasks/task-0/state-{pool[:8]}/step/part"}


def test_a_pool_begins_without_the_result_and_the_states_of_another(left: Path) -> None:
    forget_former(left, Stretch(pool=OURS, name="task-0", number=0))
    assert there(left) == {*FILES, *states(OURS)}


def test_in_the_middle_of_a_pool_nothing_goes_away(left: Path) -> None:
    before = there(left)
    forget_former(left, Stretch(pool=OURS, name="task-0", number=1))
    assert there(left) == before


def test_at_its_end_no_state_stays(left: Path) -> None:
    forget_states(left)
    assert there(left) == {*FILES, *TOLD}


def test_there_may_be_no_folder_yet(tmp_path: Path) -> None:
    forget_former(tmp_path / "new", Stretch(pool=OURS, name="task-0", number=0))


def test_a_result_that_cannot_be_removed_is_told(tmp_path: Path) -> None:
    (tmp_path / TABLE).mkdir()
    with pytest.raises(OutputError, match=rf"cannot write to {tmp_path}: .*{TABLE}"):
        forget_former(tmp_path, Stretch(pool=OURS, name="task-0", number=0))


async def test_a_local_pool_takes_its_states_along_however_it_ends(
    left: Path, tmp_path: Path
) -> None:
    spec = {
        "trainer": {"entrypoint": "m:task", "epochs": 1, "batchSize": 8, "shards": 2},
        "tasks": {"list": [{"name": "a"}]},
    }
    kind = {"apiVersion": "shardwise.dev/v1alpha1", "kind": "OptimizationJob"}
    job = validate({**kind, "metadata": {"name": "pool"}, "spec": spec})
    local = LocalRun(job, Setting(workers=1, output=left), tmp_path)
    await local.stop()
    assert there(left) == {*FILES, *TOLD}
