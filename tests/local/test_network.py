"""Links that are really cut: workers in network namespaces, whose packets vanish without a word."""

from __future__ import annotations

import os
import random

import chaos
import pytest
from network import NetworkRun, network

pytestmark = [
    pytest.mark.timeout(3600 if chaos.FULL else 1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

WORKERS = 3
STEPS = 800
"""Of each run; there are as many runs as the cuts take."""


@pytest.mark.parametrize("name", chaos.MODELS)
def test_links_are_cut_and_healed_again_and_again(name):
    number, runs, lost = chaos.count(30), 0, []
    dice = random.Random(chaos.SEED)
    with network(WORKERS) as net:

        class Run(NetworkRun):
            network = net

        async def cut_and_heal(local, index):
            full = lambda: len(local.report().members) == WORKERS  # noqa: E731
            await chaos.until(full, "full strength")
            later = chaos.step(local) + dice.randrange(5, 20)
            await chaos.until(lambda: chaos.step(local) >= later, "some steps")
            net.cut(index)
            seen = lambda: f"worker-{index}" not in local.report().members  # noqa: E731
            await chaos.until(seen, "the loss is noticed")
            done = chaos.step(local)
            await chaos.until(lambda: chaos.step(local) > done, "the others go on")
            lost.append(local.report().losses[-1].cause)
            net.heal(index)

        async def cut(local):
            while len(lost) < number:
                await cut_and_heal(local, dice.randrange(WORKERS))

        while len(lost) < number:
            runs += 1
            assert runs <= 5 + number, f"{len(lost)} cuts in {runs} runs"
            done = chaos.run(chaos.manifest(STEPS, name), workers=WORKERS, driver=cut, kind=Run)
            assert done.hashes == chaos.undisturbed(STEPS, name), f"seed {chaos.SEED}, run {runs}"
            assert done.ended.report.lost_steps == 0
            for index in range(WORKERS):  # the run may have ended before the last one was healed
                net.heal(index)
    assert set(lost) == {"Unreachable"}
