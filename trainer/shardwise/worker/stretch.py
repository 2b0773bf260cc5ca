"""One task of a pool, as its worker sees it: where its files go, and what is told of it."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from shardwise.coordinator.report import Stretch
from shardwise.regular import read_json
from shardwise.worker import output
from shardwise.worker.former import FOLDER, RESULT, forget_results, forget_states


class UnfitTask(Exception):  # noqa: N818 - reads as what it is
    """What spec.tasks asks for does not fit the entrypoint, for whichever task."""


def folder(base: Path, stretch: Stretch) -> Path:
    """Where a task's files go."""
    return base / FOLDER / stretch.name


def check_objectives(stretch: Stretch, figures: Collection[str], compresses: bool) -> None:
    """Whether an evaluation gives what the tasks are to be compared by.

    Raises:
        UnfitTask: it does not; the message names the objective and what there is.
    """
    known = [*figures, *(output.COMPRESSION_FIGURES if compresses else ())]
    for place, metric in enumerate(stretch.objectives):
        if metric not in known:
            raise UnfitTask(
                f"spec.tasks.objectives[{place}].metric: the evaluation gives no {metric!r}; it "
                f"gives {', '.join(known) or 'nothing, for the task has no evaluation samples'}"
            )


def told(written: Mapping[str, Any], stretch: Stretch) -> dict[str, Any]:
    """What the coordinator is told of a task that has ended.

    Args:
        written: its result as `output.write` gave it.
    """
    return {
        "number": stretch.number,
        "steps": written["steps"],
        "figures": output.figures(written),
        "weightsSha256": written["weightsSha256"],
    }


def found(base: Path, stretch: Stretch) -> dict[str, Any] | None:
    """The result of this very stretch, where a worker of the same pool has written it: it ended,
    and the coordinator that it told of it has forgotten."""
    try:
        written = read_json(folder(base, stretch) / RESULT)
        same = (written.get("pool"), written.get("number")) == (stretch.pool, stretch.number)
        return told(written, stretch) if same else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def forget_former(base: Path, stretch: Stretch) -> None:
    """Before the first stretch of a pool: what another one has left in the folder goes away. Its
    tasks' files stay until there are new ones; they have its key.

    Raises:
        OutputError: the folder cannot be written to.
    """
    if stretch.number:
        return
    try:
        forget_results(base)
    except OSError as error:
        raise output.OutputError.of(base, error) from error
    forget_states(base, but=stretch.pool)


def forget_state(base: Path, stretch: Stretch) -> None:
    """Remove the state that was kept of a task; what others share stays."""
    if stretch.state.startswith(f"{FOLDER}/"):
        shutil.rmtree(base / stretch.state, ignore_errors=True)
