"""A pool with toy workers: they take what they are given, and end, die and come back when told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shardwise.coordinator import pool_report
from shardwise.coordinator.pool import Pool
from shardwise.coordinator.pool_actions import (
    Close,
    Decide,
    Dismiss,
    Open,
    Place,
    Release,
    Resize,
)
from shardwise.coordinator.report import (
    Assignment,
    Failure,
    PoolAssignment,
    Progress,
    TaskReport,
    TasksReport,
)

TRAINER: dict[str, Any] = {
    "entrypoint": "digits:task",
    "epochs": 9,
    "batchSize": 64,
    "shards": 4,
}
ACCURACY = [{"metric": "accuracy", "direction": "Maximize"}]


def grid(count: int, **tasks: Any) -> dict[str, Any]:
    """spec.tasks of so many tasks, whose parameter `n` is their number."""
    parameter = {"name": "n", "values": list(range(count))}
    sweep = {"parameters": [parameter], "algorithm": "Grid", **tasks.pop("sweep", {})}
    return {"sweep": sweep, "objectives": ACCURACY, **tasks}


def tpe(count: int, **tasks: Any) -> dict[str, Any]:
    """spec.tasks of so many tasks that TPE gives a learning rate."""
    rate = {"type": "Float", "min": "0.001", "max": "1", "scale": "Log"}
    parameters = [{"name": "learning_rate", "range": rate}]
    sweep = {"parameters": parameters, "algorithm": "TPE", "seed": 3}
    return {"sweep": sweep, "objectives": ACCURACY, "maxTasks": count, **tasks}


def listed(*names: str, **tasks: Any) -> dict[str, Any]:
    return {"list": [{"name": name, "parameters": {}} for name in names], **tasks}


def assignment(tasks: dict[str, Any], workers: int, **changes: Any) -> PoolAssignment:
    values = {"pool": "p", "name": "sweep", "workers": workers, "trainer": TRAINER, "tasks": tasks}
    return PoolAssignment(**{**values, **changes})


@dataclass
class World:
    """The pool, who is where, and what was told."""

    pool: Pool
    now: float = 0.0
    open: dict[str, Assignment] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    at: dict[str, str] = field(default_factory=dict)
    """The task that a worker is at."""
    dismissed: set[str] = field(default_factory=set)
    ended: list[str] = field(default_factory=list)
    """Tasks, as their stretches ended."""
    most_at_once: int = 0
    decides: bool = True
    """Whether the schedule decides at once; otherwise it waits for `decide`."""
    coming: bool = True
    """Whether workers come again when their task is over."""

    def come(self, *indices: int, last_end: str = "") -> None:
        for index in indices:
            self.pool.came(f"w-{index}", index, last_end, self.now)
        self.act()

    def die(self, worker: str) -> None:
        task = self.at.pop(worker, None)
        self.pool.gone(worker, task, self.now)
        self.act()

    def end(self, task: str, accuracy: float = 0.5, **figures: float) -> None:
        """The task's group comes to the end of its stretch; its workers come again."""
        stretch = self.open[task].stretch
        assert stretch is not None
        result = {
            "number": stretch.number,
            "steps": 10,
            "figures": {"accuracy": accuracy, **figures},
            "weightsSha256": f"sha-{stretch.name}",
        }
        self._over(task, lambda: self.pool.finished(task, result, self.now))
        self.ended.append(stretch.name)

    def fail(self, task: str, reason: str, message: str = "it raised") -> None:
        failure = Failure(reason=reason, message=message)
        self._over(task, lambda: self.pool.failed(task, failure, self.now))

    def report(
        self, task: str, *, eta: float, members: int, standbys: tuple[str, ...] = ()
    ) -> None:
        there = sorted(worker for worker, at in self.at.items() if at == task)
        progress = Progress(
            step=3,
            total_steps=10,
            epoch=0,
            loss=1.0,
            samples_per_second=1.0,
            eta_seconds=eta,
            at=self.now,
            metrics={},
        )
        report = TaskReport(
            state="training",
            generation=1,
            connected=tuple(there),
            workers=members,
            progress=progress,
            failure=None,
            result=None,
            members=tuple(there[:members]),
            standbys=standbys,
        )
        self.pool.progressed(task, report)
        self.act()

    def crew(self, task: str) -> set[str]:
        return {worker for worker, at in self.at.items() if at == task}

    def _over(self, task: str, tell: Any) -> None:
        crew = sorted(self.crew(task))
        del self.open[task], self.sizes[task]
        for worker in crew:
            del self.at[worker]
        tell()
        self.act()
        if self.coming:
            self.come(*(int(worker.removeprefix("w-")) for worker in crew))

    def act(self) -> None:
        undecided = False
        for action in self.pool.settle(self.now):
            match action:
                case Open(assignment=assigned):
                    assert assigned.task not in self.open
                    self.open[assigned.task] = assigned
                    self.sizes[assigned.task] = assigned.workers
                case Place(worker=worker, task=task):
                    assert worker not in self.at and task in self.open
                    self.at[worker] = task
                case Resize(task=task, workers=workers):
                    self.sizes[task] = workers
                case Release(task=task, worker=worker):
                    assert self.at.pop(worker) == task
                    self.come(int(worker.removeprefix("w-")))
                case Close(task=task):
                    self.open.pop(task, None)
                    self.sizes.pop(task, None)
                    self.at = {w: t for w, t in self.at.items() if t != task}
                case Dismiss(worker=worker):
                    self.dismissed.add(worker)
                case Decide():
                    undecided = True
        self.most_at_once = max(self.most_at_once, len(self.open))
        if undecided and self.decides:
            self.decide()

    def decide(self) -> None:
        """The schedule has come to a decision."""
        self.pool.schedule.decide()
        self.pool.decided()
        self.act()


def world(tasks: dict[str, Any], workers: int, **changes: Any) -> World:
    """A pool with its workers there."""
    found = World(Pool(assignment(tasks, workers, **changes), 0.0))
    found.come(*range(workers))
    return found


def report(found: World) -> TaskReport:
    return pool_report.report(found.pool, (), found.now)


def tasks_of(found: World) -> TasksReport:
    tasks = report(found).tasks
    assert tasks is not None
    return tasks


def reopened(found: World, tasks: dict[str, Any], workers: int) -> World:
    """What the next coordinator has: the record alone."""
    record = found.pool.schedule.record()
    return World(Pool(assignment(tasks, workers, record=record, began=True), found.now))
