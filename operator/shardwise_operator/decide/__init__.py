"""The decision: what to do and to tell, from what is observed, and from nothing else.

The middle step of a reconcile. Pure: no I/O, no clock, no memory; the same observation gives the
same decision, and once its actions are done and its status is written, deciding again gives no
more actions. One module beside this one per policy.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    EmitEvent,
    OpenTask,
)
from shardwise_operator.decide import diagnosis
from shardwise_operator.decide.acceptance import Acceptance, accept
from shardwise_operator.decide.conditions import Conditions, condition_true_since, format_time
from shardwise_operator.decide.deadlines import deadline
from shardwise_operator.decide.outcome import Failed, Succeeded, Wait, outcome
from shardwise_operator.decide.pods import vacant_indices
from shardwise_operator.decide.status import (
    failure_status,
    finished_progress,
    progress_status,
    result_status,
    tidy,
    workers_status,
)
from shardwise_operator.observe import Observed

CONFIG_MAP_POLL = timedelta(seconds=5)
UNSETTLED_POLL = timedelta(seconds=2)

__all__ = ["Decision", "decide"]


def decide(observed: Observed) -> Decision:
    """What follows from what is observed."""
    old = observed.job.status
    if observed.job.deleting:
        return _only_cleanup(observed, "the job is being deleted", delete_running=False)
    for type_ in (c.SUCCEEDED, c.FAILED):
        if condition_true_since(old.get("conditions"), type_) is not None:
            return _only_cleanup(
                observed, f"the job has ended: {type_}", delete_running=type_ == c.FAILED
            )
    accepted = accept(observed)
    if not accepted.accepted and not accepted.started:
        return _invalid(observed, accepted)
    return _Work(observed, accepted).decide()


def _only_cleanup(observed: Observed, why: str, *, delete_running: bool) -> Decision:
    """After the end nothing is created; what still runs for a failed job is removed."""
    actions: list[Action] = []
    status = observed.job.status
    if observed.report is not None:
        actions.append(
            CloseTask(
                reason=status.get("reason") or "JobDeleted",
                message=status.get("message") or "the job was deleted",
            )
        )
    if delete_running:
        actions += _running_pods(observed)
    return Decision(actions=tuple(actions), status=None, requeue_after=None, why=(why,))


def _running_pods(observed: Observed) -> list[Action]:
    return [
        DeletePod(name=pod.name, uid=pod.uid)
        for pod in observed.pods
        if not pod.ended and not pod.deleting
    ]


def _invalid(observed: Observed, accepted: Acceptance) -> Decision:
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
        actions=_events(old, status),
        status=status,
        requeue_after=None,
        why=(f"the spec is not accepted: {accepted.message}",),
    )


class _Work:
    """One decision about a job that is accepted and has not ended."""

    def __init__(self, observed: Observed, accepted: Acceptance) -> None:
        self.observed = observed
        self.accepted = accepted
        self.old: Mapping[str, Any] = observed.job.status
        self.report = observed.report
        self.generation = max(
            int((self.old.get("workers") or {}).get("generation") or 0),
            self.report.generation if self.report else 0,
        )
        self.conditions = Conditions(
            self.old.get("conditions"), observed.job.generation, observed.now
        )
        self.actions: list[Action] = []
        self.requeues: list[timedelta] = []
        self.why: list[str] = []
        self.progress = self.old.get("progress")
        if self.report is not None and self.report.progress is not None:
            self.progress = progress_status(self.report.progress)

    def decide(self) -> Decision:
        self.conditions.set(
            c.ACCEPTED, self.accepted.accepted, self.accepted.reason, self.accepted.message
        )
        end = outcome(self.observed, self.accepted.desired, self.generation)
        if isinstance(end, Succeeded):
            return self._succeed(end)
        if isinstance(end, Failed):
            return self._fail(end)
        if isinstance(end, Wait):
            self.why.append(f"waiting {end.why}")
            self.requeues.append(end.time)
        running_since = self.conditions.true_since(c.RUNNING)
        limit = deadline(self.observed, self.accepted.job, running_since)
        if limit is not None:
            if limit.at <= self.observed.now:
                return self._fail(Failed(reason=limit.reason, message=self._late(limit.message)))
            self.requeues.append(limit.at - self.observed.now)
        return self._train() if self.generation > 0 else self._start(closing=end is not None)

    def _train(self) -> Decision:
        self._open_task()
        self.conditions.set(c.RUNNING, True, c.TRAINING, "the workers train")
        self.conditions.set(c.PROGRESSING, True, c.TRAINING, "the workers report steps")
        self.why.append(f"generation {self.generation} trains")
        return self._decision("Running", c.TRAINING, "the workers train")

    def _start(self, *, closing: bool) -> Decision:
        missing = self._missing_configmap()
        vacant = vacant_indices(self.observed, self.accepted.desired, self.generation)
        if missing is not None:
            self.requeues.append(CONFIG_MAP_POLL)
            return self._waiting(missing)
        blocked = [e for e in self.observed.creation_errors if e.retry_at > self.observed.now]
        if blocked:
            self.requeues.append(min(e.retry_at for e in blocked) - self.observed.now)
        elif not closing:
            self._create(vacant)
        if not self.observed.settled:
            self.requeues.append(UNSETTLED_POLL)
        self._open_task()
        trouble = diagnosis.creation_trouble(blocked) or diagnosis.startup_trouble(
            self.observed.pods
        )
        if trouble is not None:
            return self._waiting(trouble)
        connected = len(self.report.connected) if self.report else 0
        message = f"{connected} of {self.accepted.desired} workers are connected"
        self.conditions.set(c.RUNNING, False, c.WAITING_FOR_WORKERS, message)
        running = any(pod.running or pod.ended for pod in self.observed.pods)
        self.why.append(message)
        return self._decision("Starting" if running else "Pending", c.WAITING_FOR_WORKERS, message)

    def _create(self, vacant: tuple[int, ...]) -> None:
        if not self.accepted.trainer:
            self.why.append("no pod is created: the accepted spec.trainer is not known any more")
            return
        if not self.observed.service_exists:
            self.actions.append(CreateService())
        for index in vacant:
            self.actions.append(CreatePod(index=index, trainer=self.accepted.trainer))
            self.why.append(f"worker {index} has no pod")

    def _open_task(self) -> None:
        if self.report is None and self.accepted.trainer:
            self.actions.append(
                OpenTask(
                    workers=self.accepted.desired,
                    trainer=self.accepted.trainer,
                    generation_floor=self.generation,
                )
            )

    def _missing_configmap(self) -> diagnosis.Trouble | None:
        found = self.observed.configmap
        complete = len(self.observed.pods) >= self.accepted.desired
        if found is None or found.sha256 is not None or complete:
            return None
        return diagnosis.Trouble(
            reason=c.CONFIG_MAP_MISSING,
            message=f"spec.trainer.codeFrom.configMap: there is no ConfigMap {found.name} in "
            f"namespace {self.observed.job.namespace}; create it (kubectl create configmap "
            f"{found.name} --from-file=FILE.py), and the job starts by itself",
        )

    def _waiting(self, trouble: diagnosis.Trouble) -> Decision:
        self.conditions.set(c.RUNNING, False, trouble.reason, trouble.message)
        self.why.append(trouble.message)
        return self._decision("Waiting", trouble.reason, trouble.message)

    def _late(self, message: str) -> str:
        """A deadline's message, with what the job was waiting for."""
        if self.old.get("state") not in ("Waiting", "Starting", "Pending"):
            return message
        return f"{message}; last: {self.old.get('reason')}: {self.old.get('message')}"

    def _succeed(self, end: Succeeded) -> Decision:
        result = result_status(end.result)
        message = _trained(result)
        self.progress = finished_progress(
            self.progress, int(result.get("steps") or 0), self.observed.now
        )
        self.conditions.set(c.RUNNING, False, c.COMPLETED, message)
        self.conditions.set(c.PROGRESSING, False, c.COMPLETED, message)
        self.conditions.set(c.FAILED, False, c.COMPLETED, message)
        self.conditions.set(c.SUCCEEDED, True, c.COMPLETED, message)
        self.why.append("all workers ended well, and worker 0 left its result")
        return self._ended("Succeeded", c.COMPLETED, message, {"result": result})

    def _fail(self, end: Failed) -> Decision:
        for type_ in (c.RUNNING, c.PROGRESSING, c.SUCCEEDED):
            self.conditions.set(type_, False, end.reason, end.message)
        self.conditions.set(c.FAILED, True, end.reason, end.message)
        self.actions += _running_pods(self.observed)
        self.why.append(end.message)
        return self._ended("Failed", end.reason, end.message, {"lastFailure": failure_status(end)})

    def _ended(
        self,
        state: Literal["Succeeded", "Failed"],
        reason: str,
        message: str,
        extra: Mapping[str, Any],
    ) -> Decision:
        if self.report is not None:
            self.actions.append(CloseTask(reason=reason, message=message))
        self.requeues.clear()
        return self._decision(
            state, reason, message, {"completionTime": format_time(self.observed.now), **extra}
        )

    def _decision(
        self, state: str, reason: str, message: str, extra: Mapping[str, Any] | None = None
    ) -> Decision:
        observed, job = self.observed, self.accepted.job
        begun = bool(self.old.get("startTime")) or bool(observed.pods)
        begins = any(isinstance(action, CreatePod) for action in self.actions)
        start = self.old.get("startTime") or (
            format_time(observed.now) if begun or begins else None
        )
        status: dict[str, Any] = {
            "conditions": self.conditions.listed(),
            "observedGeneration": observed.job.generation,
            "state": state,
            "reason": reason,
            "message": message,
            "startTime": start,
            "progress": self.progress,
            "workers": workers_status(
                observed,
                self.accepted.desired,
                self.generation,
                (job.spec.workers.min, job.spec.workers.most) if job else None,
            ),
            "code": self._code() if start else None,
            # Until the first pod is asked for, the spec may still be corrected.
            "specSha256": self.accepted.spec_sha256 if start else None,
            **(extra or {}),
        }
        tidied = tidy(status)
        return Decision(
            actions=(*self.actions, *_events(self.old, tidied)),
            status=tidied,
            requeue_after=min(self.requeues) if self.requeues else None,
            why=tuple(self.why),
        )

    def _code(self) -> Mapping[str, Any] | None:
        """What the workers were made with: known from the first pods on, then left alone."""
        if self.old.get("code"):
            return dict(self.old["code"])
        found = self.observed.configmap
        if found is None or found.sha256 is None:
            return None
        return {"configMap": found.name, "sha256": found.sha256}


def _trained(result: Mapping[str, Any]) -> str:
    """The end in numbers: steps, time, the last metrics."""
    metrics = ", ".join(f"{m['name']} {m['value']}" for m in result.get("metrics") or ())
    line = f"trained {result.get('steps', '?')} steps in {result.get('seconds', '?')} s"
    return f"{line}: {metrics}" if metrics else line


def _events(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Action, ...]:
    """One Event where the state or its reason changes."""
    if (old.get("state"), old.get("reason")) == (new.get("state"), new.get("reason")):
        return ()
    good = new["state"] in ("Pending", "Starting", "Running", "Succeeded")
    return (
        EmitEvent(
            type="Normal" if good else "Warning", reason=new["reason"], message=new["message"]
        ),
    )
