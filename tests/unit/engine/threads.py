"""Groups whose workers are threads of the test: the engine's exchange without a network."""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import Tensor

TIMEOUT_SECONDS = 60.0


class _Sent:
    def wait(self) -> None:
        return None


class _Receipt:
    def __init__(self, box: queue.Queue[Tensor], target: Tensor) -> None:
        self.box, self.target = box, target

    def wait(self) -> None:
        self.target.copy_(self.box.get(timeout=TIMEOUT_SECONDS))


class ThreadGroup:
    """One member of a group of threads."""

    def __init__(self, rank: int, size: int, boxes: dict[Any, queue.Queue[Tensor]]) -> None:
        self.rank, self.size, self.boxes = rank, size, boxes

    def send(self, tensor: Tensor, to: int, tag: int) -> _Sent:
        self.boxes[self.rank, to, tag].put(tensor.clone())
        return _Sent()

    def receive(self, tensor: Tensor, source: int, tag: int) -> _Receipt:
        return _Receipt(self.boxes[source, self.rank, tag], tensor)


def together(size: int, work: Callable[[ThreadGroup], Any]) -> list[Any]:
    """Run `work` on every member of a group of `size`; its results by rank."""
    lock, boxes = threading.Lock(), defaultdict[Any, queue.Queue[Tensor]](queue.Queue)

    class Boxes(dict[Any, queue.Queue[Tensor]]):
        def __missing__(self, key: Any) -> queue.Queue[Tensor]:
            with lock:
                return boxes[key]

    results: list[Any] = [None] * size
    errors: list[Exception] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadGroup(rank, size, Boxes()))
        except Exception as error:  # raised again by the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_SECONDS)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "a member of the group hangs"
    return results
