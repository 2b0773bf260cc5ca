"""Runs steps whose length varies tenfold, and counts the changes of the group: there may be none.

    python tests/benchmarks/recovery/false_alarms.py --seconds 3600

Prints one line a minute, then one of JSON; exits with 1 where somebody was taken for lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import ours

from shardwise.local.run import LocalRun, Setting

WORKERS = 3


async def watch(seconds: float) -> dict[str, object]:
    """The group's changes in that time, after it has formed."""
    ours.find_models()
    with tempfile.TemporaryDirectory() as folder:
        job = ours.job(10_000_000, WORKERS, entrypoint="uneven:task", shards=3)
        local = LocalRun(job, Setting(workers=WORKERS, output=Path(folder, "out")), Path(folder))
        await local.start()
        assert local.launcher is not None
        try:
            await ours.until(lambda: len(local.report().members) == WORKERS, "group")
            began, loads = time.monotonic(), []
            while (left := began + seconds - time.monotonic()) > 0:
                await asyncio.sleep(min(60.0, left))
                report = local.report()
                step = report.progress.step if report.progress else 0
                loads.append(os.getloadavg()[0])
                print(step, dict(report.recoveries), f"load {loads[-1]:.1f}", flush=True)
            report = local.report()
            assert report.progress is not None
            return {
                "seconds": seconds,
                "steps": report.progress.step,
                "generations": report.generation,
                "recoveries": dict(report.recoveries),
                "load": [round(min(loads), 1), round(max(loads), 1)],
            }
        finally:
            await ours.end(local)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    found = asyncio.run(watch(parser.parse_args().seconds))
    print(json.dumps(found))
    sys.exit(1 if found["recoveries"] else 0)


if __name__ == "__main__":
    main()
