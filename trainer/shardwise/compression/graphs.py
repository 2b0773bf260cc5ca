"""The model's graph as plain data, for `shardwise.loading.graph`: what torch.export traced, without
its weights and without anything that would have to be run to be read."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from safetensors.torch import save
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from shardwise.compression.deployment import Deployment
from shardwise.compression.errors import CompressionError
from shardwise.compression.exporting import exported
from shardwise.loading.folder import CONSTANTS, GRAPH, LARGEST_GRAPH, LARGEST_PACKED, WEIGHTS
from shardwise.loading.graph import FORMAT
from shardwise.loading.operators import EXTREMES, PYTHON, refusal

Node = list[Any]


def to_graph(deployed: Deployment, packed: bytes) -> dict[str, bytes]:
    """graph.json.gz, and constants.safetensors where the graph has tensors of its own.

    Args:
        packed: the bytes of model.safetensors, whose size and hash the graph holds.

    Raises:
        CompressionError: torch.export refuses the model, or it has something that is no plain data.
    """
    program = exported(deployed.subject.task, deployed.model)
    module: Any = program.module(check_guards=False)
    names = {*deployed.tensors, *deployed.tied}
    state = {name: _kind(module, name) for name in module.state_dict() if name in names}
    if missing := sorted(names - state.keys()):
        raise CompressionError(f"torch.export has no tensor {missing[0]!r}, which the model has")
    writer = _Writer(state)
    found = writer.block(module, {})
    output = writer.output(found, module._out_spec)
    constants = {
        name: tensor.detach().contiguous().clone() for name, tensor in writer.constants.items()
    }
    files = {CONSTANTS: save(constants)} if constants else {}
    described = {
        "format": FORMAT,
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in ({WEIGHTS: packed} | files).items()
        },
        "state": state,
        "constants": sorted(constants),
        "inputs": writer.inputs,
        "nodes": writer.nodes,
        "output": output,
    }
    text = json.dumps(described, separators=(",", ":"), allow_nan=False).encode()
    made = gzip.compress(text, mtime=0)
    if len(text) > LARGEST_GRAPH or len(made) > LARGEST_PACKED:
        raise CompressionError(
            f"the graph takes {len(text)} bytes, more than {LARGEST_GRAPH}: its forward repeats "
            f"{len(writer.nodes)} operators; take loops over samples or tokens out of it"
        )
    return {GRAPH: made} | files


def _kind(module: nn.Module, name: str) -> str:
    path, _, last = name.rpartition(".")
    return "parameter" if last in module.get_submodule(path)._parameters else "buffer"


class _Virtual(tuple[Any, ...]):
    """What a block inside gave: its results, which `getitem` takes from it."""


class _Writer:
    """Gathers the nodes of a graph, blocks that it holds inside written out in their place."""

    def __init__(self, state: Mapping[str, str]) -> None:
        self.nodes: list[Node] = []
        self.inputs: list[str] = []
        self.constants: dict[str, Tensor] = {}
        self._state = state
        self._known: dict[tuple[str, str], Any] = {}

    def block(self, module: fx.GraphModule, given: Mapping[str, Any]) -> Any:
        """Write a module's nodes; what its output is.

        Args:
            given: the values of its arguments by name; the model's own are inputs.
        """
        values: dict[fx.Node, Any] = {}
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values[node] = given[node.name] if given else self._input(node)
            elif node.op == "get_attr":
                values[node] = self._attribute(module, str(node.target))
            elif node.op == "call_function":
                values[node] = self._call(node, values)
            elif node.op == "output":
                return _mapped(node.args[0], values)
            else:
                raise _refused(f"a node of kind {node.op}")
        return None

    def output(self, found: Any, spec: pytree.TreeSpec | None) -> Any:
        """The model's output, as it gave it: tensors in lists, tuples and mappings."""
        leaves = list(found) if isinstance(found, list | tuple) else [found]
        return _told(found if spec is None else pytree.tree_unflatten(leaves, spec))

    def _add(self, node: Node) -> _Place:
        self.nodes.append(node)
        return _Place(len(self.nodes) - 1)

    def _input(self, node: fx.Node) -> _Place:
        self.inputs.append(node.name)
        return self._add(["input", len(self.inputs) - 1])

    def _attribute(self, module: fx.GraphModule, name: str) -> Any:
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part)
        if not isinstance(found, Tensor):
            return found  # A block.
        kind = "state" if name in self._state else "constant"
        if (kind, name) not in self._known:
            if kind == "constant":
                self.constants[name] = found
            self._known[kind, name] = self._add([kind, name])
        return self._known[kind, name]

    def _call(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        target: Any = node.target
        args, kwargs = _mapped(node.args, values), _mapped(node.kwargs, values)
        if isinstance(target, torch._ops.HigherOrderOperator):
            return self._inside(str(target), args)
        if isinstance(target, torch._ops.OpOverload):
            name = str(target)
            if why := refusal(name):
                raise _refused(f"the operator {name}, which {why}")
            return self._operator("torch", name, args, kwargs)
        name = _names().get(target, "")
        if not name:
            raise _refused(f"a call of {getattr(target, '__name__', target)}")
        if name == "getitem" and isinstance(args[0], _Virtual):
            return args[0][args[1]]
        return self._operator("python", name, args, kwargs)

    def _operator(self, kind: str, name: str, args: Any, kwargs: Any) -> _Place:
        keywords = {key: _told(value) for key, value in kwargs.items()}
        return self._add([kind, name, [_told(value) for value in args], keywords])

    def _inside(self, name: str, args: Sequence[Any]) -> _Virtual:
        """A block under a setting that matters to training alone, or to nothing here."""
        if name == "wrap_with_set_grad_enabled":
            _, block, *given = args
        elif name == "wrap_with_autocast" and args[2] is False:
            _, _, _, _, block, *given = args
        else:
            what = "autocast" if name == "wrap_with_autocast" else name
            raise _refused(f"a block under {what}")
        names = [node.name for node in block.graph.nodes if node.op == "placeholder"]
        # A block without arguments gets one that it does not look at: the model's are never its.
        found = self.block(block, dict(zip(names, given, strict=True)) or {"": None})
        return _Virtual(found if isinstance(found, list | tuple) else (found,))


class _Place:
    """A node by its number."""

    def __init__(self, number: int) -> None:
        self.number = number


def _names() -> dict[Callable[..., Any], str]:
    return {call: name for name, call in (*PYTHON.items(), *EXTREMES.items())}


def _refused(what: str) -> CompressionError:
    return CompressionError(
        f"its graph has {what}: that cannot be written as plain data; take it out of the model's "
        "forward, or use weights.safetensors with the model's code"
    )


def _mapped(value: Any, values: Mapping[fx.Node, Any]) -> Any:
    """An argument of fx with what its nodes gave in their place."""
    if isinstance(value, fx.Node):
        return values[value]
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return slice(*(_mapped(each, values) for each in parts))
    if isinstance(value, Mapping):
        return {key: _mapped(each, values) for key, each in value.items()}
    if isinstance(value, list | tuple) and not isinstance(value, _Virtual):
        made = [_mapped(each, values) for each in value]
        return made if isinstance(value, list) else tuple(made)
    return value


_TAGS: Final[Sequence[tuple[type, str]]] = (
    (torch.dtype, "dtype"),
    (torch.layout, "layout"),
    (torch.memory_format, "memory"),
)


def _told(value: Any) -> Any:
    """A value as the description has it."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"f": str(value)}
    if isinstance(value, _Place):
        return {"v": value.number}
    if isinstance(value, slice):
        return {"s": [_told(each) for each in (value.start, value.stop, value.step)]}
    if isinstance(value, torch.device):
        return {"device": value.type}
    for kind, tag in _TAGS:
        if isinstance(value, kind):
            return {tag: str(value).removeprefix("torch.")}
    return _told_many(value)


def _told_many(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        return {"o": {key: _told(each) for key, each in fields.items() if each is not None}}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise _refused("a mapping whose keys are no texts")
        return {"d" if type(value) is dict else "o": {k: _told(v) for k, v in value.items()}}
    if isinstance(value, list | fx.immutable_collections.immutable_list):
        return [_told(each) for each in value]
    if isinstance(value, tuple):
        return {"t": [_told(each) for each in value]}
    raise _refused(f"a value of type {type(value).__name__}")
