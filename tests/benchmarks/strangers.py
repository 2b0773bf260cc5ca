"""What strangers cost at the coordinator's door: how long an honest worker takes to be welcomed.

    unshare -n sh -c 'ip link set lo up; exec python tests/benchmarks/strangers.py'
        [--strangers 10000] [--floods 16] [--seconds 20] [--same-address]

The operator's coordinator with TLS, in a process of its own, and a fake API server that answers a
TokenReview within 5 ms. Strangers hold connections open, and open new ones where they are closed:
a third says nothing, a third half a handshake, a third is silent once TLS stands. Floods, in equal
parts: hellos of 1 MiB with 90,000 keys, 1 MiB without a newline, new tokens of nobody one after the
other, and a known worker of another job that sends small messages as fast as it can. Strangers come
from addresses of their own unless told otherwise; honest workers, one every 50 ms, from 127.0.0.1.
Prints one line of JSON: seconds to the welcome without strangers, with them and after them, the
coordinator's memory at these times, how long its loop was held up at most (`longest_lag`), and how
much of that was its own CPU time (`longest_busy`): on a machine that others use as well, the rest
is theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shardwise.coordinator.protocol import MAX_LINE, Hello, Pulse, Welcome, decode, encode

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Visit = Callable[[int, int], Awaitable[None]]
PAUSE_SECONDS = 0.05
QUIET_SECONDS = 5.0
SETTLE_SECONDS = 12.0
"""For strangers' connections to go once they come no more."""
ADDRESSES = 16
OPENING = 64
FAT = b'{"type":"hello","token":"x","worker":"w","index":0,"fingerprint":{' + b",".join(
    b'"%06d":0' % i for i in range(90_000)
)
PULSE = encode(
    Pulse(
        nonce=0,
        generation=0,
        step=0,
        phase="training",
        activity="computing",
        age_seconds=0,
        usual_seconds=0,
    )
)


# The coordinator.


class Api:
    """Tokens are pods' names."""

    reviews = 0

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        from shardwise_operator.coordination import POD_NAME, POD_UID

        Api.reviews += 1
        await asyncio.sleep(0.005)
        extra = {POD_NAME: [token], POD_UID: [f"u-{token}"]}
        user = {"username": "system:serviceaccount:default:default", "extra": extra}
        return {"authenticated": token.startswith("pod-"), "audiences": [audience], "user": user}


class Pods:
    """Every pod that is asked for is there: `pod-JOB-INDEX`, of job `pod-JOB`."""

    def pod(self, namespace: str, name: str) -> dict[str, Any]:
        job, _, index = name.rpartition("-")
        owner = {
            "apiVersion": "shardwise.dev/v1alpha1",
            "kind": "OptimizationJob",
            "name": job,
            "uid": job,
            "controller": True,
        }
        labels = {
            "shardwise.dev/job-name": job,
            "shardwise.dev/job-uid": job,
            "shardwise.dev/index": index,
        }
        meta = {"uid": f"u-{name}", "name": name, "namespace": namespace, "labels": labels}
        return {"metadata": {**meta, "ownerReferences": [owner]}}


async def serve(jobs: int) -> None:
    from shardwise_operator.actions import OpenTask
    from shardwise_operator.certificate import make_certificate
    from shardwise_operator.coordination import Coordination
    from shardwise_operator.observe import job_view

    subject = Coordination(
        Api(),  # type: ignore[arg-type]
        Pods(),
        lambda key: None,
        grace_seconds=1,
        report_seconds=2,
    )
    for job in range(jobs):
        name = f"pod-{job}"
        manifest = {"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": {}}
        trainer = {"entrypoint": "a:b"}
        opened = OpenTask(workers=64, min_workers=1, trainer=trainer, generation_floor=0)
        subject.open(job_view(manifest), opened)
    context = make_certificate(["localhost"], datetime.now(UTC)).server_context()
    port = await subject.start(0, context, "127.0.0.1")
    print(json.dumps({"port": port}), flush=True)
    worst = busy = 0.0
    last, used = time.perf_counter(), time.thread_time()
    while True:
        await asyncio.sleep(0.01)
        now, cpu = time.perf_counter(), time.thread_time()
        worst, last = max(worst, now - last - 0.01), now
        busy, used = max(busy, cpu - used), cpu
        if sys.stdin in await asyncio.to_thread(_readable):
            sys.stdin.readline()
            told = {
                "mib": memory_mib(),
                "lag": round(worst, 3),
                "busy": round(busy, 3),
                "cpu": round(time.process_time(), 1),
                "reviews": Api.reviews,
            }
            print(json.dumps(told), flush=True)
            worst = busy = 0.0
            last = time.perf_counter()


def _readable() -> list[Any]:
    import select

    return select.select([sys.stdin], [], [], 0)[0]


def memory_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20, 1)


# Strangers.


