"""Strangers that reach the workers' ports, in network namespaces of their own, get nowhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
from pathlib import Path
from typing import Any

import chaos
import pytest
from network import NetworkRun, network
from strangers import strangers

from shardwise.coordinator.protocol import Go

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

WORKERS = 3
STEPS = 400
KILLS = 30 if chaos.FULL else 3
OPEN_SECONDS = 0.3
"""That the ports of a generation stay open: usually it is two milliseconds, too short for them."""


def launcher(pid: int) -> int:
    """The parent of a worker's process, which outlives it."""
    found = re.search(r"^PPid:\t(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def resume(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def test_no_stranger_becomes_a_peer_or_ends_a_worker(monkeypatch):
    """They crowd at each port of each generation, while workers are killed and come back."""
    dice = random.Random(chaos.SEED)
    crowd: dict[str, Any] = {}
    runs: list[NetworkRun] = []

    def late(**fields: Any) -> Go:
        """The last rank comes late: the others wait for it to connect."""
        go = Go(**fields)
        pid = chaos.processes(runs[0]).get(go.members[-1].index)
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
            asyncio.get_running_loop().call_later(OPEN_SECONDS, resume, pid)
        return go

    monkeypatch.setattr("shardwise.coordinator.generations.Go", late)
    with network(WORKERS) as net:

        class Run(NetworkRun):
            network = net

        async def kill(local):
            nonlocal crowd
            runs.append(local)
            await chaos.until(lambda: len(chaos.processes(local)) == WORKERS, "all workers")
            pids = chaos.processes(local)
            workers = {launcher(pid): net.worker_address(i) for i, pid in pids.items()}
            with strangers(workers) as crowd:
                for _ in range(KILLS):
                    full = lambda: len(local.report().members) == WORKERS  # noqa: E731
                    await chaos.until(full, "full strength")
                    later = chaos.step(local) + dice.randrange(5, 15)
                    await chaos.until(lambda at=later: chaos.step(local) >= at, "some steps")
                    await chaos.strike(local, "kill", dice)
                await chaos.until(full, "full strength")

        done = chaos.run(chaos.manifest(STEPS), workers=WORKERS, driver=kill, kind=Run)
    monkeypatch.undo()
    print(crowd, dict(done.recoveries))
    assert crowd["told"] == [], "a worker has answered a stranger"
    assert crowd["ports"] >= KILLS, "they were too slow"
    assert crowd["made"] >= 10 * KILLS, "they were too slow"
    assert done.hashes == chaos.undisturbed(STEPS)
    assert done.ended.report.lost_steps == 0
    assert set(done.recoveries) <= {"Killed", "Joined"}, f"they cost a worker: {done.recoveries}"
