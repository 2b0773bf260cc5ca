"""The machine of the decisions' tests with a pool: whatever happens to its workers, tasks and
operator, decisions settle, counts never go back, and the record goes round through the status."""

from __future__ import annotations

import json
import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from pool_world import PoolWorld
from test_decide_machine import JobMachine

picks = st.integers(0, 7)


class PoolMachine(JobMachine):
    """Tasks are begun and end too, at random."""

    def __init__(self) -> None:
        super().__init__()
        self.world = PoolWorld(
            workers={"replicas": 3, "min": 1, "max": 6, "standby": 1},
            startupDeadlineSeconds=1200,
            activeDeadlineSeconds=3000,
            stallTimeoutSeconds=300,
            restartPolicy={"maxRestarts": 4, "windowSeconds": 600},
        )

    @property
    def pool(self) -> PoolWorld:
        assert isinstance(self.world, PoolWorld)
        return self.world

    def _waiting(self) -> list[int]:
        pool = self.pool
        return [n for n in range(pool.total) if n not in (*pool.succeeded, *pool.failed)]

    def _at_work(self) -> None:
        pool = self.pool
        if pool.report is not None and not self.ended:
            workers = len([pod for pod in pool.pods.values() if pod.living])
            pool.work(*self._waiting()[:workers])

    @rule()
    def pods_run_and_form_a_group(self):
        self._at_work()

    @precondition(lambda self: self.world.report is not None and not self.ended)
    @rule(fails=st.booleans())
    def a_task_ends(self, fails):
        waiting = self._waiting()
        if len(waiting) > 1:  # the last one ends with the job
            (self.pool.failed if fails else self.pool.succeeded).append(waiting[0])
            self._at_work()

    @precondition(lambda self: self.world.report is not None and not self.ended)
    @rule()
    def all_are_between_two_tasks(self):
        self.pool.work(away=len(self.pool.there()))

    @rule(pick=picks)
    def one_raises_in_the_users_code(self, pick):
        # It costs a restart, and no more: the others' tasks may fare better.
        pod = self._pick(pick, running=True)
        if pod is not None:
            self.world.end_pod(pod.index, 70)
            self.counted += 1

    @rule(pick=picks)
    def a_result_is_written(self, pick):
        pod = self._pick(pick, running=True)
        if pod is not None and not self.ended and not self._waiting()[1:]:
            result = self.pool.end()
            message = json.dumps({"outcome": "succeeded", "result": result})
            self.world.end_pod(pod.index, 0, termination=message)

    def teardown(self) -> None:
        status = self.world.status
        tasks = status.get("tasks")
        if tasks:
            counts = [tasks[key] for key in ("pending", "running", "succeeded", "failed")]
            assert sum(counts) + tasks["stopped"] == tasks["total"]
        if tasks and status["state"] not in ("Succeeded", "Failed"):
            # What the status keeps is what a new coordinator is given.
            self.world.restart_operator()
            self.world.settle(rounds=12)
            if self.world.report is not None and self.world.opened is not None:
                assert self.world.opened.record == tasks.get("record", "")
        super().teardown()


TestPool = PoolMachine.TestCase
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
TestPool.settings = settings(
    max_examples=1000 if NIGHTLY else 30, stateful_step_count=25, deadline=None
)
