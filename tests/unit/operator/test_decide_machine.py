"""Whatever happens in whatever order: decisions are deterministic, settle, and keep their word."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from operator_world import World, told

from shardwise_operator.actions import CreatePod
from shardwise_operator.decide import decide

indices = st.integers(0, 3)


class JobMachine(RuleBasedStateMachine):
    """Faults and progress at random; a reconcile after each."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(startupDeadlineSeconds=120, activeDeadlineSeconds=300)
        self.ended: str | None = None
        self.begun = False
        self.generations = 0

    def _pod(self, index: int):
        return self.world.pods.get(f"digits-{index}")

    @rule(index=indices)
    def runs(self, index):
        pod = self._pod(index)
        if pod is not None and pod.phase == "Pending":
            self.world.pod(index, phase="Running", node="node1", waiting_reason="")

    @rule(index=indices, why=st.sampled_from(["ErrImagePull", "CreateContainerConfigError"]))
    def is_stuck(self, index, why):
        pod = self._pod(index)
        if pod is not None and pod.phase == "Pending":
            self.world.pod(index, waiting_reason=why)

    @rule(index=indices, code=st.sampled_from([0, 1, 70, 71, 137, 143]))
    def ends(self, index, code):
        pod = self._pod(index)
        if pod is not None and not pod.ended:
            good = told() if code == 0 and index == 0 else ""
            self.world.end_pod(index, code, termination=good)

    @rule(index=indices)
    def vanishes(self, index):
        self.world.pods.pop(f"digits-{index}", None)

    @rule(index=indices)
    def is_being_deleted(self, index):
        if self._pod(index) is not None:
            self.world.pod(index, deleting=True)

    @precondition(lambda self: self.world.report is not None)
    @rule()
    def a_group_forms(self):
        self.generations += 1
        self.world.coordinator(generation=self.generations, state="training")

    @precondition(lambda self: self.world.report is not None)
    @rule()
    def the_task_fails(self):
        self.world.fail_task("WorkerLost", "digits-2")

    @rule()
    def the_operator_restarts(self):
        self.world.report = None
        self.world.failure_seen = None

    @rule(seed=st.integers(0, 3), replicas=st.integers(1, 12))
    def the_spec_changes(self, seed, replicas):
        self.world.raw["spec"]["trainer"]["seed"] = seed
        self.world.raw["spec"]["workers"]["replicas"] = replicas
        self.world.raw["metadata"]["generation"] += 1

    @rule(seconds=st.sampled_from([1, 6, 11, 100]))
    def time_passes(self, seconds):
        self.world.pass_time(seconds)

    @invariant()
    def decisions_settle_and_hold(self):
        world = self.world
        assert decide(world.observed()) == decide(world.observed())
        first = decide(world.observed())
        creates = [action for action in first.actions if isinstance(action, CreatePod)]
        if self.ended or self.begun:
            assert not creates
        assert len(creates) + len(world.pods) <= 12
        world.settle()
        desired = (world.status.get("workers") or {}).get("desired")
        if desired is not None:
            assert len(world.pods) <= max(desired, 1)
            assert {pod.index for pod in world.pods.values()} <= set(range(desired))
        state = world.status["state"]
        if self.ended:
            assert state == self.ended
        if state in ("Succeeded", "Failed"):
            self.ended = state
        generation = (world.status.get("workers") or {}).get("generation", 0)
        self.begun = self.begun or generation > 0


TestJob = JobMachine.TestCase
TestJob.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
