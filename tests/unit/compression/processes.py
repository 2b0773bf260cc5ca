"""Groups of processes over gloo, each of which compresses the same model by every method.

    python processes.py FOLDER SIZE...

FOLDER has the trained weights, linear.pt and convolution.pt; it gets a file SIZE.json for each
group with the hashes of what each member would have written: by method, a list with one entry a
member. Each makes the weights, and the last one all files. All groups work at the same time:
while one exports, which is the work of one process, the others use what is left of the machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from methods import STATIC, STEPS
from small import finished, make_task, pipeline

from shardwise.compression.artifacts import FILES
from shardwise.compression.deployment import deploy

TIMEOUT = timedelta(seconds=600)
WIDTHS = {"linear": 24, "convolution": 8}


def kind(method):
    """Convolutions where the method treats them in a way of its own."""
    special = ("obs", "gptq", "channels", "static")
    return "convolution" if any(word in method for word in special) else "linear"


class Peers:
    """A group over a plain gloo process group."""

    def __init__(self, group, rank, size):
        self.group, self.rank, self.size = group, rank, size

    def send(self, tensor, to, tag):
        return self.group.send([tensor], to, tag)

    def receive(self, tensor, source, tag):
        return self.group.recv([tensor], source, tag)


def work(folder, rank, size):
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"store-{size}"), size)
    group = Peers(dist.ProcessGroupGloo(store, rank, size, TIMEOUT), rank, size)
    found = {}
    for method, steps in (STEPS | STATIC).items():
        task = make_task(width=WIDTHS[kind(method)], convolution=kind(method) == "convolution")
        task.model.load_state_dict(torch.load(folder / f"{kind(method)}.pt"))
        deployed = deploy(finished(pipeline(task, {"steps": steps}), group).subject)
        files = {"model.safetensors": deployed.packed()}
        if rank == size - 1:
            for _, make in FILES:
                files |= make(deployed, files["model.safetensors"])
        found[method] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    (folder / f"{size}-{rank}.json").write_text(json.dumps(found))


def main(folder, sizes):
    children = []
    for size in sizes:
        for rank in range(size):
            child = os.fork()
            if child == 0:
                work(folder, rank, size)
                os._exit(0)
            children.append(child)
    if any([os.waitpid(child, 0)[1] for child in children]):
        sys.exit("a member failed")
    for size in sizes:
        parts = [json.loads((folder / f"{size}-{rank}.json").read_text()) for rank in range(size)]
        whole = {method: [part[method] for part in parts] for method in parts[0]}
        (folder / f"{size}.json").write_text(json.dumps(whole))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(size) for size in sys.argv[2:]])
