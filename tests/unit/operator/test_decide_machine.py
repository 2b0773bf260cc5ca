"""Whatever happens in whatever order: decisions are deterministic, settle, and keep their word.

The operator is killed between any two actions, workers fail in every way, nodes die, the spec
changes, and time passes. A reconcile to the fixpoint comes after each.
"""

from __future__ import annotations

import copy
import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from operator_world import World, told

from shardwise.api.types import OptimizationJobStatus
from shardwise_operator.actions import CreatePod
from shardwise_operator.decide import decide
from shardwise_operator.observe import ForeignPod, PodView

picks = st.integers(0, 7)
MOST = 8


class JobMachine(RuleBasedStateMachine):
    """Faults and progress at random; a reconcile after each."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            workers={"replicas": 3, "min": 1, "max": 6, "standby": 1},
            startupDeadlineSeconds=1200,
            activeDeadlineSeconds=3000,
            stallTimeoutSeconds=300,
            restartPolicy={"maxRestarts": 4, "windowSeconds": 600},
        )
        self.ended: str | None = None
        self.counted = 0
        """Failures that the budget may have been spent on."""

    def _pick(self, pick: int, *, running: bool = False) -> PodView | None:
        pods = sorted(self.world.pods.values(), key=lambda pod: pod.index)
        pods = [pod for pod in pods if pod.living and (pod.running or not running)]
        return pods[pick % len(pods)] if pods else None

    # What happens.

    @rule()
    def pods_run_and_form_a_group(self):
        world = self.world
        if world.asked is not None and not world.asked.draining and not self.ended:
            generation = (world.status.get("workers") or {}).get("generation", 0) + 1
            step = (world.status.get("progress") or {}).get("step", 0) + 1
            world.connect(generation, min(step, 20))

    @rule()
    def pods_run(self):
        self.world.run_pods()

    @rule(pick=picks, why=st.sampled_from(["ErrImagePull", "CreateContainerConfigError"]))
    def one_is_stuck(self, pick, why):
        pod = self._pick(pick)
        if pod is not None and pod.phase == "Pending":
            self.world.pod(pod.index, waiting_reason=why)

    @rule(pick=picks, code=st.sampled_from([0, 1, 71, 137, 143]))
    def one_fails(self, pick, code):
        pod = self._pick(pick, running=True)
        if pod is not None:
            self.world.end_pod(pod.index, code)
            self.counted += 1

    @rule(pick=picks)
    def one_raises_in_the_users_code(self, pick):
        # Seldom, because it ends everything.
        pod = self._pick(pick, running=True)
        if pod is not None and self.world.now.second % 7 == 6:
            self.world.end_pod(pod.index, 70)

    @rule(pick=picks)
    def one_is_refused(self, pick):
        pod = self._pick(pick, running=True)
        if pod is not None:
            self.world.end_pod(pod.index, 72)

    @rule(
        pick=picks,
        how=st.sampled_from(
            [
                {"pod_reason": "Evicted"},
                {"pod_reason": "Shutdown"},
                {"disrupted": "PreemptionByScheduler"},
                {"termination": told("left", message="asked to")},
            ]
        ),
    )
    def one_is_preempted(self, pick, how):
        pod = self._pick(pick, running=True)
        if pod is not None:
            self.world.end_pod(pod.index, 0 if "termination" in how else 143, **how)

    @rule(pick=picks)
    def one_is_deleted(self, pick):
        pod = self._pick(pick)
        if pod is not None:
            self.world.delete_pod(pod.name)

    @rule(pick=picks)
    def one_vanishes_with_its_connection_alive(self, pick):
        pod = self._pick(pick)
        if pod is not None:
            del self.world.pods[pod.name]

    @rule(index=st.integers(0, MOST + 2), leaves=st.booleans())
    def somebody_takes_a_name(self, index, leaves):
        if f"digits-{index}" not in self.world.pods:
            name = f"digits-{index}"
            self.world.foreign[index] = ForeignPod(name=name, index=index, leaves=leaves)

    @rule()
    def names_are_free_again(self):
        self.world.foreign.clear()

    @rule(node=st.sampled_from(["node0", "node1"]))
    def a_node_dies(self, node):
        self.world.dead_nodes.add(node)
        for pod in list(self.world.pods.values()):
            if pod.running and pod.node == node:
                self.world.pod(pod.index, node_lost=True)
                self.world.disconnect(pod.name)

    @rule()
    def dead_nodes_are_removed(self):
        self.world.dead_nodes.clear()
        for pod in list(self.world.pods.values()):
            if pod.deleting or pod.node_lost:
                self.world.delete_pod(pod.name)

    @precondition(lambda self: self.world.report is not None)
    @rule()
    def too_few_are_there(self):
        self.world.coordinator(state="waiting", waiting="1 of 3 workers is ready")

    @precondition(lambda self: self.world.asked is not None and self.world.asked.draining)
    @rule()
    def drained_workers_leave(self):
        for pod in list(self.world.pods.values()):
            if pod.running:
                self.world.end_pod(pod.index, 0, termination=told("left", message="drained"))

    @rule(pick=picks)
    def a_result_is_written(self, pick):
        pod = self._pick(pick, running=True)
        if pod is not None and (self.world.status.get("progress") or {}).get("step", 0) > 3:
            self.world.end_pod(pod.index, 0, termination=told())

    @rule(settled=st.booleans())
    def the_operator_restarts(self, settled):
        self.world.restart_operator()
        self.world.settled = settled

    @rule(after=st.integers(0, 5))
    def the_operator_is_killed_between_two_actions(self, after):
        decision = decide(self.world.observed())
        for action in decision.actions[:after]:
            self.world.apply(action)
        self.world.restart_operator()

    @rule(
        seed=st.integers(0, 1),
        replicas=st.integers(1, MOST),
        standby=st.integers(0, 2),
        suspend=st.booleans(),
    )
    def the_spec_changes(self, seed, replicas, standby, suspend):
        spec = self.world.raw["spec"]
        spec["trainer"]["seed"] = seed
        spec["workers"] |= {"replicas": replicas, "standby": standby}
        spec["suspend"] = suspend
        self.world.raw["metadata"]["generation"] += 1

    @rule(seconds=st.sampled_from([1, 6, 11, 61, 301]))
    def time_passes(self, seconds):
        self.world.settled = True
        self.world.pass_time(seconds)

    # What holds.

    @invariant()
    def decisions_settle_and_hold(self):
        world = self.world
        first = decide(world.observed())
        assert first == decide(world.observed())
        if self.ended:
            assert not any(isinstance(action, CreatePod) for action in first.actions)
        world.settle(rounds=12)
        status = world.status
        OptimizationJobStatus.model_validate(status)
        state = status["state"]
        if self.ended:
            assert state == self.ended
        if state in ("Succeeded", "Failed"):
            self.ended = state
            return
        assert (status.get("restarts") or {}).get("total", 0) <= self.counted + self._stalls()
        there = [pod for pod in world.pods.values() if not pod.deleting]
        workers = status.get("workers") or {}
        if state in ("Suspended", "Invalid"):
            assert there == []
        elif workers and state != "Suspending":
            assert sum(pod.living for pod in there) <= workers["desired"] + workers["standby"]
            assert workers["desired"] <= 6

    def _stalls(self) -> int:
        recent = (self.world.status.get("restarts") or {}).get("recent") or ()
        self.stalls = getattr(self, "stalls", set()) | {
            entry["uid"] for entry in recent if entry["reason"] == "Stalled"
        }
        return len(self.stalls)

    def teardown(self) -> None:
        """Killed anywhere and started again from what is observed, it arrives at the same end."""
        world = self.world
        if not world.status or self.ended:
            return
        spec = world.raw["spec"]
        spec["suspend"] = True
        world.settled = True
        world.settle(rounds=12)
        world.pass_time(120)
        world.settle(rounds=12)
        if world.status["state"] in ("Succeeded", "Failed"):
            return
        assert world.status["state"] == "Suspended"
        assert all(pod.deleting for pod in world.pods.values())
        before = copy.deepcopy(world.status)
        world.restart_operator()
        world.settle()
        assert world.status == before


TestJob = JobMachine.TestCase
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
TestJob.settings = settings(
    max_examples=2000 if NIGHTLY else 40, stateful_step_count=25, deadline=None
)
