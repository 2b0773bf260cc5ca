"""Optimizers on flat buffers, elementwise, so that any part of θ can be updated on its own.

The formulas and their order of operations are those of torch.optim (2.13, single-tensor, CPU);
a test holds them to it over 100 steps. They do not import torch.optim, whose first use loads
torch._dynamo and takes a second or more.

An update is computed into new tensors and handed back: nothing changes until the caller commits
it, so a step that fails half-way can be tried again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Optimizer(Protocol):
    """One update rule. Tensors are 1-D and of the same length: the whole of θ, or a part."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the state vectors, each as long as θ and zero at the start."""
        ...

    def update(
        self,
        parameters: Tensor,
        gradient: Tensor,
        state: Mapping[str, Tensor],
        step: int,
        rate: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The new parameters and state of `step` (from 0) at the learning rate `rate`."""
        ...


def _check_rates(learning_rate: float, weight_decay: float) -> None:
    if not learning_rate > 0.0:
        raise ValueError(f"learning_rate must be positive, not {learning_rate}")
    if weight_decay < 0.0:
        raise ValueError(f"weight_decay must be 0 or more, not {weight_decay}")


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum, Nesterov's momentum and L2 weight decay."""

    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_rates(self.learning_rate, self.weight_decay)
        if not 0.0 <= self.momentum < 1.0:
            raise ValueError(f"momentum must be in [0, 1), not {self.momentum}")
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("nesterov needs a momentum above 0")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()

    def update(
        self,
        parameters: Tensor,
        gradient: Tensor,
        state: Mapping[str, Tensor],
        step: int,
        rate: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.weight_decay:
            gradient = gradient.add(parameters, alpha=self.weight_decay)
        new: dict[str, Tensor] = {}
        if self.momentum:
            # torch starts from the first gradient itself; from zeros the same follows: 0·μ + g.
            buffer = state["momentum"].mul(self.momentum).add_(gradient)
            new["momentum"] = buffer
            gradient = gradient.add(buffer, alpha=self.momentum) if self.nesterov else buffer
        return parameters.add(gradient, alpha=-rate), new


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1), L2 weight decay in the gradient."""

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_rates(self.learning_rate, self.weight_decay)
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), not {self.betas}")
        if not self.epsilon > 0.0:
            raise ValueError(f"epsilon must be positive, not {self.epsilon}")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("first_moment", "second_moment")

    def decay(self, parameters: Tensor, gradient: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """Parameters and gradient after weight decay."""
        del rate
        if self.weight_decay:
            gradient = gradient.add(parameters, alpha=self.weight_decay)
        return parameters, gradient

    def update(
        self,
        parameters: Tensor,
        gradient: Tensor,
        state: Mapping[str, Tensor],
        step: int,
        rate: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        beta1, beta2 = self.betas
        parameters, gradient = self.decay(parameters, gradient, rate)
        first = state["first_moment"].lerp(gradient, 1 - beta1)
        second = state["second_moment"].mul(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        correction1 = 1 - beta1 ** (step + 1)
        correction2 = math.sqrt(1 - beta2 ** (step + 1))
        denominator = second.sqrt().div_(correction2).add_(self.epsilon)
        updated = parameters.addcdiv(first, denominator, value=-rate / correction1)
        return updated, {"first_moment": first, "second_moment": second}


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""

    weight_decay: float = 0.01

    def decay(self, parameters: Tensor, gradient: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        if self.weight_decay:
            parameters = parameters.mul(1 - rate * self.weight_decay)
        return parameters, gradient


def zero_state(optimizer: Optimizer, like: Tensor) -> dict[str, Tensor]:
    """The optimizer's state before the first step, for a part of θ like `like`."""
    return {slot: torch.zeros_like(like) for slot in optimizer.slots}
