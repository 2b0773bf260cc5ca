"""What the coordinator costs while nothing fails: many groups that train and report.

    python tests/benchmarks/coordinator_load.py [--groups 1000] [--workers 4] [--seconds 60]

The real service over loopback TCP, without TLS; the workers are connections of one other process
that speak the real protocol. After all groups have formed, rank 0 of each reports every 5 s, as in
a cluster: the control traffic does not depend on how many steps are done. Prints one line of JSON:
the coordinator's CPU time as a share of one core, and its memory, before any worker and at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import resource
import sys
import time
from pathlib import Path

from shardwise.coordinator import Assignment, Coordinator, Credential, Hello, Identity
from shardwise.coordinator.protocol import (
    MAX_LINE,
    Ack,
    Generation,
    Go,
    Probe,
    Pulse,
    Ready,
    StepReport,
    decode,
    encode,
)

REPORT_SECONDS = 5.0
FORMING_SECONDS = 300.0
PATIENCE_SECONDS = 60.0
"""All the workers are one process here, and slow while thousands start at once."""
AT_ONCE = 64
"""Connections that are opened at the same time."""


async def serve(groups: int, workers: int, seconds: float) -> dict[str, object]:
    reports = 0
    train: set[str] = set()
    all_train = asyncio.Event()

    def changed(task: str) -> None:
        nonlocal reports
        reports += 1
        if not all_train.is_set() and state(task) == "training":
            train.add(task)
            if len(train) == groups:
                all_train.set()

    def state(task: str) -> str:
        report = coordinator.report(task)
        return "none" if report is None else report.state

    async def authenticate(credential: Credential) -> Identity:
        return Identity(task=credential.token, worker=None, index=None)

    coordinator = Coordinator(
        authenticate=authenticate, on_change=changed, detection_seconds=PATIENCE_SECONDS
    )
    port = await coordinator.start("127.0.0.1", 0)
    empty = memory_mib()
    for group in range(groups):
        coordinator.open_task(
            Assignment(task=f"job-{group}", name=f"job-{group}", workers=workers, trainer={})
        )
    begin = time.monotonic()
    clients = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--groups", str(groups), "--workers", str(workers)),
        *("--connect", str(port)),
    )
    try:
        async with asyncio.timeout(FORMING_SECONDS):
            await all_train.wait()
        formed = time.monotonic() - begin
        await asyncio.sleep(REPORT_SECONDS)
        reports, cpu, begin = 0, time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        wall = time.monotonic() - begin
        share = (time.process_time() - cpu) / wall
        states = {state(f"job-{group}") for group in range(groups)}
    finally:
        clients.terminate()
        await clients.wait()
        await coordinator.stop()
    return {
        "groups": groups,
        "workersPerGroup": workers,
        "tls": False,
        "reportSeconds": REPORT_SECONDS,
        "measuredSeconds": round(wall, 1),
        "states": sorted(states),
        "secondsToFormAll": round(formed, 2),
        "changesPerSecond": round(reports / wall, 1),
        "cpuShareOfACore": round(share, 4),
        "memoryMiB": round(memory_mib(), 1),
        "memoryMiBBeforeAnyTask": round(empty, 1),
    }


async def connect(groups: int, workers: int, port: int) -> None:
    """All workers of all groups, until this process is ended."""
    gate = asyncio.Semaphore(AT_ONCE)
    await asyncio.gather(
        *(
            work(gate, port, group, index, group / groups * REPORT_SECONDS)
            for group in range(groups)
            for index in range(workers)
        )
    )


async def work(gate: asyncio.Semaphore, port: int, group: int, index: int, offset: float) -> None:
    """One worker: hello, ready, ack, and reports of its progress where it is rank 0."""
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=MAX_LINE)
        hello = Hello(token=f"job-{group}", worker=f"w-{index}", index=index, fingerprint={})
        writer.write(encode(hello) + encode(Ready(fingerprint={"threads": 1})))
    reports: asyncio.Task[None] | None = None
    while line := await reader.readline():
        match decode(line):
            case Generation(generation=generation):
                writer.write(encode(Ack(generation=generation, step=0, digest="")))
            case Go(generation=generation) if index == 0 and reports is None:
                reports = asyncio.create_task(report(writer, generation, offset))
            case Probe(nonce=nonce):
                writer.write(encode(pulse(nonce)))


async def report(writer: asyncio.StreamWriter, generation: int, offset: float) -> None:
    """Rank 0's progress, for ever."""
    await asyncio.sleep(offset)
    for step in itertools.count(50, 50):
        message = StepReport(
            generation=generation,
            step=step,
            total_steps=1_000_000,
            epoch=0,
            loss=1.0 / step,
            samples_per_second=640.0,
            metrics={"accuracy": 0.9},
            seconds={"productive": REPORT_SECONDS, "checkpoint": 0.01},
        )
        writer.write(encode(message))
        await asyncio.sleep(REPORT_SECONDS)


def pulse(nonce: int) -> Pulse:
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


def memory_mib() -> float:
    """This process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--groups", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--connect", type=int, help="be the workers, of the coordinator there")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.connect:
        asyncio.run(connect(options.groups, options.workers, options.connect))
    else:
        print(json.dumps(asyncio.run(serve(options.groups, options.workers, options.seconds))))


if __name__ == "__main__":
    main()
