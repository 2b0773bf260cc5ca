"""Runs steps whose length varies tenfold, and counts the changes of the group: there may be none.

python tests/benchmarks/recovery/false_alarms.py --seconds 3600
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from pathlib import Path

import ours

from shardwise.local.run import LocalRun, Setting

WORKERS = 3


async def watch(seconds: float) -> dict[str, object]:
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    with tempfile.TemporaryDirectory() as folder:
        job = ours.job(10_000_000, WORKERS, entrypoint="uneven:task", shards=3)
        local = LocalRun(job, Setting(workers=WORKERS, output=Path(folder, "out")), Path(folder))
        await local.start()
        assert local.launcher is not None
        try:
            await ours.until(lambda: len(local.report().members) == WORKERS, "the group")
            began = time.monotonic()
            while time.monotonic() < began + seconds:
                await asyncio.sleep(min(60.0, began + seconds - time.monotonic()))
                report = local.report()
                step = report.progress.step if report.progress else 0
                print(step, dict(report.recoveries), os.getloadavg(), flush=True)
            report = local.report()
            assert report.progress is not None
            return {
                "seconds": seconds,
                "steps": report.progress.step,
                "generations": report.generation,
                "recoveries": dict(report.recoveries),
            }
        finally:
            os.killpg(local.launcher.pid, signal.SIGKILL)
            await local.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3600.0)
    print(json.dumps(asyncio.run(watch(parser.parse_args().seconds))))


if __name__ == "__main__":
    main()