class Strangers:
    """All of them, from one process."""

    def __init__(self, port: int, seconds: float, same: bool) -> None:
        self.port, self.same = port, same
        self.end = time.monotonic() + seconds
        self.opened = 0
        self._context = ssl._create_unverified_context()
        self._opening = {flood: asyncio.Semaphore(OPENING) for flood in (False, True)}

    async def run(self, strangers: int, floods: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(strangers):
                group.create_task(self._again(self._silent, number, 1.0))
            for number in range(floods):
                group.create_task(self._again(self._flood, number, 0.0))

    async def _again(self, visit: Visit, number: int, pause: float) -> None:
        """Come again and again; the pause is for descriptors not to run out here."""
        for count in itertools.count():
            left = self.end - time.monotonic()
            if left <= 0:
                return
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(left):
                    await visit(number, count)
            await asyncio.sleep(pause)

    @contextlib.asynccontextmanager
    async def _connected(self, tls: bool, silent: bool = False) -> AsyncIterator[Ends]:
        place = "127.0.0.1" if self.same else f"127.0.1.{self.opened % ADDRESSES + 1}"
        context = self._context if tls else None
        async with self._opening[tls and not silent]:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=context, local_addr=(place, 0)
            )
        self.opened += 1
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def _silent(self, number: int, count: int) -> None:
        del count
        async with self._connected(number % 3 == 2, silent=True) as (reader, writer):
            if number % 3 == 1:
                writer.write(b"\x16\x03\x01\x02")
            await reader.read(1)

    async def _flood(self, number: int, count: int) -> None:
        kind = number % 4
        async with self._connected(True) as (reader, writer):
            if kind < 3:
                says = FAT, b"x" * MAX_LINE, hello(f"junk-{number}-{count}", 0)
                writer.write(says[kind])
                await reader.read(1)
                return
            writer.write(hello(f"pod-1-{number}", number))
            await reader.readline()
            while time.monotonic() < self.end:
                writer.write(PULSE * 200)
                await writer.drain()


async def strange(port: int, strangers: int, floods: int, seconds: float, same: bool) -> None:
    all_of_them = Strangers(port, seconds, same)
    await all_of_them.run(strangers, floods)
    print(json.dumps({"opened": all_of_them.opened}), flush=True)


def hello(token: str, index: int) -> bytes:
    return encode(Hello(token=token, worker=token, index=index, fingerprint={"torch": "1"}))


# Honest workers.


def welcomed(port: int, seconds: float, context: ssl.SSLContext) -> list[float]:
    """Seconds to the welcome of each, in order; 30 for one that was not."""
    times, end = [], time.monotonic() + seconds
    for number in itertools.count():
        began = time.monotonic()
        if began >= end:
            return sorted(times)
        # Ten workers that come again and again: the first time, each token is reviewed.
        index = number % 10
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
                context.wrap_socket(plain) as link,
            ):
                link.sendall(hello(f"pod-0-{index}", index))
                with link.makefile("rb") as lines:
                    good = isinstance(decode(lines.readline()), Welcome)
        except (OSError, ValueError):
            good = False
        times.append(time.monotonic() - began if good else 30.0)
        time.sleep(PAUSE_SECONDS)
    return times


def shown(times: list[float]) -> dict[str, float]:
    place = [times[int(len(times) * part)] for part in (0.5, 0.99)]
    return {
        "welcomes": len(times),
        "median": round(place[0], 4),
        "p99": round(place[1], 4),
        "worst": round(times[-1], 4),
    }


def measure(options: argparse.Namespace) -> dict[str, object]:
    child = [sys.executable, __file__]
    coordinator = subprocess.Popen(
        [*child, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert coordinator.stdin is not None
    assert coordinator.stdout is not None
    port = json.loads(coordinator.stdout.readline())["port"]

    def told() -> dict[str, Any]:
        assert coordinator.stdin is not None
        assert coordinator.stdout is not None
        coordinator.stdin.write("\n")
        coordinator.stdin.flush()
        found: dict[str, Any] = json.loads(coordinator.stdout.readline())
        return found

    context = ssl._create_unverified_context()
    try:
        before = shown(welcomed(port, QUIET_SECONDS, context))
        empty = told()
        crowd = subprocess.Popen(
            [
                *(*child, "--connect", str(port), "--seconds", str(options.seconds + 5)),
                *("--strangers", str(options.strangers), "--floods", str(options.floods)),
                *(["--same-address"] if options.same_address else []),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(5)  # They take a while to be all there.
        during = shown(welcomed(port, options.seconds - 5, context))
        full = told()
        out, _ = crowd.communicate(timeout=60)
        time.sleep(SETTLE_SECONDS)
        told()
        after = shown(welcomed(port, QUIET_SECONDS, context))
        left = told()
    finally:
        coordinator.kill()
        coordinator.wait()
    return {
        "strangers": options.strangers,
        "floods": options.floods,
        "same_address": options.same_address,
        **json.loads(out),
        "before": before,
        "during": during,
        "after": after,
        "mib": [empty["mib"], full["mib"], left["mib"]],
        "longest_lag": full["lag"],
        "longest_busy": full["busy"],
        "cpu_seconds": round(full["cpu"] - empty["cpu"], 1),
        "reviews": full["reviews"] - empty["reviews"],
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--strangers", type=int, default=10_000)
    parser.add_argument("--floods", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--same-address", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--connect", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if [name for _, name in socket.if_nameindex() if name != "lo"]:
        sys.exit(
            "run it in a network namespace of its own: unshare -n sh -c 'ip link set lo up; …'"
        )
    if options.serve:
        asyncio.run(serve(jobs=2))
    elif options.connect:
        strangers, floods = options.strangers, options.floods
        port, seconds, same = options.connect, options.seconds, options.same_address
        asyncio.run(strange(port, strangers, floods, seconds, same))
    else:
        print(json.dumps(measure(options)))


if __name__ == "__main__":
    main()
