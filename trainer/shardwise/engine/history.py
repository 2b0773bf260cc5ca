"""The course of a run: the loss of every step and the metrics of every evaluation.

Every worker keeps it, so that whoever is left at the end can write it. A step costs 16 bytes.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Iterator

_HEADER = struct.Struct("<QQQ")  # first step, rows, bytes of the evaluations as JSON


class History:
    """The steps from the first on, without a gap, and the evaluations between them.

    Attributes:
        evaluations: (steps done, metrics by name) of each evaluation, in order.
    """

    def __init__(self, steps_per_epoch: int) -> None:
        self._steps_per_epoch = steps_per_epoch
        self._rows = array("d")  # loss and learning rate of each step in turn
        self.evaluations: list[tuple[int, dict[str, float]]] = []

    def __len__(self) -> int:
        """The steps done."""
        return len(self._rows) // 2

    def rows(self) -> Iterator[tuple[int, int, float, float]]:
        """(steps done, epoch from 0, training loss, learning rate) of each step."""
        for index in range(len(self)):
            loss, rate = self._rows[2 * index : 2 * index + 2]
            yield index + 1, index // self._steps_per_epoch, loss, rate

    @property
    def losses(self) -> array[float]:
        """The training loss of each step, as a copy."""
        return self._rows[::2]

    @property
    def last_loss(self) -> float | None:
        return self._rows[-2] if self._rows else None

    @property
    def last_metrics(self) -> dict[str, float]:
        return self.evaluations[-1][1] if self.evaluations else {}

    def add_step(self, loss: float, rate: float) -> None:
        self._rows.append(loss)
        self._rows.append(rate)

    def add_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """Record an evaluation after `step` steps; one recorded before at that step is replaced."""
        if self.evaluations and self.evaluations[-1][0] == step:
            self.evaluations.pop()
        self.evaluations.append((step, metrics))

    def truncate(self, step: int, evaluated: int) -> None:
        """Forget the steps after `step`, and the evaluations after the one at `evaluated`."""
        del self._rows[2 * step :]
        self.evaluations = [entry for entry in self.evaluations if entry[0] <= evaluated]

    def to_bytes(self, first: int = 0, evaluated: int = 0) -> bytes:
        """What comes after the first `first` steps and after the evaluation at step `evaluated`."""
        news = [entry for entry in self.evaluations if entry[0] > evaluated]
        text = json.dumps(news).encode()
        rows = self._rows[2 * first :]
        return _HEADER.pack(first, len(rows) // 2, len(text)) + text + rows.tobytes()

    def extend(self, data: bytes) -> None:
        """Append what another member's `to_bytes` gave; its first step is the next one here.

        Raises:
            ValueError: the bytes are damaged, or leave a gap.
        """
        if len(data) < _HEADER.size:
            raise ValueError(f"a history of {len(data)} bytes is too short for its header")
        first, rows, length = _HEADER.unpack_from(data)
        body = data[_HEADER.size :]
        if len(body) != length + 16 * rows:
            raise ValueError(
                f"a history of {rows} steps has {len(body)} bytes, not {length + 16 * rows}"
            )
        if first != len(self):
            raise ValueError(f"a history from step {first} cannot follow on {len(self)} steps")
        news = [(int(step), dict(metrics)) for step, metrics in json.loads(body[:length])]
        self._rows.frombytes(body[length:])
        for step, metrics in news:
            self.add_evaluation(step, metrics)
