"""The world of records with a job of many tasks: its coordinator counts tasks, and workers come to
it and go at any time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from operator_world import World

from shardwise.coordinator.report import Progress, TaskReport, TaskRow, TasksReport
from shardwise_operator.actions import Action, OpenTask

TOTAL = 8
SHA = "b" * 64
SWEEP: dict[str, Any] = {
    "sweep": {"parameters": [{"name": "hidden", "values": [16 * n for n in range(1, TOTAL + 1)]}]},
    "objectives": [{"metric": "accuracy", "direction": "Maximize"}],
}


def row(number: int, state: str = "Succeeded", **changes: Any) -> TaskRow:
    """A task's row; one that has succeeded is better the higher its number."""
    ended: dict[str, Any] = {}
    if state == "Succeeded":
        ended = {
            "metrics": {"accuracy": 0.5 + number / 100},
            "weights_sha256": SHA,
            "step": 10,
            "seconds": 2.5,
            "workers": 1,
        }
    elif state == "Failed":
        ended = {"reason": "UserCodeFailed", "message": f"ValueError: {number} is too wide"}
    return TaskRow(
        name=f"task-{number}",
        state=state,  # type: ignore[arg-type]
        parameters={"hidden": 16 * (number + 1)},
        **{**ended, **changes},
    )


class PoolWorld(World):
    """`at_tasks` and `count` are what the tests turn."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(**{"tasks": SWEEP, **spec})
        self.total = TOTAL
        self.succeeded: list[int] = []
        self.failed: list[int] = []

    def apply(self, action: Action) -> None:
        before = self.report
        super().apply(action)
        if isinstance(action, OpenTask) and before is None:
            assert self.report is not None
            # What a new coordinator knows is what the record has.
            known = [int(n) for n in action.record.split(",") if n]
            self.report = replace(
                self.report, generation=1, tasks=self.tasks_report((), known, self.failed)
            )

    def tasks_report(
        self, running: tuple[int, ...], succeeded: list[int], failed: list[int]
    ) -> TasksReport:
        ended = [*(row(n) for n in reversed(succeeded)), *(row(n, "Failed") for n in failed)]
        best = max(succeeded, default=None)
        return TasksReport(
            total=self.total,
            pending=self.total - len(running) - len(succeeded) - len(failed),
            running=len(running),
            succeeded=len(succeeded),
            failed=len(failed),
            stopped=0,
            rows=tuple([*(row(n, "Running") for n in running), *ended][:20]),
            best=None if best is None else row(best),
            record=",".join(map(str, succeeded)),
            utilization=0.9 if running else 0.0,
        )

    def there(self) -> tuple[str, ...]:
        """The workers whose pods run."""
        return tuple(sorted(name for name, pod in self.pods.items() if pod.running))

    def work(self, *running: int, away: int = 0, **changes: Any) -> TaskReport:
        """The running pods are at these tasks, one each; the rest wait for work, but for some
        that are on their way from one task to the next."""
        self.run_pods()
        workers = self.there()
        members = workers[: len(running)]
        connected = workers[: len(workers) - away]
        done = 10 * len(self.succeeded) + 5 * len(running)
        self.coordinator(
            **{
                "state": "training" if running else "waiting",
                "generation": 3,
                "connected": connected,
                "members": members,
                "standbys": tuple(name for name in connected if name not in members),
                "progress": Progress(
                    step=done,
                    total_steps=10 * self.total,
                    epoch=0,
                    loss=0.5,
                    samples_per_second=100.0,
                    eta_seconds=90.0,
                    at=self.now.timestamp(),
                    metrics={},
                    stage=f"tasks: {len(self.succeeded)}/{self.total}",
                ),
                "tasks": self.tasks_report(running, self.succeeded, self.failed),
                **changes,
            }
        )
        self.observe_pool()
        assert self.report is not None
        return self.report

    def observe_pool(self) -> None:
        """As the controller notes it between two reconciles."""
        report = self.report
        idle = report is not None and not report.members and report.state != "finished"
        short = report is not None and len(report.connected) < report.workers
        self.idle_since = (self.idle_since or self.now) if idle else None
        self.short_since = (self.short_since or self.now) if short else None

    def begin(self) -> None:
        """Brings the job to its first tasks."""
        self.settle()
        self.work(0, 1, 2, 3)
        self.settle()

    def end(self) -> dict[str, Any]:
        """All tasks are over, and one worker has gathered them; its result."""
        self.succeeded = [n for n in range(self.total) if n not in self.failed]
        best = row(max(self.succeeded))
        return {
            "steps": 10 * self.total,
            "metrics": [{"name": "accuracy", "value": "0.57"}],
            "seconds": "20.0",
            "path": "/output/digits",
            "weightsSha256": SHA,
            "tasks": {"succeeded": len(self.succeeded), "failed": len(self.failed), "stopped": 0},
            "best": {
                "name": best.name,
                "parameters": dict(best.parameters),
                "metrics": dict(best.metrics),
                "weightsSha256": SHA,
            },
        }
