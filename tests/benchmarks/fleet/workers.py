"""Simulated nodes and workers: every pod that the operator creates is told to run, and its worker
speaks the real protocol to the coordinator, over TLS, with the pod's own token.

    python workers.py URL COORDINATOR_PORT [--report SECONDS] [--kills PER_SECOND]

What is simulated is the computing. A job's spec.trainer.parameters say how: `rate` (steps a
second), and `fate`: `runs` to the end, `fails` half-way, `starves` for a node.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import random
import resource
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
from control_plane import TOKEN

from shardwise.api.environment import COORDINATOR_CA, COORDINATOR_NAME, TOKEN_AUDIENCE
from shardwise.coordinator.protocol import (
    MAX_LINE,
    Ack,
    Bye,
    CheckpointReport,
    Failed,
    Finished,
    FromWorker,
    Generation,
    Go,
    Hello,
    Probe,
    Pulse,
    Ready,
    StepReport,
    Stop,
    Welcome,
    decode,
    encode,
)

NAMESPACES = ("team-a", "team-b", "team-c")
AT_ONCE = 16
"""Pods that start at the same time."""
RETRY_SECONDS = 1.0
AWAY_SECONDS = 2.0
"""From a worker's death to its next connection."""
CHECKPOINT_BYTES = 12_000_000
Raw = dict[str, Any]


@dataclass
class Job:
    """What the workers of one job have in common."""

    rate: float
    fate: str
    total_steps: int
    batch: int
    every: int
    """Steps between two checkpoints; 0: none."""
    step: int = 0
    saved: int = 0
    told: float = 0.0
    alive: set[str] = field(default_factory=set)
    """Workers that can be killed now."""


class Nodes:
    """All pods and their workers."""

    def __init__(self, url: str, port: int, report: float) -> None:
        self._url, self._port, self._report = url, port, report
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._jobs: dict[str, Job] = {}
        self._writers: dict[str, asyncio.StreamWriter] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def run(self, kills: float) -> None:
        """Until cancelled."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        connector = aiohttp.TCPConnector(ssl=False, limit=64)
        limit = aiohttp.ClientTimeout(total=None, sock_connect=60)
        async with (
            aiohttp.ClientSession(
                self._url, headers=headers, connector=connector, timeout=limit
            ) as self._api,
            asyncio.TaskGroup() as group,
        ):
            if kills:
                group.create_task(self._kill(kills))
            async for pod in self._pods():
                uid = pod["metadata"]["uid"]
                if uid not in self._tasks:
                    self._tasks[uid] = group.create_task(self._life(pod))

    async def _pods(self) -> AsyncIterator[Raw]:
        """Every pod, once or more often."""
        while True:
            version = ""
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._api.get("/api/v1/pods") as answer:
                    listed = await answer.json()
                version = listed["metadata"]["resourceVersion"]
                for pod in listed["items"]:
                    yield pod
                query = {"watch": "true", "resourceVersion": version}
                async with self._api.get("/api/v1/pods", params=query) as stream:
                    buffer = b""
                    async for chunk in stream.content.iter_any():
                        *lines, buffer = (buffer + chunk).split(b"\n")
                        for line in lines:
                            event = json.loads(line)
                            if event["type"] == "ADDED":
                                yield event["object"]
            await asyncio.sleep(RETRY_SECONDS)

    async def _kill(self, per_second: float) -> None:
        """Now and then a worker's connection ends, as with its process."""
        chance = random.Random(7)
        while True:
            await asyncio.sleep(chance.expovariate(per_second))
            training = [
                name
                for job in self._jobs.values()
                if len(job.alive) > 1
                for name in sorted(job.alive)[1:]
            ]
            if training:
                victim = chance.choice(training)
                if victim in self._writers:
                    self._writers[victim].transport.abort()

    async def _life(self, pod: Raw) -> None:
        meta = pod["metadata"]
        uid = meta["labels"].get("shardwise.dev/job-uid")
        if uid is None or pod["status"].get("phase") != "Pending":
            return
        job = self._job(uid, pod)
        if job.fate == "starves":
            message = "0/2 nodes are available: 2 Insufficient memory."
            scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            await self._status(meta, "Pending", conditions=[{**scheduled, "message": message}])
            return
        async with self._gate:
            ready = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")]
            await self._status(meta, "Running", state={"running": {}}, conditions=ready)
        ended: Raw | None = None
        while ended is None:
            try:
                ended = await self._work(pod, job)
            except (OSError, aiohttp.ClientError, asyncio.IncompleteReadError):
                ended = None
            job.alive.discard(meta["name"])
            await asyncio.sleep(AWAY_SECONDS if ended is None else 0.0)
        code = 0 if ended["outcome"] == "succeeded" else 70
        terminated = {"exitCode": code, "message": json.dumps(ended), "finishedAt": _now()}
        phase = "Failed" if code else "Succeeded"
        await self._status(meta, phase, state={"terminated": terminated})

    def _job(self, uid: str, pod: Raw) -> Job:
        if uid not in self._jobs:
            trainer = json.loads(pod["metadata"]["annotations"]["shardwise.dev/accepted-trainer"])
            asked = trainer["parameters"]
            self._jobs[uid] = Job(
                rate=float(asked["rate"]),
                fate=str(asked["fate"]),
                total_steps=trainer["steps"],
                batch=trainer["batchSize"],
                every=int(asked["every"]),
            )
        return self._jobs[uid]

    async def _status(self, meta: Raw, phase: str, **status: Any) -> None:
        state = status.pop("state", None)
        if state is not None:
            container = {"name": "trainer", "ready": "running" in state, "restartCount": 0}
            container |= {"image": "simulated", "imageID": "simulated", "state": state}
            status["containerStatuses"] = [container]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
        body = json.dumps({"status": {"phase": phase, "podIP": "127.0.0.1", **status}})
        kind = {"Content-Type": "application/merge-patch+json"}
        async with self._api.patch(path, data=body, headers=kind) as answer:
            if answer.status not in (200, 404):
                answer.raise_for_status()

    async def _token(self, meta: Raw) -> str:
        """A token bound to the pod, as its kubelet would have one made."""
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        spec = {"audiences": [TOKEN_AUDIENCE], "boundObjectRef": bound}
        path = f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/default/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        async with self._api.post(path, json=request) as answer:
            answer.raise_for_status()
            token: str = (await answer.json())["status"]["token"]
            return token

    async def _work(self, pod: Raw, job: Job) -> Raw | None:
        """One process of a worker; how it ended, or None where its connection did."""
        meta = pod["metadata"]
        environ = {e["name"]: e.get("value", "") for e in pod["spec"]["containers"][0]["env"]}
        certificate = environ[COORDINATOR_CA]
        if certificate not in self._contexts:
            self._contexts[certificate] = ssl.create_default_context(cadata=certificate)
        async with self._gate:
            token = await self._token(meta)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1",
                self._port,
                limit=MAX_LINE,
                ssl=self._contexts[certificate],
                server_hostname=environ[COORDINATOR_NAME],
            )
            name, index = meta["name"], int(meta["labels"]["shardwise.dev/index"])
            self._writers[name] = writer
            fingerprint = {"torch": "simulated"}
            hello = Hello(token=token, worker=name, index=index, fingerprint=fingerprint)
            writer.write(encode(hello))
            line = await reader.readline()
        reporting: asyncio.Task[None] | None = None
        step = 0
        try:
            while line:
                match decode(line):
                    case Welcome():
                        writer.write(encode(Ready(fingerprint={**fingerprint, "threads": 1})))
                    case Generation(generation=number):
                        ack = Ack(generation=number, step=step, digest="")
                        writer.write(encode(ack))
                    case Go(generation=number, members=members):
                        job.alive.add(name)
                        step = max(step, job.step)
                        if reporting is not None:
                            reporting.cancel()
                        leads = members[0].worker == name
                        reporting = asyncio.create_task(
                            self._lead(writer, job, number) if leads else _follow()
                        )
                    case Probe(nonce=nonce):
                        writer.write(encode(_pulse(nonce)))
                    case Bye() if job.step >= job.total_steps:
                        return {"outcome": "succeeded", "result": _result(job)}
                    case Bye() | Stop():
                        return _failure()
                step = max(step, job.step) if reporting is not None else step
                line = await reader.readline()
        finally:
            if reporting is not None:
                reporting.cancel()
            self._writers.pop(name, None)
            writer.transport.abort()
        return None

    async def _lead(self, writer: asyncio.StreamWriter, job: Job, generation: int) -> None:
        """Rank 0: steps are done, and told of every so often."""

        def say(message: FromWorker) -> None:
            writer.write(encode(message))

        before, job.told = time.monotonic(), time.monotonic()
        while True:
            now = time.monotonic()
            done = min(job.total_steps, job.step + max(1, round((now - before) * job.rate)))
            spent, before = now - before, now
            say(_report(job, done, generation, spent))
            job.step = done
            if job.every and done // job.every > job.saved // job.every:
                job.saved = done
                say(CheckpointReport(step=done, bytes=CHECKPOINT_BYTES, seconds=0.4))
            if job.fate == "fails" and done > job.total_steps // 2:
                say(Failed(**_failed()))
                return
            if done >= job.total_steps:
                say(Finished(result=_result(job)))
                return
            await asyncio.sleep(self._report * random.uniform(0.9, 1.1))


