"""Time from a blow to the next new step: Shardwise beside torchrun and torchft, in one run.

    python tests/benchmarks/recovery/run.py --blows 50

Shardwise under SIGKILL, SIGSTOP and, as root, links that are cut; the others under SIGKILL:
torchrun with the workaround without which it seldom recovers, torchft as it ships and tuned, in a
virtual environment of its own under out/. Prints p50 and p99 of each, a usual step, and the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
from typing import Any

import ours
import peer_venv
import peers
from cuts import cuts
from tracing import Measured

SYSTEMS = ("kill", "hang", "cut", "torchrun", "torchft", "torchft-tuned")


def figures(measured: Measured) -> dict[str, Any]:
    ordered = sorted(measured.seconds)
    return {
        "blows": len(ordered),
        "p50_ms": round(statistics.median(ordered) * 1e3, 1),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] * 1e3, 1),
        "most_ms": [round(seconds * 1e3) for seconds in ordered[-5:]],
        "step_ms": round(measured.step_seconds * 1e3, 1),
    }


def measure(system: str, workers: int, blows: int) -> Measured:
    """One of the systems under its blows."""
    match system:
        case "kill":
            return asyncio.run(ours.measure(workers, blows, ours.Blows(signal.SIGKILL)))
        case "hang":
            return asyncio.run(ours.measure(workers, blows, ours.Blows(signal.SIGSTOP)))
        case "cut":
            with cuts(workers) as strikes:
                return asyncio.run(ours.measure(workers, blows, strikes))
        case "torchrun":
            return peers.torchrun(workers, blows)
        case "torchft":
            return peers.torchft(workers, blows, peer_venv.torchft_python(), {})
        case _:
            return peers.torchft(workers, blows, peer_venv.torchft_python(), peers.TUNED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--blows", type=int, default=50)
    parser.add_argument("--only", nargs="*", choices=SYSTEMS, default=SYSTEMS)
    options = parser.parse_args()
    results = {}
    for system in options.only:
        if system == "cut" and os.geteuid() != 0:
            print("cut: left out, network namespaces need root", flush=True)
            continue
        before = os.getloadavg()[0]
        results[system] = figures(measure(system, options.workers, options.blows))
        load = f"load {before:.1f} to {os.getloadavg()[0]:.1f}"
        print(f"{system:>14}", json.dumps(results[system]), load, flush=True)
    if "kill" in results:
        for name, row in results.items():
            ratio = row["p50_ms"] / results["kill"]["p50_ms"]
            print(f"{name:>14}: p50 is {ratio:.1f} times that of Shardwise's kill")


if __name__ == "__main__":
    main()
