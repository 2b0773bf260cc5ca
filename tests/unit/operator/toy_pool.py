"""Workers of a pool for the toy cluster: each takes task after task, and ends one when the test
lets it. The results follow from the task, as real ones do."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from typing import Any

from toy_cluster import ToyCluster, Worker

from shardwise.coordinator.protocol import (
    MAX_LINE,
    Ack,
    Bye,
    Ended,
    Finished,
    FromWorker,
    Generation,
    Go,
    Hello,
    Leave,
    Message,
    Ready,
    StepReport,
    Stop,
    Welcome,
    decode,
    encode,
)
from shardwise.coordinator.report import Assignment
from shardwise.coordinator.rows import unpack

RETOLD = 16
RETRY_SECONDS = 0.05


class PoolWorker(Worker):
    """One pod's worker over all its tasks; it outlives its coordinator."""

    def __init__(self, name: str, index: int, toy: PoolToy) -> None:
        super().__init__(name, index, 0)
        self._toy = toy
        self._finished: list[Ended] = []
        self._assignment: Assignment | None = None
        self._members: tuple[str, ...] = ()
        self._phase = "loading"
        self._leaving = False
        self._done: asyncio.Task[None] | None = None

    async def run(self) -> str:
        """Its outcome."""
        while True:
            try:
                reader, self._writer = await asyncio.open_connection(
                    "127.0.0.1", self._toy.port, limit=MAX_LINE
                )
            except OSError:
                await asyncio.sleep(RETRY_SECONDS)  # nobody listens: the operator is away
                continue
            self.say(self._hello())
            if self._leaving:
                self.say(Leave())
            outcome = ""
            try:
                while not outcome and (line := await reader.readline()):
                    outcome = self.heard(decode(line))
            except ConnectionError:
                pass
            finally:
                self._writer.close()
            if outcome and outcome != "again":
                return outcome

    def _hello(self) -> Hello:
        given = self._assignment
        fingerprint: dict[str, Any] = {"torch": "1"}
        if given is None:
            return Hello(
                token=self.token,
                worker=self.name,
                index=self.index,
                fingerprint=fingerprint,
                finished=tuple(self._finished[-RETOLD:]),
            )
        loaded = self._phase != "loading"
        return Hello(
            token=self.token,
            worker=self.name,
            index=self.index,
            fingerprint={**fingerprint, "threads": 1} if loaded else fingerprint,
            generation=self.generation,
            phase=self._phase,  # type: ignore[arg-type]
            step=self.step,
            members=self._members,
            task=given.task,
            finished=tuple(self._finished[-RETOLD:]),
        )

    def heard(self, message: Message) -> str:
        """Ends the connection where it gives an outcome."""
        match message:
            case Welcome(assignment=given):
                if self._assignment is None:
                    self._assignment = given
                    self.say(Ready(fingerprint={"torch": "1", "threads": 1}))
                elif self._phase == "loading":
                    self.say(Ready(fingerprint={"torch": "1", "threads": 1}))
            case Generation(generation=generation, members=members):
                self.step = max([self.step, *(member.step or 0 for member in members)])
                self.say(Ack(generation=generation, step=self.step, digest=""))
                self.generation = generation
                if self.name not in {member.worker for member in members}:
                    return "left" if self._leaving else self._over()
            case Go(generation=generation, members=members):
                self.generation = generation
                self._members = tuple(member.worker for member in members)
                self._phase, self.step = "training", max(self.step, 1)
                self._train()
            case Bye():
                at_task = self._assignment is not None
                self._over()
                return "again" if at_task and not self._leaving else "succeeded"
            case Stop(again=again):
                self._over()
                return "again" if again else "failed"
            case _:
                super().received(message)
        return ""

    def _over(self) -> str:
        """What there was of a task is gone."""
        if self._done is not None:
            self._done.cancel()
        self._assignment, self._done = None, None
        self.step, self.generation, self._members, self._phase = 0, 0, (), "loading"
        return "again"

    def _train(self) -> None:
        given = self._assignment
        assert given is not None
        if self._members[0] == self.name and (self._done is None or self._done.done()):
            self._done = asyncio.create_task(self._end(given))

    async def _end(self, given: Assignment) -> None:
        """Rank 0 tells of a step, and of the end once the test lets it."""
        stretch = given.stretch
        assert stretch is not None
        self.say(report(self.generation, self.step))
        if stretch.collect is not None:
            told = [row for row in unpack(stretch.collect.rows) if row.state == "Succeeded"]
            counts = {"succeeded": len(told), "failed": 0, "stopped": 0}
            self.result = {"steps": 4 * len(told), "tasks": counts}  # type: ignore[dict-item]
        else:
            await self._toy.permits.acquire()
            self._toy.ended[stretch.name] += 1
            result = result_of(given)
            self._finished.append(Ended(task=given.task, result=result))
        self._phase = "finishing"
        self.say(Finished(result=self.result if stretch.collect else result))

    def cut(self) -> None:
        self._over()
        super().cut()

    def leave(self) -> None:
        self._leaving = True
        self.say(Leave())

    def say(self, message: FromWorker) -> None:
        """To a coordinator that may just have gone."""
        if self._writer is not None and not self._writer.transport.is_closing():
            self._writer.write(encode(message))


class PoolToy(ToyCluster):
    """`permits` lets tasks end; `ended` counts how often each has."""

    def __init__(self) -> None:
        self.permits = asyncio.Semaphore(0)
        self.ended: Counter[str] = Counter()
        super().__init__()

    def worker(self, name: str, index: int) -> Worker:
        return PoolWorker(name, index, self)

    def let(self, tasks: int) -> None:
        for _ in range(tasks):
            self.permits.release()


def report(generation: int, step: int) -> StepReport:
    return StepReport(
        generation=generation,
        step=step,
        total_steps=4,
        epoch=0,
        loss=1.0,
        samples_per_second=1.0,
        metrics={},
        seconds={"productive": 1.0},
    )


def result_of(given: Assignment) -> dict[str, Any]:
    """What a task comes to, whoever does it."""
    stretch = given.stretch
    assert stretch is not None
    text = repr(sorted(stretch.parameters.items()))
    return {
        "number": stretch.number,
        "steps": 4,
        "figures": {"accuracy": int(hashlib.sha256(text.encode()).hexdigest(), 16) % 997 / 997},
        "weightsSha256": hashlib.sha256(text.encode()).hexdigest(),
    }
