"""The update of θ from the summed gradient, everywhere the same or each member its own part.

Nothing of the state changes here: what is computed is handed back, to be committed by the caller
when no exchange is left that could fail.

Where the parameters are partitioned, the updated ones are gathered instead of the sums. A member
sends its part of them only after the gradient of its neighbour's part has arrived. So who has all
parts knows that every part's new optimizer state can be had from two members, its owner and the
keeper of the copy: whoever dies next, a committed step is not lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shardwise.engine.clip import block_squares, clip_factor
from shardwise.engine.exchange import TreeSum
from shardwise.engine.flat import BLOCK
from shardwise.engine.group import Work
from shardwise.engine.layout import Layout
from shardwise.engine.parts import Part
from shardwise.engine.state import State
from shardwise.engine.task import Task
from shardwise.engine.traffic import Traffic, wait

_GRADIENT_TAG = (1 << 21) + 1


@dataclass(frozen=True)
class Updated:
    """What a step changes, beside the buffers."""

    parameters: Tensor
    """The new θ, whole; a view of the exchanged vector, or a new tensor."""
    own: Part
    copy: Part | None


class Update:
    """The second half of a step, for one group."""

    def __init__(
        self, task: Task, state: State, traffic: Traffic, layout: Layout, *, partitioned: bool
    ) -> None:
        self._task, self._state, self._traffic = task, state, traffic
        self._layout, self._partitioned = layout, partitioned
        rank = traffic.rank
        self.own = state.parts.assemble(state.step, layout.own[rank])
        copied = layout.copies[rank]
        self._copied = copied
        self.copy = None if copied is None else state.parts.assemble(state.step, layout.own[copied])
        self._keeper = layout.keeper(rank)
        state.parts.keep(*self._held, later_than=state.step)

    @property
    def _held(self) -> list[Part]:
        return [self.own] if self.copy is None else [self.own, self.copy]

    def commit(self, updated: Updated) -> None:
        """The step has been done: hold its optimizer state, and that of the one before no more."""
        self.own, self.copy = updated.own, updated.copy
        self._state.parts.keep(*self._held, later_than=updated.own.step)

    def run(self, exchange: TreeSum, total: Tensor, rate: float) -> Updated:
        """Turn the summed gradients in the own part of `total` into the new θ.

        The rest of `total` is complete afterwards: the sums that follow the gradients.

        Raises:
            GroupError: a peer is gone.
        """
        if self._partitioned:
            return self._run_partitioned(exchange, total, rate)
        exchange.gather(total)
        gradient = total[: self._state.model.parameter_length]
        if self._task.clip_norm is not None:
            _clip(gradient, block_squares(gradient), self._task.clip_norm)
        updated, own = self._apply(self.own, gradient, rate)
        return Updated(updated, own, None)

    def _run_partitioned(self, exchange: TreeSum, total: Tensor, rate: float) -> Updated:
        place = slice(*self.own.range)
        gradient = total[place]
        inbox, arrival = self._expect_gradient()
        if self._task.clip_norm is not None:
            _clip(gradient, self._gathered_squares(exchange, gradient), self._task.clip_norm)
        works: list[Work] = []
        if self._keeper is not None:
            # A copy, because the new parameters take the gradient's place.
            works.append(self._traffic.send(gradient.clone(), self._keeper, _GRADIENT_TAG))
        total[place], own = self._apply(self.own, gradient, rate)
        self._state.parts.add(own)
        wait(arrival)
        copy: Part | None = None
        try:
            works += exchange.post_gather(total)
        finally:  # even so, others may have been sent what they need to commit
            if self.copy is not None and inbox is not None:
                _, copy = self._apply(self.copy, inbox, rate)
                self._state.parts.add(copy)
        wait(works)
        return Updated(total[: self._state.model.parameter_length], own, copy)

    def _expect_gradient(self) -> tuple[Tensor | None, list[Work]]:
        if self._copied is None or self.copy is None:
            return None, []
        start, stop = self.copy.range
        inbox = torch.empty(stop - start, dtype=self._state.model.dtype)
        return inbox, [self._traffic.receive(inbox, self._copied, _GRADIENT_TAG)]

    def _gathered_squares(self, exchange: TreeSum, gradient: Tensor) -> Tensor:
        length = self._state.model.parameter_length
        everyone = torch.zeros(length // BLOCK, dtype=torch.float64)
        parts = [slice(start // BLOCK, stop // BLOCK) for start, stop in self._layout.own]
        everyone[parts[self._traffic.rank]] = block_squares(gradient)
        exchange.gather(everyone, parts)
        return everyone

    def _apply(self, part: Part, gradient: Tensor, rate: float) -> tuple[Tensor, Part]:
        """The range's new parameters and optimizer state."""
        step, parameters = self._state.step, self._state.model.parameters[slice(*part.range)]
        new, state = self._task.optimizer.update(parameters, gradient, part.state, step, rate)
        return new, Part(step + 1, part.range, state)

    def gathered(self, exchange: TreeSum) -> dict[str, Tensor]:
        """The optimizer's state vectors, whole."""
        if not self._partitioned:
            return dict(self.own.state)
        whole = {}
        for slot, part in self.own.state.items():
            vector = torch.zeros_like(self._state.model.parameters)
            vector[slice(*self.own.range)] = part
            exchange.gather(vector, [slice(start, stop) for start, stop in self._layout.own])
            whole[slot] = vector
        return whole


def _clip(gradient: Tensor, squares: Tensor, limit: float) -> None:
    """Scale the gradient, whole or a part of it, by the whole one's squares."""
    factor = clip_factor(squares, limit)
    if factor < 1.0:
        gradient.mul_(factor)
