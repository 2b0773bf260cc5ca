"""The same model under torchft 0.2: one replica group a process, its manager's own all-reduce.

The manual path, because torchft's wrapper of DistributedDataParallel dies of an assertion in most
runs after a kill (research/fault_tolerance.md 1).
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import traced
from torchft import Manager, ProcessGroupGloo

BATCH = 192


def main() -> None:
    torch.set_num_threads(1)
    rank, size = int(os.environ["REPLICA_GROUP_ID"]), int(os.environ["NUM_REPLICA_GROUPS"])
    model = traced.model()
    inputs, labels = traced.data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def load(state: dict) -> None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    def save() -> dict:
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    manager = Manager(
        pg=ProcessGroupGloo(timeout=timedelta(seconds=5)),
        min_replica_size=1,
        load_state_dict=load,
        state_dict=save,
        replica_id=f"replica_{rank}",
        timeout=timedelta(seconds=10),
        heartbeat_interval=timedelta(milliseconds=50),
        rank=0,
        world_size=1,
        store_addr="localhost",
        store_port=int(os.environ["STORE_PORT"]),
    )
    while True:
        step = manager.current_step()
        manager.start_quorum()
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(step))
        mine = order[:BATCH][rank::size]
        optimizer.zero_grad()
        traced.loss(model, (inputs[mine], labels[mine])).mean().backward()
        for parameter in model.parameters():
            manager.allreduce(parameter.grad).wait()
        if manager.should_commit():
            optimizer.step()
            traced.trace(manager.current_step())


if __name__ == "__main__":
    main()
