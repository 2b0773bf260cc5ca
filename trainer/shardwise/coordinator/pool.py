"""The pool of one job with many tasks: which worker is at which task, and what came of them.

A pure state machine, as a group is: events come in with their time, what is to be done goes out.
Each task under way has a group of its own beside this, which knows nothing of pools. A worker
comes for work, is placed in a task's group, and comes again when that task has ended for it.
What is tried next is the schedule's to say; how many workers a task gets, the allotment's.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shardwise.api import conditions, exitcodes
from shardwise.coordinator import allotment, pool_stretches, rows
from shardwise.coordinator.allotment import Crew
from shardwise.coordinator.pool_actions import (
    Action,
    Close,
    Decide,
    Dismiss,
    Open,
    Place,
    Release,
    Resize,
)
from shardwise.coordinator.pool_start import Start, start
from shardwise.coordinator.report import Collect, Failure, PoolAssignment, TaskReport
from shardwise.coordinator.running import Running
from shardwise.coordinator.spent import Spent
from shardwise.sweep import Stretch as Planned

AUTO = "Auto"
HOLDER_SECONDS = 5.0
"""For the worker with the best task's files, which may be coming from the last task or dead: where
there is no volume nobody else has them."""
OOM_KILLED = "OOMKilled"
BLAMELESS = frozenset({"", "Signal 9", "Signal 15", f"Exit {exitcodes.HUNG}"})
"""Ends of a process that another, or the machine, has brought about; any other is held against its
task."""
RETRIES = 2
MESSAGE_LENGTH = 500
DEATHS = 10
"""Workers that one task may lose without getting any further."""
FATAL = frozenset({conditions.INVALID_TASKS, conditions.OUTPUT_FAILED, conditions.REFUSED_WORKER})
"""What would befall every other task as well."""
RETRIED = frozenset({conditions.WORKER_LOST, OOM_KILLED})


class Pool:
    """The tasks of one job and the workers that do them. `settle` says what follows of events.

    Args:
        assignment: the job; with `began` its workers may be at tasks already.
        now: the time.
        adoption_seconds: how long such workers are waited for before tasks are begun.
        begins: what `pool_start.start` gave for the assignment; None: it is worked out here.
    """

    def __init__(
        self,
        assignment: PoolAssignment,
        now: float,
        *,
        adoption_seconds: float = 10.0,
        begins: Start | None = None,
    ) -> None:
        self.assignment = assignment
        begins = begins or start(assignment)
        self.schedule, self.table, self.failure = begins.schedule, begins.table, begins.failure
        self.running: dict[str, Running] = {}
        self.idle: dict[str, int] = {}
        """Workers that wait for work, and their index."""
        self.result: Mapping[str, Any] | None = None
        self.spent = Spent(began=now, marked=now)
        self.last_loss = 0.0
        self.moved = now
        """When a task was last over, as far as its workers are concerned."""
        effort = self.schedule.effort
        self.effort_before = 0.0 if effort is None else effort.done
        """What earlier coordinators' stretches came to."""
        self._queue: deque[Planned] = deque(begins.unfinished)
        self._retries: Counter[int] = Counter()
        self._at: dict[str, str] = {}
        """The task that a worker was placed in last."""
        self._holders: dict[int, str] = {}
        """The worker that ended a trial's last stretch, and has its files."""
        self._draining = ""
        self._shares = pool_stretches.training_is_shared(assignment) and not begins.begun
        """The training that all tasks share is yet to be done."""
        self._leads = self._shares
        """Then the first task, by all workers: what it computes of statistics, the others find."""
        self._adopting_until: float | None = now + adoption_seconds if assignment.began else None
        self._holder_until: float | None = None
        """Until when the worker with the best task's files is waited for, to put all together."""
        self._deciding = False
        """The next stretch is being worked out."""
        self._actions: list[Action] = []
        self._check_failures()

    # Queries.

    @property
    def over(self) -> bool:
        return self.result is not None or self.failure is not None

    @property
    def most(self) -> int:
        """Workers that one task can use."""
        return int(self.assignment.trainer["shards"])

    @property
    def fixed(self) -> int | None:
        """How many workers each task is to have; None: as it comes out."""
        wanted = self.assignment.tasks.get("workersPerTask", AUTO)
        return None if wanted == AUTO else min(int(wanted), self.most)

    def next_deadline(self) -> float | None:
        """When `settle` is to be called although nothing happens."""
        return self._adopting_until if self._holder_until is None else self._holder_until

    def key(self, name: str) -> str:
        """The key of a task's group."""
        return pool_stretches.key(self.assignment.pool, name)

    # Events.

    def came(self, worker: str, index: int, last_end: str, now: float) -> None:
        """A worker wants work; its former process ended like this, if it is a new one."""
        self.spent.mark(now, self.running, self.idle)
        task = self._at.pop(worker, None)
        if task in self.running:
            self.running[task].workers.discard(worker)
            if last_end not in BLAMELESS:
                self._blame(task, last_end, now)
        self.idle[worker] = index

    def returned(self, worker: str, task: str, now: float) -> bool:
        """A worker has connected anew that is at a task; whether that is still under way."""
        self.spent.mark(now, self.running, self.idle)
        if task not in self.running:
            planned = self._take(task)
            if planned is not None:
                self._open(planned, 1, now, adopt=True)
            elif self._shares and task == self.key(pool_stretches.SHARED_TRAINING):
                self._open_shared(1, now, adopt=True)
            else:
                return False
        self._put(worker, task)
        if len(self.running[task].workers) > self.running[task].wanted:
            self._want(task, len(self.running[task].workers))
        return True

    def gone(self, worker: str, task: str | None, now: float) -> None:
        """A worker's connection has ended at this task, or while it waited for one (None)."""
        self.spent.mark(now, self.running, self.idle)
        if task is None:
            self.idle.pop(worker, None)
            return
        running = self.running.get(task)
        if running is None or worker not in running.workers:
            return
        running.workers.discard(worker)
        if running.step > running.deaths_at:
            running.deaths, running.deaths_at = 0, running.step
        running.deaths += 1
        if running.deaths > DEATHS:
            message = f"{running.deaths} of its workers died in a row at step {running.step}"
            self._abort(task, Failure(reason=conditions.WORKER_LOST, message=message), now)

    def told(self, task: str, result: Mapping[str, Any], now: float) -> None:
        """A result is told again, for a coordinator that is new."""
        running = self.running.get(task)
        if running is None:
            planned = self._take(task)
            if planned is not None and planned.number != result.get("number"):
                self._queue.appendleft(planned)
            elif planned is not None:
                self._done(planned, result, 0.0)
        elif running.planned is not None and running.planned.number == result.get("number"):
            self._actions.append(Close(task, "TaskEnded", "its result is known already"))
            self.finished(task, result, now)

    def progressed(self, task: str, report: TaskReport) -> None:
        """The group of a task has news."""
        if task in self.running:
            self.running[task].report = report

    def finished(self, task: str, result: Mapping[str, Any], now: float) -> None:
        """A task's group has come to the end of its stretch."""
        running = self._end(task, now)
        if running is None:
            return
        if running.planned is None:
            if running.assignment.stretch and running.assignment.stretch.collect:
                self.result = result
            self._shares = False
            return
        self._leads = False
        self._holders[running.planned.trial] = min(running.workers, default="")
        self._done(running.planned, result, now - running.began, len(running.workers))

    def failed(self, task: str, failure: Failure, now: float) -> None:
        """A task's group has failed."""
        running = self._end(task, now)
        if running is None:
            return
        planned, self._leads = running.planned, False
        if failure.reason in FATAL or planned is None:
            self.failure = failure
            return
        row = self.table.rows[planned.trial]
        row = replace(
            row,
            step=running.step,
            seconds=round(row.seconds + now - running.began, 3),
            workers=len(running.workers),
            reason=failure.reason,
            message=failure.message[:MESSAGE_LENGTH],
        )
        self._retries[planned.number] += 1
        if failure.reason in RETRIED and self._retries[planned.number] <= self._budget(
            "maxRetries"
        ):
            self._queue.appendleft(planned)
            self.table.again(planned, row)
            return
        self.table.failed(planned, row)
        self.schedule.tell(planned.number, None)
        self._check_failures()

    def decided(self, failure: Failure | None = None) -> None:
        """The next stretch was worked out, or could not be."""
        self._deciding = False
        self.failure = self.failure or failure

    def resize(self, workers: int) -> None:
        """The pool is to have another number of workers; they come and go by themselves."""
        self.assignment = replace(self.assignment, workers=workers)

    def drain(self, reason: str) -> None:
        """No task is begun any more, and whoever comes for work may end."""
        self._draining = reason

    # What follows.

    def settle(self, now: float) -> list[Action]:
        """What is to be done now, in order."""
        self.spent.mark(now, self.running, self.idle)
        self._holder_until = None
        if not self._adopting(now):
            if self.over or self._draining:
                self._close()
            else:
                self._deal(now)
        actions, self._actions = self._actions, []
        return actions

    def _adopting(self, now: float) -> bool:
        """Whether workers may yet come back that are at tasks."""
        if self._adopting_until is None:
            return False
        back = len(self.idle) + sum(len(each.workers) for each in self.running.values())
        if now < self._adopting_until and back < self.assignment.workers:
            return True
        self._adopting_until = None
        return False

    def _close(self) -> None:
        if self.failure is not None:
            for task in self.running:
                self._actions.append(Close(task, self.failure.reason, self.failure.message))
            self.running.clear()
        self._actions += [Dismiss(worker) for worker in self.idle]
        self.idle.clear()

    def _deal(self, now: float) -> None:
        self._release()
        while self.idle and (task := allotment.short(self._crews())) is not None:
            self._place(task, 1)
        if self._shares:
            self._share(now)
            return
        if self._leads:
            self._lead(now)
            return
        self._begin(now)
        if self.fixed is None and self._queue:
            self._shrink()
        elif self.fixed is None and not self._deciding:
            self._grow()
        waits = self._queue or self._deciding or self.schedule.undecided
        if not self.running and not waits and self.schedule.exhausted:
            self._collect(now)

    def _release(self) -> None:
        """Workers that a group has let go stand by in it; they are to come for other work."""
        for task, running in self.running.items():
            report = running.report
            if report is None or len(report.members) < running.wanted:
                continue
            for worker in report.standbys:
                if worker in running.workers and len(running.workers) > running.wanted:
                    running.workers.discard(worker)
                    self._at.pop(worker, None)
                    self._actions.append(Release(task, worker))

    def _begin(self, now: float) -> None:
        room = min(len(self.idle), self._limit() - len(self.running))
        # One more than there is room for: whether a task waits decides on sizes.
        while len(self._queue) <= room and (planned := self._next()) is not None:
            self._queue.append(planned)
        if self._deciding and self.fixed is None:
            return  # How many workers a task gets depends on how many tasks there are for them.
        ready = int(min(len(self._queue), self._limit() - len(self.running)))
        for size in allotment.sizes(ready, len(self.idle), self.most, self.fixed):
            planned = self._queue.popleft()
            task = self._open(planned, size, now)
            self._place(task, size, self._holders.get(planned.trial, ""))

    def _share(self, now: float) -> None:
        """All workers train what the tasks have in common, before any task begins."""
        if not self.running and self.idle:
            workers = min(len(self.idle), self.most)
            self._place(self._open_shared(workers, now), workers)
        self._grow()

    def _lead(self, now: float) -> None:
        """All workers do the first task, before any other begins."""
        if not self.running and self.idle and (planned := self._next()) is not None:
            workers = min(len(self.idle), self.fixed or self.most)
            self._place(self._open(planned, workers, now), workers)
        if self.fixed is None:
            self._grow()

    def _open_shared(self, workers: int, now: float, *, adopt: bool = False) -> str:
        assignment = pool_stretches.shared_training(self.assignment, workers)
        self.running[assignment.task] = Running(None, assignment, workers, now)
        self._actions.append(Open(assignment, adopt))
        return assignment.task

    def _grow(self) -> None:
        while self.idle and (task := allotment.growing(self._crews(), self.most)) is not None:
            self._want(task, self.running[task].wanted + 1)
            self._place(task, 1)

    def _shrink(self) -> None:
        """A task waits, and another has workers to give: one at a time."""
        crews = self._crews()
        shrinking = any(crew.there > crew.wanted for crew in crews.values())
        if self.idle or shrinking or len(self.running) >= self._limit():
            return
        task = allotment.giving(crews)
        if task is not None:
            self._want(task, self.running[task].wanted - 1)

    def _collect(self, now: float) -> None:
        """All tasks have ended: one worker puts their files together, or the job has failed."""
        table = self.table
        table.stop_the_rest()
        if not table.counts["Succeeded"]:
            first = next((row for row in table.rows.values() if row.state == "Failed"), None)
            detail = f"; the first of them: {first.name}: {first.message}" if first else ""
            message = f"none of {len(table.rows)} tasks succeeded{detail}"
            self.failure = Failure(reason=conditions.NO_TASK_SUCCEEDED, message=message)
            self._close()
            return
        best = table.standing.best
        holder = "" if best is None else self._holders.get(best, "")
        if holder and holder not in self.idle and now < self.moved + HOLDER_SECONDS:
            self._holder_until = self.moved + HOLDER_SECONDS
            return
        if not self.idle:
            return
        collect = Collect(
            best="" if best is None else table.rows[best].name,
            pareto=tuple(table.rows[trial].name for trial in table.standing.front),
            objectives=tuple(self.assignment.tasks.get("objectives") or ()),
            rows=rows.pack([table.rows[trial] for trial in sorted(table.rows)]),
        )
        assignment = pool_stretches.collecting(self.assignment, collect)
        self.running[assignment.task] = Running(None, assignment, 1, now)
        self._actions.append(Open(assignment))
        self._place(assignment.task, 1, holder)

    # Details.

    def _next(self) -> Planned | None:
        """The next stretch to begin; None: there is none for now, or it is being worked out."""
        if not self._deciding and not self.schedule.undecided:
            return self.schedule.next()
        if not self._deciding:
            self._deciding = True
            self._actions.append(Decide())
        return None

    def _limit(self) -> float:
        return self.assignment.tasks.get("parallelism") or math.inf

    def _budget(self, name: str) -> float:
        found = self.assignment.tasks.get(name)
        if found is None:
            return RETRIES if name == "maxRetries" else math.inf
        return float(found)

    def _crews(self) -> dict[str, Crew]:
        return {task: running.crew() for task, running in self.running.items()}

    def _want(self, task: str, workers: int) -> None:
        self.running[task].wanted = workers
        self._actions.append(Resize(task, workers))

    def _place(self, task: str, count: int, prefer: str = "") -> None:
        """Idle workers go to a task."""
        waiting = [(index, worker) for worker, index in self.idle.items()]
        for worker in allotment.pick(waiting, count, prefer):
            self._put(worker, task)
            self._actions.append(Place(worker, task))

    def _put(self, worker: str, task: str) -> None:
        self.idle.pop(worker, None)
        before = self._at.get(worker)
        if before in self.running:
            self.running[before].workers.discard(worker)
        self._at[worker] = task
        self.running[task].workers.add(worker)

    def _take(self, task: str) -> Planned | None:
        """The stretch of this key out of those that wait: an earlier coordinator began it."""
        name = task.removeprefix(f"{self.assignment.pool}/")
        for planned in self._queue:
            if planned.name == name != task and not self.over:
                self._queue.remove(planned)
                return planned
        return None

    def _open(self, planned: Planned, workers: int, now: float, *, adopt: bool = False) -> str:
        """Begin a stretch; the key of its group."""
        assignment = pool_stretches.task(self.assignment, planned, workers)
        self.running[assignment.task] = Running(planned, assignment, workers, now)
        self.table.begin(planned)
        self._actions.append(Open(assignment, adopt))
        return assignment.task

    def _end(self, task: str, now: float) -> Running | None:
        """A group is no more; what it has been through counts for the pool."""
        self.spent.mark(now, self.running, self.idle)
        running = self.running.pop(task, None)
        self.moved = now
        if running is not None:
            self.spent.add(running.report)
            if running.report is not None and running.report.progress is not None:
                self.last_loss = running.report.progress.loss
        return running

    def _abort(self, task: str, failure: Failure, now: float) -> None:
        self._actions.append(Close(task, failure.reason, failure.message))
        self.failed(task, failure, now)

    def _blame(self, task: str, last_end: str, now: float) -> None:
        """A worker's process ended by what it did at this task."""
        reason = OOM_KILLED if last_end == OOM_KILLED else conditions.WORKER_LOST
        remedy = (
            "raise the memory limit in spec.template.spec.containers, or make the task smaller"
            if reason == OOM_KILLED
            else "see the log of its worker"
        )
        message = f"the worker's process ended with {last_end}; {remedy}"
        self._abort(task, Failure(reason=reason, message=message), now)

    def _done(
        self, planned: Planned, result: Mapping[str, Any], seconds: float, workers: int = 0
    ) -> None:
        """A stretch has its result."""
        self.schedule.tell(planned.number, self.table.done(planned, result, seconds, workers))
        self._check_failures()

    def _check_failures(self) -> None:
        failed, most = self.table.counts["Failed"], self._budget("maxFailedTasks")
        if failed > most:
            # Of an earlier coordinator's failures only the number may be left.
            newest = (self.table.rows[trial] for trial in reversed(self.table.ended))
            last = next((row for row in newest if row.state == "Failed"), None)
            detail = "" if last is None else f"; the last: {last.name}: {last.message}"
            message = f"{failed} tasks failed, more than spec.tasks.maxFailedTasks ({most:.0f})"
            message += detail
            self.failure = Failure(reason=conditions.TOO_MANY_FAILED_TASKS, message=message)