async def _follow() -> None:
    """The other ranks say nothing while they train."""


def _report(job: Job, step: int, generation: int, seconds: float) -> StepReport:
    part = step / job.total_steps
    spent = {"productive": 0.97 * seconds, "checkpoint": 0.01 * seconds if job.every else 0.0}
    return StepReport(
        generation=generation,
        step=step,
        total_steps=job.total_steps,
        epoch=0,
        loss=0.02 + 2.3 * math.exp(-6 * part) * random.uniform(0.85, 1.15),
        samples_per_second=job.rate * job.batch,
        metrics={"accuracy": part},
        seconds=spent,
    )


def _result(job: Job) -> Raw:
    return {
        "steps": job.total_steps,
        "weightsSha256": "5" * 64,
        "seconds": f"{job.total_steps / job.rate:.1f}",
        "metrics": [{"name": "accuracy", "value": "0.97"}],
    }


def _failed() -> dict[str, str]:
    message = "loss raised KeyError: 'label'"
    return {"reason": "UserCodeFailed", "message": message, "detail": f"Traceback\n{message}"}


def _failure() -> Raw:
    return {"outcome": "failed", **_failed()}


def _pulse(nonce: int) -> Pulse:
    """All is well; only a machine that is overloaded is ever asked."""
    return Pulse(
        nonce=nonce,
        generation=1,
        step=0,
        phase="training",
        activity="waiting",
        age_seconds=0.0,
        usual_seconds=1.0,
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("port", type=int)
    parser.add_argument("--report", type=float, default=2.0)
    parser.add_argument("--kills", type=float, default=0.0, help="workers killed, per second")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    nodes = Nodes(options.url, options.port, options.report)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(nodes.run(options.kills))


if __name__ == "__main__":
    main()
