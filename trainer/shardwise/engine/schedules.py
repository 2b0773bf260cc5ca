"""Learning-rate schedules: the rate's factor as a function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """Gives the factor that the optimizer's learning rate is multiplied by."""

    def factor(self, step: int, total_steps: int) -> float:
        """The factor at `step`, counted from 0, of a run of `total_steps`."""
        ...


@dataclass(frozen=True)
class Constant:
    """The learning rate as it is given, all the way."""

    def factor(self, step: int, total_steps: int) -> float:
        del step, total_steps
        return 1.0


@dataclass(frozen=True, kw_only=True)
class WarmupCosine:
    """Linear warm-up over `warmup_steps`, then half a cosine down to `final_factor`.

    The warm-up's first step has factor 1 / warmup_steps, so that no step is wasted at rate 0.
    The cosine is that of Loshchilov and Hutter 2017 (SGDR), eq. 5, without restarts.
    """

    warmup_steps: int = 0
    final_factor: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be 0 or more, not {self.warmup_steps}")
        if not 0.0 <= self.final_factor <= 1.0:
            raise ValueError(f"final_factor must be between 0 and 1, not {self.final_factor}")

    def factor(self, step: int, total_steps: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        span = max(1, total_steps - self.warmup_steps)
        share = min(1.0, (step - self.warmup_steps) / span)
        cosine = (1.0 + math.cos(math.pi * share)) / 2.0
        return self.final_factor + (1.0 - self.final_factor) * cosine
