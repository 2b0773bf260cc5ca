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


@pytest.mark.parametrize("name", chaos.MODELS)
def test_links_are_cut_and_healed_again_and_again(name):
    number = chaos.count(30)
    steps = 200 + 60 * number
    dice = random.Random(chaos.SEED)
    lost = []
    with network(WORKERS) as net:

        class Run(NetworkRun):
            network = net

        async def cut(local):
            for _ in range(number):
                full = lambda: len(local.report().members) == WORKERS  # noqa: E731
                await chaos.until(full, "full strength")
                later = chaos.step(local) + dice.randrange(5, 20)
                await chaos.until(lambda later=later: chaos.step(local) >= later, "some steps")
                index = dice.randrange(WORKERS)
                net.cut(index)
                seen = lambda: f"worker-{index}" not in local.report().members  # noqa: B023, E731
                await chaos.until(seen, "the loss is noticed")
                done = chaos.step(local)
                await chaos.until(lambda done=done: chaos.step(local) > done, "the others go on")
                lost.append(local.report().losses[-1].cause)
                net.heal(index)

        done = chaos.run(chaos.manifest(steps, name), workers=WORKERS, driver=cut, kind=Run)
    assert done.hashes == chaos.undisturbed(steps, name)
    assert len(lost) == number, "the run was long enough for every cut"
    assert set(lost) == {"Unreachable"}
    assert done.ended.report.lost_steps == 0
