"""torchrun and torchft under the same kills: their processes, and when the next step came."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch.distributed as dist
from tracing import Measured, Trace

HERE = Path(__file__).parent
SETTLE_STEPS = 20
LIMIT_SECONDS = 60.0


def torchrun(workers: int, blows: int, seed: int = 1) -> Measured:
    """torchrun --standalone with its workaround; all workers are begun anew after each kill."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environ = _environ(folder) | {
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            "CHECKPOINT": f"{folder}/checkpoint",
        }
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *(f"--nproc-per-node={workers}", f"--max-restarts={blows + 5}"),
            str(HERE / "ddp_worker.py"),
        ]
        agent = _start(command, environ)
        try:
            trace = Trace(Path(folder, "trace"))
            dices = [random.Random(seed + number) for number in range(blows)]
            return trace.measured([_blow(trace, workers, dice) for dice in dices])
        finally:
            _end([agent])


TUNED = {"heartbeat_timeout_ms": 300, "quorum_tick_ms": 20, "join_timeout_ms": 1000}
"""torchft's lighthouse as quick as research/fault_tolerance.md 1 had it; it ships with 5,000 ms,
100 ms and 60,000 ms."""


def torchft(
    workers: int, blows: int, python: Path, lighthouse: Mapping[str, int], seed: int = 1
) -> Measured:
    """torchft's manager on every worker; a killed worker is begun anew by this process.

    Args:
        python: an interpreter that has torchft.
        lighthouse: its options, beside those that it ships with.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        port, trace = _free_port(), Trace(Path(folder, "trace"))
        environ = _environ(folder) | {
            "TORCHFT_LIGHTHOUSE": f"http://localhost:{port}",
            "NUM_REPLICA_GROUPS": str(workers),
        }
        command = [str(python), str(python.parent / "torchft_lighthouse")]
        for name, value in {"min_replicas": 1, "bind": f"[::]:{port}", **lighthouse}.items():
            command += [f"--{name}", str(value)]
        house = _start(command, environ)
        stores: dict[int, dist.TCPStore] = {}
        replicas: dict[int, subprocess.Popen[bytes]] = {}

        def begin(index: int) -> None:
            # A store of its own for each life, as torchrun would serve one to a replica group.
            store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
            stores[index] = store
            replicas[index] = _start(
                [str(python), str(HERE / "torchft_worker.py")],
                environ | {"REPLICA_GROUP_ID": str(index), "STORE_PORT": str(store.port)},
            )

        try:
            for index in range(workers):
                begin(index)
            seconds = []
            for number in range(blows):
                dice = random.Random(seed + number)
                _settle(trace, workers)
                index = dice.randrange(workers)
                trace.news()
                at = time.time()
                replicas[index].kill()
                seconds.append(_next(trace, at))
                replicas[index].wait(LIMIT_SECONDS)
                trace.forget()
                begin(index)
            return trace.measured(seconds)
        finally:
            _end([*replicas.values(), house])


def _blow(trace: Trace, workers: int, dice: random.Random) -> float:
    trace.forget()
    _settle(trace, workers)
    at = time.time()
    os.kill(dice.choice(sorted(trace.pids())), signal.SIGKILL)
    return _next(trace, at)


def _settle(trace: Trace, workers: int) -> None:
    """Until every worker has done some steps."""

    def settled() -> bool:
        trace.news()
        return len(trace.pids()) >= workers and trace.steps > SETTLE_STEPS

    _wait(settled, f"steps by {workers} workers")


def _next(trace: Trace, at: float) -> float:
    """Until the first new step after the pause that the kill has caused: the longest gap's end.

    A step that only had to be applied when the kill fell must not count. The gap is known to be
    over once several steps have followed it.
    """
    done: list[float] = []

    def enough() -> bool:
        done.extend(moment for moment, _ in trace.news() if moment > at)
        return len(done) >= SETTLE_STEPS // 2

    _wait(enough, "new step")
    moments = [at, *sorted(done)]
    gaps = [(after - before, after) for before, after in itertools.pairwise(moments)]
    return max(gaps)[1] - at


def _wait(test: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not test():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {LIMIT_SECONDS:.0f} s")
        time.sleep(0.002)


def _environ(folder: str) -> dict[str, str]:
    return dict(os.environ) | {
        "TRACE": f"{folder}/trace",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(HERE),
        "PYTHONWARNINGS": "ignore",
    }


def _start(command: list[str], environ: dict[str, str]) -> subprocess.Popen[bytes]:
    quiet = None if os.environ.get("LOUD") else subprocess.DEVNULL
    return subprocess.Popen(
        command, env=environ, stdout=quiet, stderr=quiet, start_new_session=True
    )


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End them; torchrun's agent ends its workers, which are in sessions of their own, if asked."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LIMIT_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(LIMIT_SECONDS)


def _free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    return int(port)
