"""Whether a step's loss and the parameters that it makes are numbers; if not, which is not.

Both follow from sums that all members of a group share to the last bit, so all find the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from shardwise.engine.flat import Entry
from shardwise.engine.usercode import NotFiniteError

_REMEDY = "lower the learning rate, set clip_norm, or look for samples that are not finite"


def check(step: int, loss: float, parameters: Tensor, entries: Sequence[Entry]) -> None:
    """Refuse a step before it happens.

    A gradient that is not finite makes a parameter that is not, whatever the optimizer, so the
    parameters are looked at alone: one pass over them, in a fraction of the optimizer's time.

    Args:
        step: its number, from 1.
        loss: of the global batch.
        parameters: as the step makes them, shape (length,).
        entries: the names and places of the tensors in them.

    Raises:
        NotFiniteError: the loss or a parameter is NaN or infinite; names it.
    """
    if not math.isfinite(loss):
        raise NotFiniteError(f"the loss of step {step} is {loss}; {_REMEDY}")
    least, most = torch.aminmax(parameters)  # a NaN is both
    if math.isfinite(least) and math.isfinite(most):
        return
    names = [e.name for e in entries if not bool(torch.isfinite(parameters[e.slice]).all())]
    named = f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else "".join(names)
    raise NotFiniteError(
        f"the gradient of step {step}, whose loss is {loss:.6g}, makes {named} NaN or infinite; "
        f"{_REMEDY}, or for a root or logarithm of 0"
    )
