"""The weights of a model that can be compressed, found by structure, and what flows into them.

A weight is a matrix: the weight of a Linear or convolution, and the projections of a
MultiheadAttention. Inputs are caught where the products are computed, below the modules, so that
weights which no module of their own multiplies (attention's) are seen as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from shardwise.compression.errors import CompressionError

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Weight:
    """A weight that can be compressed; as a matrix its rows are outputs, its columns inputs."""

    name: str
    parameter: nn.Parameter
    kind: Literal["linear", "convolution"]
    groups: int = 1

    def matrix(self) -> Tensor:
        """A view of the weight as a matrix, shape (outputs, inputs)."""
        return self.parameter.detach().view(self.parameter.shape[0], -1)


def find_weights(model: nn.Module) -> dict[str, Weight]:
    """All compressible weights by their parameter's name, in the order of the model's modules.

    A weight that is also an embedding (tied) is left out: compressing it changes the embedding.
    """
    embeddings = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)
    }
    found: dict[str, Weight] = {}
    seen: set[int] = set(embeddings)

    def add(prefix: str, attribute: str, weight: Any, kind: Any, groups: int = 1) -> None:
        if isinstance(weight, nn.Parameter) and id(weight) not in seen:
            seen.add(id(weight))
            name = f"{prefix}.{attribute}" if prefix else attribute
            found[name] = Weight(name, weight, kind, groups)

    for prefix, module in model.named_modules():
        if isinstance(module, nn.Linear):
            add(prefix, "weight", module.weight, "linear")
        elif isinstance(module, _CONVOLUTIONS):
            add(prefix, "weight", module.weight, "convolution", module.groups)
        elif isinstance(module, nn.MultiheadAttention):
            add(prefix, "in_proj_weight", module.in_proj_weight, "linear")
    return found


def choose_weights(model: nn.Module, ignore: Sequence[str], field: str) -> dict[str, Weight]:
    """The compressible weights without those that `ignore` names, by weight or by layer.

    Raises:
        CompressionError: a name is none of the model's, or nothing is left.
    """
    weights = find_weights(model)
    for name in ignore:
        if not _named(weights, name):
            raise CompressionError(
                f"{field}.ignore: the model has no weight of a layer {name!r} that could be "
                f"compressed; it has {', '.join(weights) or 'none'}"
            )
    ignored = {found for name in ignore for found in _named(weights, name)}
    left = {name: weight for name, weight in weights.items() if name not in ignored}
    if not left:
        raise CompressionError(
            f"{field}: the model has no weight to compress: no Linear, convolution or "
            "MultiheadAttention is left"
        )
    return left


def resolve_name(weights: Mapping[str, Weight], name: str, field: str) -> str:
    """The one weight that `name` (a weight's name, or its layer's) stands for."""
    found = _named(weights, name)
    if len(found) != 1:
        raise CompressionError(
            f"{field}: {name!r} names {len(found)} weights, not one; there are {', '.join(weights)}"
        )
    return found[0]


def _named(weights: Mapping[str, Weight], name: str) -> list[str]:
    return [known for known in weights if known == name or known.startswith(f"{name}.")]


@contextlib.contextmanager
def caught_inputs(
    weights: Mapping[str, Weight], take: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """While inside, `take(name, rows)` is called with what each weight is multiplied by.

    Rows have shape (positions, inputs), where a convolution's positions are its patches. Groups of
    a convolution are not told apart: the inputs are those of its first group. Convolutions have
    one or two dimensions.
    """
    with plain_attention(), torch.no_grad(), _Catcher(weights, take):
        yield


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Without fused attention layers, which hide their products and which no exporter knows."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Catcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every product below the modules and knows a weight by where its memory begins."""

    def __init__(self, weights: Mapping[str, Weight], take: Callable[[str, Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._take = take
        self._by_place = {
            (weight.parameter.data_ptr(), weight.parameter.shape[0]): name
            for name, weight in weights.items()
        }
        self._weights = weights

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self._product(args[0], args[1])
        elif name == "addmm":
            self._product(args[1], args[2])
        elif name == "convolution":
            self._convolution(*args)
        return func(*args, **(kwargs or {}))

    def _product(self, left: Tensor, right: Tensor) -> None:
        known = self._by_place.get((right.data_ptr(), right.shape[-1]))
        if known is not None and self._weights[known].kind == "linear":
            self._take(known, left.reshape(-1, left.shape[-1]))

    def _convolution(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        *_: Any,
    ) -> None:
        known = self._by_place.get((weight.data_ptr(), weight.shape[0]))
        if known is None:
            return
        if weight.dim() == 3:
            x, weight = x.unsqueeze(2), weight.unsqueeze(2)
            stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
        patches = nn.functional.unfold(
            x[:, : weight.shape[1]], weight.shape[2:], dilation, padding, stride
        )
        self._take(known, patches.transpose(1, 2).reshape(-1, patches.shape[1]))
