"""Groups that break, shrink and grow in the middle of every kind of advance: the same bytes."""

from __future__ import annotations

import queue
import threading

import pytest
from small import copied, digest, finished, pipeline, trained
from threads import ThreadGroup, together

from shardwise.engine.group import GroupError

TUNE = {"steps": 6, "learningRate": "0.05"}
STEPS = {
    "prune": [{"prune": {"method": "OBS", "sparsity": "0.5"}, "fineTune": TUNE}],
    "gradual": [
        {
            "prune": {"method": "Taylor", "sparsity": "0.8", "schedule": {"everySteps": 2}},
            "fineTune": TUNE,
        }
    ],
    "channels, gptq": [
        {"prune": {"pattern": "Channels", "sparsity": "0.5"}, "fineTune": TUNE},
        {"quantize": {"method": "GPTQ", "bits": 3}},
    ],
    "distill": [{"distill": {"student": {"parameters": {"width": 8}}}, "fineTune": TUNE}],
}
GUARD = {"maxAccuracyDrop": "0.9", "onGuard": "KeepPrevious"}


@pytest.fixture(scope="module")
def task():
    return trained()


@pytest.fixture(params=STEPS)
def spec(request):
    return {"steps": STEPS[request.param], "guard": GUARD}


def advance_to(machines, position):
    """Advance all machines together; their count may be any."""

    def run(group):
        machine = machines[group.rank]
        machine.join(group)
        while not machine.done and machine.position < position:
            machine.advance()

    together(len(machines), run)


def test_members_leave_and_come_at_every_position(task, spec):
    alone = finished(pipeline(task, spec))
    expected, last = digest(alone), alone.position
    for position in range(0, last + 1, 3):
        machines = [pipeline(copied(task), spec) for _ in range(3)]
        advance_to(machines, position)
        machines = machines[1:]  # the first is lost
        advance_to(machines, position + 1)
        machines.insert(0, pipeline(copied(task), spec))  # a new one has the lowest rank
        advance_to(machines, last)
        assert [digest(machine) for machine in machines] == [expected] * 3
        assert {str(machine.rows) for machine in machines} == {str(alone.rows)}


class Breaking(ThreadGroup):
    """A group of threads that breaks for all once a member has begun `count` transfers."""

    def __init__(self, group, count, broken):
        super().__init__(group.rank, group.size, group.boxes)
        self.left, self.broken = count, broken

    def _begin(self):
        self.left -= 1
        if self.left < 0:
            self.broken.set()
        if self.broken.is_set():
            raise GroupError("broken for the test")

    def send(self, tensor, to, tag):
        self._begin()
        return super().send(tensor, to, tag)

    def receive(self, tensor, source, tag):
        self._begin()
        return Receipt(self.boxes[source, self.rank, tag], tensor, self.broken)


class Receipt:
    def __init__(self, box, target, broken):
        self.box, self.target, self.broken = box, target, broken

    def wait(self):
        while True:
            try:
                self.target.copy_(self.box.get(timeout=0.02))
                return
            except queue.Empty:
                if self.broken.is_set():
                    raise GroupError("broken for the test") from None


@pytest.mark.parametrize("uneven", [0, 1])
def test_a_group_that_breaks_in_the_middle_of_anything(task, spec, uneven):
    """The same three machines through group after group, each good for some transfers only."""
    expected = digest(finished(pipeline(task, spec)))
    machines = [pipeline(copied(task), spec) for _ in range(3)]
    transfers = 40
    while not all(machine.done for machine in machines):
        broken = threading.Event()
        before = [machine.position for machine in machines]

        def run(group, count=transfers, broken=broken):
            machine = machines[group.rank]
            try:
                machine.join(Breaking(group, count + uneven * group.rank, broken))
                while not machine.done:
                    machine.advance()
            except GroupError:
                pass  # it joins the next one

        together(3, run)
        # A prime step, so that groups break at ever other places; longer where none got further.
        transfers = 40 + (transfers * 7 + 13) % 61
        if [machine.position for machine in machines] == before:
            transfers += 60
    assert [digest(machine) for machine in machines] == [expected] * 3
