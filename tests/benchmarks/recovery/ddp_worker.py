"""The same model under torchrun and DistributedDataParallel, with a checkpoint every five steps.

torchrun is given TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, without which torch 2.13 does not recover
over gloo at all in most runs (research/fault_tolerance.md 2.1).
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
import traced
from torch import nn

BATCH, EVERY = 192, 5


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    model = traced.model()
    inputs, labels = traced.data()
    path = Path(os.environ["CHECKPOINT"])
    wrapped = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    step = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    while True:
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(step))
        mine = order[:BATCH][rank::size]
        optimizer.zero_grad()
        traced.loss(wrapped, (inputs[mine], labels[mine])).mean().backward()
        optimizer.step()
        traced.trace(step)
        step += 1
        if rank == 0 and step % EVERY == 0:
            aside = path.with_suffix(".new")
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
            }
            torch.save(state, aside)
            aside.replace(path)


if __name__ == "__main__":
    main()
