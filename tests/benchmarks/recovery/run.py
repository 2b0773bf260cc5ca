"""Time from a SIGKILL to the next new step: Shardwise beside torchrun and torchft, in one run.

    python tests/benchmarks/recovery/run.py --blows 50 --torchft /path/with/torchft

torchft is not among this project's dependencies: `pip install --target DIR --no-deps
torchft==0.2.0`, then `pip install --target DIR opentelemetry-exporter-otlp-proto-http
opentelemetry-sdk`. Prints p50 and p99 of each, and the ratios to Shardwise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
from pathlib import Path

import ours
import peers


def figures(seconds: list[float]) -> dict[str, float | int]:
    ordered = sorted(seconds)
    return {
        "blows": len(ordered),
        "p50_ms": round(statistics.median(ordered) * 1e3, 1),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] * 1e3, 1),
        "max_ms": round(ordered[-1] * 1e3, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--blows", type=int, default=50)
    parser.add_argument("--peer-blows", type=int, default=10)
    parser.add_argument("--torchft", type=Path)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    workers, results = options.workers, {}

    def tell(name: str, seconds: list[float]) -> None:
        results[name] = figures(seconds)
        print(name, json.dumps(results[name]), flush=True)

    print("load", os.getloadavg(), flush=True)
    tell("shardwise SIGKILL", asyncio.run(ours.measure(workers, options.blows, signal.SIGKILL)))
    tell("shardwise SIGSTOP", asyncio.run(ours.measure(workers, options.blows, signal.SIGSTOP)))
    if not options.no_peers:
        tell("torchrun", peers.torchrun(workers, options.peer_blows))
        if options.torchft:
            for milliseconds in (5000, 300):
                seconds = peers.torchft(workers, options.peer_blows, options.torchft, milliseconds)
                tell(f"torchft, heartbeat {milliseconds} ms", seconds)
    print("load", os.getloadavg(), flush=True)
    ours_ms = results["shardwise SIGKILL"]["p50_ms"]
    for name, row in results.items():
        print(f"{name:>30}: p50 is {row['p50_ms'] / ours_ms:.1f} times that of Shardwise SIGKILL")


if __name__ == "__main__":
    main()
