"""A cluster in one process: the strict fake API, a toy kubelet, and workers that speak the real
protocol to the operator's real coordinator. They train nothing: a step is a number that grows."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fake_cluster import FakeCluster
from operator_world import manifest

from shardwise.api import environment as env
from shardwise.coordinator.protocol import (
    MAX_LINE,
    Ack,
    Bye,
    Finished,
    FromWorker,
    Generation,
    Go,
    Hello,
    Leave,
    Message,
    Probe,
    Pulse,
    Ready,
    StepReport,
    Stop,
    decode,
    encode,
)
from shardwise_operator.apply import Applier
from shardwise_operator.controller import Controller
from shardwise_operator.coordination import POD_NAME, POD_UID, Coordination
from shardwise_operator.jobs import JobStore, Key
from shardwise_operator.metrics import Metrics
from shardwise_operator.render import RenderFacts
from shardwise_operator.writes import TokenBucket

KEY = ("default", "digits")
PODS = "pods"
FACTS = RenderFacts(
    image="t", pull_policy="Never", coordinator_address="", coordinator_name="", certificate=""
)


class TokenCluster(FakeCluster):
    """A worker's token is its pod's name and uid: each pod has another one. A deletion asks the
    kubelet first."""

    kill: Callable[[str], None] = staticmethod(lambda name: None)

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        name, _, meant = token.partition("/")
        pod = self.objects.get((PODS, KEY[0], name))
        uid = pod["metadata"]["uid"] if pod else ""
        return {
            "authenticated": pod is not None and meant in ("", uid),
            "audiences": [audience],
            "user": {
                "username": f"system:serviceaccount:{KEY[0]}:default",
                "extra": {POD_NAME: [name], POD_UID: [uid]},
            },
        }

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        pod = self._find(kind, namespace, name)
        running = (pod.get("status") or {}).get("phase") == "Running"
        if kind != PODS or not running:
            await super().delete(kind, namespace, name, uid)
            return
        self._note("delete", kind, name)
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self.kill(name)


class Worker:
    """One toy worker, from its connection to its pod's end."""

    def __init__(self, name: str, index: int, port: int) -> None:
        self.name, self.index, self.port = name, index, port
        self.token = name
        self.step = self.generation = 0
        self.result: dict[str, int] | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> str:
        """Its outcome."""
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port, limit=MAX_LINE)
        whole = {"torch": "1", "threads": 1}
        hello = Hello(
            token=self.token, worker=self.name, index=self.index, fingerprint={"torch": "1"}
        )
        self.send(hello)
        self.send(Ready(fingerprint=whole))
        try:
            while line := await reader.readline():
                outcome = self.received(decode(line))
                if outcome:
                    return outcome
        finally:
            self._writer.close()
        return "failed"

    def received(self, message: Message) -> str:
        match message:
            case Generation(generation=generation, members=members):
                self.step = max([self.step, *(member.step or 0 for member in members)])
                self.send(Ack(generation=generation, step=self.step, digest=""))
                if self.name not in {member.worker for member in members}:
                    return "left"
            case Go(generation=generation, members=members):
                self.generation, self.step = generation, self.step + 1
                if members[0].worker == self.name:
                    self.report()
            case Probe(nonce=nonce):
                self.send(
                    Pulse(
                        nonce=nonce,
                        generation=self.generation,
                        step=self.step,
                        phase="training",
                        activity="computing",
                        age_seconds=0.0,
                        usual_seconds=1.0,
                    )
                )
            case Bye():
                return "succeeded"
            case Stop():
                return "failed"
        return ""

    def report(self) -> None:
        self.send(
            StepReport(
                generation=self.generation,
                step=self.step,
                total_steps=100,
                epoch=0,
                loss=1.0,
                samples_per_second=1.0,
                metrics={},
                seconds={"productive": 1.0},
            )
        )

    def finish(self) -> None:
        self.result = {"steps": self.step}
        self.send(Finished(result=self.result))

    def leave(self) -> None:
        self.send(Leave())

    def cut(self) -> None:
        """Killed: its connection just ends."""
        if self._writer is not None:
            self._writer.transport.abort()

    def send(self, message: FromWorker) -> None:
        assert self._writer is not None
        self._writer.write(encode(message))


