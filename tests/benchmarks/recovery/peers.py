"""torchrun and torchft under the same kills: their processes, and when the next step came."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tracing import Trace

HERE = Path(__file__).parent
SETTLE_STEPS = 20
LIMIT_SECONDS = 60.0


def torchrun(workers: int, blows: int, seed: int = 1) -> list[float]:
    """torchrun --standalone with its workaround; all workers are begun anew after each kill."""
    with tempfile.TemporaryDirectory() as folder:
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
            return [_blow(trace, workers, random.Random(seed + number)) for number in range(blows)]
        finally:
            _end([agent])


def torchft(
    workers: int, blows: int, packages: Path, heartbeat_milliseconds: int, seed: int = 1
) -> list[float]:
    """torchft's manager on every worker; a killed worker is begun anew by this process.

    Args:
        packages: where torchft and what it needs are installed.
        heartbeat_milliseconds: after which its lighthouse gives a worker up; 5,000 as it ships.
    """
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        environ = _environ(folder) | {
            "PYTHONPATH": os.pathsep.join([str(packages), str(HERE)]),
            "TORCHFT_LIGHTHOUSE": f"http://localhost:{port}",
            "NUM_REPLICA_GROUPS": str(workers),
        }
        lighthouse = _start(
            [
                *(sys.executable, str(packages / "bin" / "torchft_lighthouse")),
                *("--min_replicas", "1", "--bind", f"[::]:{port}", "--join_timeout_ms", "1000"),
                *("--heartbeat_timeout_ms", str(heartbeat_milliseconds)),
                *("--quorum_tick_ms", str(min(100, heartbeat_milliseconds // 10))),
            ],
            environ,
        )
        replicas: dict[int, subprocess.Popen[bytes]] = {}

        def begin(index: int) -> None:
            store = _start(
                [
                    *(sys.executable, "-c"),
                    "import sys, threading, torch.distributed as d;"
                    "s = d.TCPStore('localhost', int(sys.argv[1]), is_master=True,"
                    " wait_for_workers=False); threading.Event().wait()",
                    str(ports[index]),
                ],
                environ,
            )
            stores.append(store)
            replicas[index] = _start(
                [sys.executable, str(HERE / "torchft_worker.py")],
                environ | {"REPLICA_GROUP_ID": str(index), "STORE_PORT": str(ports[index])},
            )

        ports = [_free_port() for _ in range(workers)]
        stores: list[subprocess.Popen[bytes]] = []
        try:
            for index in range(workers):
                begin(index)
            trace = Trace(Path(folder, "trace"))
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
                ports[index] = _free_port()
                trace.forget()
                begin(index)
            return seconds
        finally:
            _end([*replicas.values(), *stores, lighthouse])


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
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(LIMIT_SECONDS)


def _free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    return int(port)
