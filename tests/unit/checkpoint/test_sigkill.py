"""A real process that is killed while it saves, again and again: each time the state is whole."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from states import IDENTITY, same, state

from shardwise.checkpoint import listing, newest

KILLS = 20
LENGTH = 256 * 1024
SECONDS = 60
# Forks the process that is to be killed, so that torch is loaded once only. For each line that it
# reads (the step to go on from, a generation, seconds) it answers with the last step committed.
NURSERY = """
import os, select, signal, sys
from pathlib import Path
import torch
from states import Group

torch.set_num_threads(1)  # no threads: they do not survive a fork

def save(step, generation, told):
    group = Group.at(Path(sys.argv[1]), 2, generation=generation, length=int(sys.argv[2]))
    while True:
        step += 1
        group.save(step)
        assert not group.errors, group.errors
        os.write(told, b"%d " % step)

for line in sys.stdin:
    step, generation, seconds = line.split()
    tells, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            save(int(step), int(generation), told)
        finally:
            os._exit(1)
    os.close(told)
    steps = os.read(tells, 4096)                        # it has come to full speed
    select.select([], [], [], float(seconds))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status
    while data := os.read(tells, 4096):
        steps += data
    os.close(tells)
    print(steps.split()[-1].decode(), flush=True)
"""


def test_killed_while_it_saves(tmp_path: Path) -> None:
    chance = random.Random(7)
    step, landed = 0, 0
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(tmp_path), str(LENGTH)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        for kill in range(KILLS):
            nursery.stdin.write(f"{step} {kill} {chance.uniform(0, 0.1)}\n")
            nursery.stdin.flush()
            committed = int(nursery.stdout.readline())
            landed += any(not each.committed for each in listing(str(tmp_path)))
            snapshot = newest(str(tmp_path), IDENTITY)
            assert snapshot is not None
            assert snapshot.step in (committed, committed + 1)
            assert same(snapshot, state(snapshot.step, length=LENGTH))
            step = snapshot.step
        nursery.stdin.close()
        assert nursery.wait(SECONDS) == 0
    assert landed, "no kill came while a checkpoint was half written"
    assert sum(each.committed for each in listing(str(tmp_path))) <= 3
