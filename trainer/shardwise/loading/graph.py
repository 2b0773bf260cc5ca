"""A model as a list of torch's operators: plain data, and what computes with it.

In JSON (`graph.json.gz`), so that a folder from anywhere can be opened: no code is in it, and none
is made of it.

    format      1
    files       name → bytes, sha256 of the files with the tensors
    state       name → "parameter" or "buffer": the tensors of model.safetensors
    constants   names of the tensors of constants.safetensors
    inputs      names of the arguments, in order
    nodes       ["input", i] | ["state", name] | ["constant", name]
                | ["torch" | "python", operator, arguments, keywords]
    output      a value

A value is null, a number, a text or a list, or one of {"v": i} (what node i gave), {"t": [...]} (a
tuple), {"f": "inf"}, {"s": [a, b, c]} (a slice), {"dtype": ...}, {"layout": ...}, {"memory": ...},
{"device": ...}, {"d": {...}} (a mapping), {"o": {...}} (a mapping whose keys are attributes too).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from shardwise.loading.operators import EXTREMES, PYTHON, operator_named
from shardwise.regular import UnsafeFileError

FORMAT: Final = 1
DEVICE: Final = torch.device("cpu")


class Fields(dict[str, Any]):
    """A mapping whose keys are attributes too, as the outputs of many libraries are."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


@dataclass(frozen=True, slots=True)
class Ref:
    """What a node gave."""

    node: int


@dataclass(frozen=True, slots=True)
class _Step:
    node: int
    call: Callable[..., Any]
    args: Any
    kwargs: Any
    done: tuple[int, ...]
    """Nodes whose results nobody needs after this one."""


