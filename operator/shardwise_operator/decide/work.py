"""One decision about a job that is accepted and has not ended: the policies put together.

Reads top to bottom: has it ended, is it suspended, what failed, does it train, what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from shardwise.api import conditions as c
from shardwise_operator.actions import (
    Action,
    CloseTask,
    CreatePod,
    CreateService,
    Decision,
    DeletePod,
)
from shardwise_operator.decide import diagnosis, pool
from shardwise_operator.decide.acceptance import Acceptance
from shardwise_operator.decide.conditions import Conditions, format_time
from shardwise_operator.decide.deadlines import active_seconds, deadline, stall_at
from shardwise_operator.decide.events import news, state_events
from shardwise_operator.decide.failures import (
    PodFailure,
    bad_ends,
    crash_loops,
    newest_failure,
    of_one_worker,
    pod_failure,
)
from shardwise_operator.decide.outcome import Failed, Succeeded, Wait, outcome
from shardwise_operator.decide.pods import surplus, unheeded, unreachable, vacant_indices
from shardwise_operator.decide.recovery import recovery_status, set_checkpointed
from shardwise_operator.decide.restarts import NOTED_POLL, obsolete, restarts, stall_noted
from shardwise_operator.decide.status import (
    code_status,
    compression_status,
    failure_status,
    finished_progress,
    last_failure,
    progress_status,
    result_status,
    tidy,
    trained,
    without_eta,
    workers_status,
)
from shardwise_operator.decide.suspension import stuck, suspension
from shardwise_operator.decide.task import task_actions
from shardwise_operator.observe import CreationError, Observed, PodView

ETA_STATES = ("Running", "Succeeded")
"""In which the remaining time that was last told still says something."""
CONFIG_MAP_POLL = timedelta(seconds=5)
SLOW_POLL = timedelta(seconds=30)
"""While a pod does not start: what its Events say may be another thing by now."""
UNSETTLED_POLL = timedelta(seconds=2)


def invalid(observed: Observed, accepted: Acceptance) -> Decision:
    """The spec cannot be worked on, and nothing has been begun."""
    # What is wrong may be its code, or what the API server says, which nothing tells of.
    waits = [CONFIG_MAP_POLL] if observed.configmap is not None else []
    waits += [error.retry_at - observed.now for error in observed.creation_errors]
    old = observed.job.status
    conditions = Conditions(old.get("conditions"), observed.job.generation, observed.now)
    conditions.set(c.ACCEPTED, False, accepted.reason, accepted.message)
    status = tidy(
        {
            "conditions": conditions.listed(),
            "observedGeneration": observed.job.generation,
            "state": "Invalid",
            "reason": accepted.reason,
            "message": accepted.message,
        }
    )
    return Decision(
        actions=state_events(old, status),
        status=status,
        requeue_after=min(waits, default=None),
        why=(f"the spec is not accepted: {accepted.message}",),
    )


class Work:
    """One decision in the making."""

    def __init__(self, observed: Observed, accepted: Acceptance) -> None:
        self.observed = observed
        self.accepted = accepted
        self.old: Mapping[str, Any] = observed.job.status
        self.report = observed.report
        self.generation = max(
            (self.old.get("workers") or {}).get("generation") or 0,
            self.report.generation if self.report else 0,
        )
        self.conditions = Conditions(
            self.old.get("conditions"), observed.job.generation, observed.now
        )
        self.was_running = self.conditions.true_since(c.RUNNING) is not None
        self.pool = pool.is_pool(observed, accepted)
        self.failures = (
            *bad_ends(observed.pods, observed.now),
            *crash_loops(observed.pods, observed.report),
        )
        self.restarts: Mapping[str, Any] | None = self.old.get("restarts")
        self.aside: diagnosis.Trouble | None = None
        self.actions: list[Action] = []
        self.requeues: list[timedelta] = []
        self.why: list[str] = []
        self.progress = self.old.get("progress")
        self.tasks: Mapping[str, Any] | None = None
        if self.pool:
            self.failures = tuple(map(of_one_worker, self.failures))
            self.tasks = pool.tasks_status(self.report, self.old)
        if self.report is not None and self.report.progress is not None:
            found = pool.pool_progress(self.report) if self.pool else None
            self.progress = found or progress_status(self.report.progress)

    @property
    def step(self) -> int:
        return int((self.progress or {}).get("step") or 0)

    def decide(self) -> Decision:
        self.conditions.set(
            c.ACCEPTED, self.accepted.accepted, self.accepted.reason, self.accepted.message
        )
        end = outcome(self.observed, self.failures)
        if isinstance(end, Succeeded):
            return self._succeed(end)
        if isinstance(end, Failed):
            return self._fail(end)
        if self._suspended():
            return self._suspend()
        if self.conditions.true_since(c.SUSPENDED) is not None:
            self.conditions.set(c.SUSPENDED, False, c.RESUMED, "spec.suspend is false again")
        spent = self._replace(closing=isinstance(end, Wait))
        if spent is not None:
            return self._fail(spent)
        trains = self._trains()
        if trains:
            self.conditions.set(c.RUNNING, True, c.TRAINING, self._training())
        limit = deadline(self.observed, self.accepted.job, self.conditions)
        if limit is not None:
            if limit.at <= self.observed.now:
                return self._fail(Failed(reason=limit.reason, message=self._late(limit.message)))
            self.requeues.append(limit.at - self.observed.now)
        if isinstance(end, Wait):
            self.why.append(f"waiting {end.why}")
            self.requeues.append(end.time)
        trouble = self._pods(closing=isinstance(end, Wait) or self._finishing())
        self.actions += task_actions(self.observed, self.accepted, self.generation, draining="")
        return self._train(trouble) if trains else self._wait(trouble)

    # Workers.

    def _replace(self, *, closing: bool) -> Failed | None:
        """Ended pods make room for others; the budget that is spent by it, if it is."""
        policy = self.accepted.restart_policy
        after = restarts(self.observed, policy, self.failures, self.step)
        self.restarts = after.status
        if after.exceeded is not None:
            return after.exceeded
        if not closing:
            self._delete(after.replace, "has ended and is replaced")
        if after.requeue is not None:
            self.requeues.append(after.requeue)
        return None

    def _pods(self, *, closing: bool) -> diagnosis.Trouble | None:
        """As many pods as are wanted; what stands in their way."""
        observed = self.observed
        wanted = self.accepted.desired + self.accepted.standby
        open_ = [error for error in observed.creation_errors if error.retry_at > observed.now]
        blocked = [error for error in open_ if error.blocks]
        missing = self._missing_configmap(wanted)
        if not self.accepted.creatable and vacant_indices(observed, wanted):
            missing = diagnosis.Trouble(reason=c.INVALID_SPEC, message=self.accepted.message)
            self.why.append("no pod is created: none can be made of the spec")
        elif missing is not None:
            self.requeues.append(CONFIG_MAP_POLL)
        elif blocked:
            self.requeues.append(min(error.retry_at for error in blocked) - observed.now)
        elif not closing:
            self._create(vacant_indices(observed, wanted))
            if open_ and vacant_indices(observed, wanted):
                self.requeues.append(NOTED_POLL)  # under another name
        if not closing:
            extra = surplus(observed, self.accepted.desired, self.accepted.standby)
            self._delete(extra, "is not wanted any more")
            self._delete(unreachable(observed), "is on a dead node")
            late, wait = unheeded(observed)
            self._delete(late, "was given to a node that takes no note of it")
            slow = [diagnosis.slow_in(pod, observed.now) for pod in observed.pods]
            self.requeues += [left or SLOW_POLL for left in slow if left is not None]
            if wait is not None:
                self.requeues.append(wait)
            self._service(open_)
        if not observed.settled:
            self.requeues.append(UNSETTLED_POLL)
        return (
            missing
            or diagnosis.creation_trouble(blocked)
            or diagnosis.startup_trouble(observed.pods, observed.now, observed.pod_words)
            or diagnosis.names_taken(observed, open_)
            or self.aside
        )

    def _service(self, errors: Sequence[CreationError]) -> None:
        """A Service that could not be made is told of, and made later."""
        aside = [error for error in errors if not error.blocks and error.taken is None]
        self.aside = diagnosis.creation_trouble(aside)
        if aside:
            self.requeues.append(min(error.retry_at for error in aside) - self.observed.now)
        elif self.observed.service_failed and CreateService() not in self.actions:
            self.actions.append(CreateService())
            self.why.append("the Service is tried again")

    def _create(self, vacant: tuple[int, ...]) -> None:
        if not vacant:
            return
        if not self.accepted.trainer:
            self.why.append("no pod is created: the accepted spec.trainer is not known any more")
            return
        if not self.observed.service_exists:
            self.actions.append(CreateService())
        for index in vacant:
            self.actions.append(CreatePod(index=index, trainer=self.accepted.trainer))
            self.why.append(f"index {index} is free")

    def _delete(self, pods: Iterable[PodView], why: str) -> None:
        asked = {action.uid for action in self.actions if isinstance(action, DeletePod)}
        for pod in pods:
            if pod.uid not in asked:
                self.actions.append(DeletePod(name=pod.name, uid=pod.uid))
                self.why.append(f"pod {pod.name} {why}")

    def _missing_configmap(self, wanted: int) -> diagnosis.Trouble | None:
        found = self.observed.configmap
        if found is None or found.sha256 is not None or not vacant_indices(self.observed, wanted):
            return None
        return diagnosis.missing_configmap(found.name, self.observed.job.namespace, found.problem)

    def _finishing(self) -> bool:
        """Workers end well: the result is about to be told."""
        if self.report is not None and self.report.state == "finished":
            return True
        return any(pod.told.get("outcome") == "succeeded" for pod in self._unexplained())

    def _unexplained(self) -> list[PodView]:
        blamed = {failure.pod.uid for failure in self.failures}
        return [pod for pod in self.observed.pods if pod.succeeded and pod.uid not in blamed]

    # Training, or waiting for it.

    def _trains(self) -> bool:
        there = any(not pod.ended for pod in self.observed.pods)
        report = self.report
        if report is None or report.state == "failed":
            return self.was_running and there
        if self.pool and self.observed.settled:
            return pool.works(self.observed, was_running=self.was_running)
        if report.state == "waiting":
            # Just after the operator's start, workers train on that it has not heard of yet.
            return self.was_running and there and not self.observed.settled
        return report.state in ("training", "finished") or self.was_running

    def _training(self) -> str:
        if self.pool:
            return pool.at_work(self.report, self.old)
        members = len(self.report.members) if self.report else 0
        stage = str((self.progress or {}).get("stage") or "")
        message = f"generation {self.generation} trains"
        if stage:
            message = f"{stage}, generation {self.generation}"
        return message + (f" on {members} workers" if members else "")

    def _train(self, trouble: diagnosis.Trouble | None) -> Decision:
        stalled = self._stall()
        if isinstance(stalled, Failed):
            return self._fail(stalled)
        self._set_degraded(trouble)
        self.why.append(self._training())
        if self.observed.idle_since is not None:
            self.requeues.append(pool.pause_left(self.observed.idle_since, self.observed.now))
        if stalled:
            self.conditions.set(c.PROGRESSING, False, c.STALLED, stalled)
            return self._decision("Running", c.STALLED, stalled)
        self.conditions.set(c.PROGRESSING, True, c.TRAINING, "the workers report steps")
        return self._decision("Running", c.TRAINING, self._training())

    def _stall(self) -> str | Failed:
        """Why the training counts as stalled, empty where it does not. Noted first, and then all
        workers are replaced."""
        condemned = obsolete(self.restarts, self.observed.pods)
        at = stall_at(self.observed, self.accepted.job, self.conditions)
        job = self.accepted.job
        seconds = job.spec.stall_timeout_seconds if job else None
        message = (
            f"no step was done after step {self.step} for spec.stallTimeoutSeconds ({seconds}); "
            "the workers are restarted; raise the limit if one step may take that long"
        )
        if condemned:
            self._delete(condemned, "is restarted, because the training stalled")
            return message
        if at is None or not self.observed.settled:
            return ""
        if at > self.observed.now:
            self.requeues.append(at - self.observed.now)
            return ""
        policy = self.accepted.restart_policy
        self.restarts, spent = stall_noted(self.restarts, self.observed, policy, self.step)
        self.requeues.append(NOTED_POLL)
        return spent or message

    def _set_degraded(self, trouble: diagnosis.Trouble | None) -> None:
        refused = self._refused()
        if refused is not None:
            self.conditions.set(c.DEGRADED, True, c.REFUSED_WORKER, refused.message)
            return
        short = pool.shortage(self.observed, self.accepted) if self.pool else self._short()
        if isinstance(short, timedelta):
            self.requeues.append(short)
        elif short:
            lost = diagnosis.lost_nodes(self.observed.pods)
            told = [short, trouble.message if trouble else "", lost]
            reason = trouble.reason if trouble else c.NODE_LOST if lost else c.FEWER_WORKERS
            self.conditions.set(c.DEGRADED, True, reason, "; ".join(filter(None, told)))
        elif short is not None and self.aside is not None:
            self.conditions.set(c.DEGRADED, True, self.aside.reason, self.aside.message)
        elif short is not None:
            message = f"all {self.accepted.desired} workers {'are there' if self.pool else 'train'}"
            self.conditions.set(c.DEGRADED, False, c.ALL_WORKERS, message)

    def _short(self) -> str | None:
        """What a group lacks, empty where it lacks nothing; None where nobody knows."""
        members, desired = len(self.report.members) if self.report else None, self.accepted.desired
        if members is None or (members < desired and not self.observed.settled):
            return None
        return "" if members >= desired else f"{members} of {desired} workers train"

    def _refused(self) -> PodFailure | None:
        return next((failure for failure in self.failures if failure.kind == "refused"), None)

    def _wait(self, trouble: diagnosis.Trouble | None) -> Decision:
        report, desired = self.report, self.accepted.desired
        connected = len(report.connected) if report else 0
        begun = self.was_running or self.conditions.reason(c.RUNNING) == c.RECOVERING
        message = f"{connected} of {desired} workers are connected"
        if report is not None and report.waiting:
            message = report.waiting
        if begun and connected < self.accepted.least:
            message += "; to go on with fewer, lower spec.workers.min"
        lost = diagnosis.lost_nodes(self.observed.pods)
        message += f"; {lost}" if lost else ""
        trouble = trouble or self._failing()
        if trouble is not None:
            state, reason = "Waiting", trouble.reason
            message = f"{trouble.message} ({message})" if begun else trouble.message
        elif begun:
            state, reason = "Recovering", c.RECOVERING
        else:
            running = any(pod.running or pod.ended for pod in self.observed.pods)
            state, reason = "Starting" if running else "Pending", c.WAITING_FOR_WORKERS
        self.conditions.set(c.RUNNING, False, c.RECOVERING if begun else reason, message)
        if begun:
            self.conditions.set(c.PROGRESSING, False, c.RECOVERING, message)
            self.conditions.set(c.DEGRADED, True, c.RECOVERING, message)
        self.why.append(message)
        return self._decision(state, reason, message)

    def _failing(self) -> diagnosis.Trouble | None:
        """A worker that ended and is to be replaced, while the job cannot train without it."""
        failure = self._refused() or newest_failure(self.failures)
        if failure is None:
            return None
        count = int((self.restarts or {}).get("inWindow") or 0)
        message = f"{failure.message}; it is replaced"
        if failure.kind == "counted":
            message += f" (restart {count} of {self.accepted.restart_policy.max_restarts})"
        return diagnosis.Trouble(reason=failure.reason, message=message)

    # Suspension.

    def _suspended(self) -> bool:
        spec = self.observed.job.manifest.get("spec") or {}
        if spec.get("suspend") is True:
            return True
        # A drain that has begun is carried through: its workers are on their way out.
        return self.observed.asked is not None and self.observed.asked.draining

    def _suspend(self) -> Decision:
        message = "spec.suspend is true: the workers finish their step and leave"
        self.conditions.set(c.RUNNING, False, c.SUSPENDING, message)
        self.conditions.set(c.PROGRESSING, False, c.SUSPENDING, message)
        plan = suspension(self.observed, self.conditions.false_since(c.RUNNING))
        self._delete(plan.delete, "has left, or is not waited for any longer")
        if plan.requeue is not None:
            self.requeues.append(plan.requeue)
        if not plan.done:
            if plan.drain:
                self.actions += task_actions(
                    self.observed, self.accepted, self.generation, draining="the job is suspended"
                )
            if not self.observed.settled:
                self.requeues.append(UNSETTLED_POLL)
            self.why.append(f"{plan.left} workers are on their way out")
            return self._decision("Suspending", c.SUSPENDING, message)
        dying = stuck(self.observed.pods)
        message = "spec.suspend is true: the job has no workers" + (
            f" ({dying} pods are still being deleted)" if dying else ""
        )
        message += f"; set it to false to go on (shardwise resume {self.observed.job.name})"
        self._close(c.SUSPENDED, message)
        self.conditions.set(c.SUSPENDED, True, c.SUSPENDED, message)
        self.conditions.set(c.DEGRADED, False, c.SUSPENDED, message)
        self.why.append(message)
        return self._decision("Suspended", c.SUSPENDED, message)

    # Ends.

    def _late(self, message: str) -> str:
        """A deadline's message, with what the job was waiting for."""
        if self.old.get("state") not in ("Waiting", "Starting", "Pending", "Recovering"):
            return message
        return f"{message}; last: {self.old.get('reason')}: {self.old.get('message')}"

    def _succeed(self, end: Succeeded) -> Decision:
        result, compressed = result_status(end.result, end.pod), compression_status(end.result)
        message = trained(result, compressed.get("compression"))
        if self.pool:
            self.tasks = pool.tasks_at_the_end(self.tasks, end.result)
            message = pool.came_to(self.tasks)
        self.progress = finished_progress(
            self.progress, int(result.get("steps") or 0), self.observed.now
        )
        for type_ in (c.RUNNING, c.PROGRESSING, c.DEGRADED, c.FAILED):
            self.conditions.set(type_, False, c.COMPLETED, message)
        self.conditions.set(c.SUCCEEDED, True, c.COMPLETED, message)
        self.why.append(f"{end.pod or 'a worker'} left the result")
        return self._ended("Succeeded", c.COMPLETED, message, {"result": result} | compressed)

    def _fail(self, end: Failed) -> Decision:
        self.actions.clear()
        for type_ in (c.RUNNING, c.PROGRESSING, c.SUCCEEDED):
            self.conditions.set(type_, False, end.reason, end.message)
        self.conditions.set(c.FAILED, True, end.reason, end.message)
        self.why.append(end.message)
        failure = failure_status(end, self.observed.now)
        return self._ended("Failed", end.reason, end.message, {"lastFailure": failure})

    def _ended(
        self,
        state: Literal["Succeeded", "Failed"],
        reason: str,
        message: str,
        extra: Mapping[str, Any],
    ) -> Decision:
        self._close(reason, message)
        self.requeues = [NOTED_POLL]  # what is left of the pods is seen to once this is written
        return self._decision(
            state, reason, message, {"completionTime": format_time(self.observed.now), **extra}
        )

    def _close(self, reason: str, message: str) -> None:
        if self.report is not None:
            self.actions.append(CloseTask(reason=reason, message=message))

    # What is told.

    def _decision(
        self, state: str, reason: str, message: str, extra: Mapping[str, Any] | None = None
    ) -> Decision:
        observed, job = self.observed, self.accepted.job
        begun = bool(self.old.get("startTime")) or bool(observed.pods)
        begins = any(isinstance(action, CreatePod) for action in self.actions)
        start = self.old.get("startTime") or (
            format_time(observed.now) if begun or begins else None
        )
        recovered = recovery_status(self.report, self.old)
        spec = observed.job.manifest.get("spec") or {}
        set_checkpointed(
            self.conditions,
            recovered.get("checkpoint"),
            # What a pool must not lose are its tasks' results.
            wanted=bool(start)
            and not self.pool
            and bool(job.spec.checkpoint if job else spec.get("checkpoint")),
        )
        wanted = 0 if state == "Suspended" else self.accepted.desired + self.accepted.standby
        status: dict[str, Any] = {
            "conditions": self.conditions.listed(),
            "observedGeneration": observed.job.generation,
            "state": state,
            "reason": reason,
            "message": message,
            "startTime": start,
            "activeSeconds": active_seconds(self.old, self.conditions, observed.now),
            "progress": without_eta(self.progress) if state not in ETA_STATES else self.progress,
            "workers": workers_status(observed, self.accepted, self.generation, wanted),
            "tasks": self.tasks,
            "restarts": self.restarts,
            "lastFailure": last_failure(
                self.old,
                (*self.failures, *map(pod_failure, unreachable(observed))),
                observed.now,
            ),
            "code": code_status(self.old, observed.configmap) if start else None,
            # Until the first pod is asked for, the spec may still be corrected.
            "specSha256": self.accepted.spec_sha256 if start else None,
            **recovered,
            **(extra or {}),
        }
        tidied = tidy(status)
        return Decision(
            actions=(*self.actions, *news(self.old, tidied)),
            status=tidied,
            requeue_after=min(self.requeues) if self.requeues else None,
            why=tuple(self.why),
        )