class ToyCluster:
    """The operator's parts on the fake API. `until` reconciles and lets the kubelet act."""

    def __init__(self) -> None:
        self.cluster = TokenCluster()
        self.cluster.kill = self._kill
        self.jobs = JobStore()
        self.workers: dict[str, Worker] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.asked: set[Key] = set()
        self.port = 0
        self.start_operator()

    def start_operator(self) -> None:
        loop = asyncio.get_running_loop()
        self.coordination = Coordination(
            self.cluster, self, self.asked.add, grace_seconds=0.2, report_seconds=0.1
        )
        self.controller = Controller(
            cluster=self.cluster,
            jobs=self.jobs,
            pods=self,
            reports=self.coordination,
            applier=Applier(self.cluster, self.coordination, self, lambda: FACTS, 8),
            bucket=TokenBucket(1000, loop.time),
            metrics=Metrics(),
            monotonic=loop.time,
            settled=lambda: True,
        )

    async def start(self, **spec: Any) -> None:
        await self.listen()
        body = manifest(**spec)
        self.jobs.put(await self.cluster.create("optimizationjobs", KEY[0], body))

    async def listen(self) -> None:
        self.port = await self.coordination.start(0, None, "127.0.0.1")

    async def stop(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        await self.coordination.stop()

    async def patch(self, **spec: Any) -> None:
        self.jobs.put(await self.cluster.patch("optimizationjobs", *KEY, {"spec": spec}))

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.objects["optimizationjobs", *KEY].get("status") or {}
        return found

    def names(self) -> list[str]:
        return sorted(name for kind, _, name in self.cluster.objects if kind == PODS)

    async def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while True:
                await self.controller.reconcile(KEY)
                self._run_pods()
                if holds():
                    return
                await asyncio.sleep(0.02)  # The workers' turn; nothing else is waited for.

    def worker(self, name: str, index: int) -> Worker:
        """What runs in a pod."""
        return Worker(name, index, self.port)

    def _run_pods(self) -> None:
        for (kind, _, name), pod in list(self.cluster.objects.items()):
            if kind == PODS and "status" not in pod:
                pod["metadata"]["creationTimestamp"] = datetime.now(UTC).isoformat()
                pod["status"] = {"phase": "Running"}
                container = pod["spec"]["containers"][0]
                values = {entry["name"]: entry.get("value") for entry in container["env"]}
                worker = self.worker(name, int(values[env.INDEX]))
                worker.token = f"{name}/{pod['metadata']['uid']}"
                self.workers[name] = worker
                self.tasks[name] = asyncio.create_task(self._run(worker))

    async def _run(self, worker: Worker) -> None:
        outcome = "failed"
        with contextlib.suppress(OSError):
            outcome = await worker.run()
        pod = self.cluster.objects.get((PODS, KEY[0], worker.name))
        if pod is None or self.workers.get(worker.name) is not worker:
            return
        if pod["metadata"].get("deletionTimestamp"):
            del self.cluster.objects[PODS, KEY[0], worker.name]
            return
        good = outcome != "failed"
        ended = {
            "exitCode": 0 if good else 137,
            "finishedAt": datetime.now(UTC).isoformat(),
            "message": json.dumps({"outcome": outcome, "result": worker.result}) if good else "",
        }
        pod["status"] = {
            "phase": "Succeeded" if good else "Failed",
            "containerStatuses": [{"name": "trainer", "state": {"terminated": ended}}],
        }

    def _kill(self, name: str) -> None:
        self.workers[name].leave()

    # The informer and the recorder:

    def pods(self, namespace: str, job: str) -> list[Any]:
        return [pod for (kind, *_), pod in self.cluster.objects.items() if kind == PODS]

    def pod(self, namespace: str, name: str) -> Any:
        return self.cluster.objects.get((PODS, namespace, name))

    def record(self, job: Any, event: Any) -> None:
        pass