class Graph(nn.Module):
    """The model that a description tells: called with tensors as the trained one is.

    Args:
        described: the content of graph.json.gz.
        tensors: of model.safetensors, by name.
        constants: of constants.safetensors, by name.

    Raises:
        UnsafeFileError: the description is not one, names an operator that a graph may not name, or
            does not fit the tensors.
    """

    def __init__(
        self,
        described: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        constants: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        if described.get("format") != FORMAT:
            raise UnsafeFileError(
                f"is of format {described.get('format')!r}, this version of Shardwise reads "
                f"{FORMAT}; load it with the version that wrote it"
            )
        self._inputs = [str(name) for name in described["inputs"]]
        self._place(described["state"], tensors)
        self._held = dict(constants)
        self._given: list[tuple[int, int]] = []
        self._states: list[tuple[int, str]] = []
        self._constants: list[tuple[int, str]] = []
        calls = [
            (number, found)
            for number, node in enumerate(described["nodes"])
            if (found := self._node(number, node)) is not None
        ]
        self._count = len(described["nodes"])
        self._output = value_of(described["output"], self._count)
        self._steps = self._ordered(calls)
        self.train(False)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """What the model computes of its arguments, given in order or by name."""
        given = dict(zip(self._inputs, args, strict=False)) | kwargs
        if len(args) + len(kwargs) != len(self._inputs) or given.keys() != set(self._inputs):
            raise TypeError(
                f"the model takes {len(self._inputs)} arguments ({', '.join(self._inputs)}); "
                f"{len(args)} were given in order and by name: {', '.join(kwargs) or 'none'}"
            )
        values: list[Any] = [None] * self._count
        for node, index in self._given:
            values[node] = given[self._inputs[index]]
        for node, name in self._states:
            values[node] = self._tensor(name)
        for node, name in self._constants:
            values[node] = self._held[name]
        for step in self._steps:
            values[step.node] = step.call(*_put(step.args, values), **_put(step.kwargs, values))
            for node in step.done:
                values[node] = None
        return _put(self._output, values)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Graph:
        self._held = {name: fn(tensor) for name, tensor in self._held.items()}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _place(self, kinds: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
        if kinds.keys() != tensors.keys():
            odd = sorted(kinds.keys() ^ tensors.keys())
            raise UnsafeFileError(f"and the weights are of two models: only one has {odd[0]!r}")
        for name, kind in kinds.items():
            *path, last = name.split(".")
            module: nn.Module = self
            try:
                for part in path:
                    if part not in module._modules:
                        module.add_module(part, nn.Module())
                    found = module._modules[part]
                    assert found is not None
                    module = found
                if kind == "parameter":
                    held = nn.Parameter(tensors[name], requires_grad=False)
                    module.register_parameter(last, held)
                else:
                    module.register_buffer(last, tensors[name])
            except KeyError as error:
                raise UnsafeFileError(f"names a tensor {name!r}, which no module has") from error

    def _node(self, number: int, node: Sequence[Any]) -> tuple[Any, Any, Any] | None:
        kind, what, *rest = node
        if kind == "input":
            if what not in range(len(self._inputs)):
                raise UnsafeFileError(f"node {number}: there is no input {what!r}")
            self._given.append((number, int(what)))
        elif kind == "state":
            self._tensor(str(what))
            self._states.append((number, str(what)))
        elif kind == "constant":
            if what not in self._held:
                raise UnsafeFileError(f"node {number}: there is no constant {what!r}")
            self._constants.append((number, str(what)))
        else:
            args, kwargs = rest
            call = _callable(str(kind), str(what), number)
            keywords = {str(key): value_of(value, number) for key, value in kwargs.items()}
            return call, [value_of(value, number) for value in args], keywords
        return None

    def _tensor(self, name: str) -> Tensor:
        path, _, last = name.rpartition(".")
        try:
            module = self.get_submodule(path)
        except AttributeError as error:
            raise UnsafeFileError(f"names a tensor {name!r} that is not there") from error
        found = module._parameters.get(last, module._buffers.get(last))
        if found is None:
            raise UnsafeFileError(f"names a tensor {name!r} that is not there")
        return found

    def _ordered(self, calls: Sequence[tuple[int, tuple[Any, Any, Any]]]) -> list[_Step]:
        """The calls with what each lets go of: the memory is that of the trained model."""
        last: dict[int, int] = {}
        for number, (_, args, kwargs) in calls:
            for node in (*_refs(args), *_refs(kwargs), number):
                last[node] = number
        kept = set(_refs(self._output))
        done: dict[int, list[int]] = {}
        for node, number in last.items():
            if node not in kept:
                done.setdefault(number, []).append(node)
        return [
            _Step(number, call, args, kwargs, tuple(done.get(number, ())))
            for number, (call, args, kwargs) in calls
        ]


def _callable(kind: str, name: str, number: int) -> Callable[..., Any]:
    if kind == "python" and (name in PYTHON or name in EXTREMES):
        return PYTHON[name] if name in PYTHON else EXTREMES[name]
    try:
        if kind == "torch":
            return operator_named(name)
    except LookupError as error:
        raise UnsafeFileError(f"node {number}: {error.args[0]}") from error
    raise UnsafeFileError(f"node {number}: there is no operator {name!r} of {kind!r}")


_KINDS: Final[Mapping[str, type]] = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory": torch.memory_format,
}


def value_of(told: Any, nodes: int) -> Any:
    """A value of the description, with a `Ref` where it names a node before `nodes`.

    Raises:
        UnsafeFileError: it is none.
    """
    if told is None or isinstance(told, bool | int | float | str):
        return told
    if isinstance(told, list):
        return [value_of(each, nodes) for each in told]
    if isinstance(told, dict) and len(told) == 1:
        ((kind, body),) = told.items()
        if kind in _KINDS:
            found = getattr(torch, str(body), None)
            if isinstance(found, _KINDS[kind]):
                return found
        elif (read := _READERS.get(kind)) is not None:
            return read(body, nodes)
    raise UnsafeFileError(f"holds {str(told)[:80]!r}, which is no value of a graph")


def _ref(body: Any, nodes: int) -> Ref:
    if not isinstance(body, int) or not 0 <= body < nodes:
        raise UnsafeFileError(f"names node {body!r} before it is there")
    return Ref(body)


def _slice(body: Any, nodes: int) -> Any:
    start, stop, step = (value_of(each, nodes) for each in body)
    return _Slice(start, stop, step)


@dataclass(frozen=True, slots=True)
class _Slice:
    start: Any
    stop: Any
    step: Any


def _mapping(body: Any, nodes: int) -> dict[str, Any]:
    return {str(key): value_of(value, nodes) for key, value in body.items()}


_READERS: Final[Mapping[str, Callable[[Any, int], Any]]] = {
    "v": _ref,
    "s": _slice,
    "t": lambda body, nodes: tuple(value_of(each, nodes) for each in body),
    "f": lambda body, _: float(body),
    "device": lambda _body, _nodes: DEVICE,
    "d": _mapping,
    "o": lambda body, nodes: Fields(_mapping(body, nodes)),
}


def _put(value: Any, values: Sequence[Any]) -> Any:
    """The value with what the nodes gave in the place of each `Ref`."""
    if isinstance(value, Ref):
        return values[value.node]
    if isinstance(value, list | tuple):
        return type(value)(_put(each, values) for each in value)
    if isinstance(value, dict):
        return type(value)((key, _put(each, values)) for key, each in value.items())
    if isinstance(value, _Slice):
        return slice(*(_put(each, values) for each in (value.start, value.stop, value.step)))
    return value


def _refs(value: Any) -> list[int]:
    if isinstance(value, Ref):
        return [value.node]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, _Slice):
        value = [value.start, value.stop, value.step]
    many = value if isinstance(value, list | tuple) else ()
    return [node for each in many for node in _refs(each)]
