"""Static int8: ranges of what flows between layers, over shards, then torchao's PT2E conversion.

torchao says where to observe and turns the graph into one of integers. What it observes is ours:
its own observer widens its histogram as it goes, so its counts depend on the order of the samples.
Here the first pass finds the least and greatest values, the second counts in fixed bins (int64),
and both add up exactly.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shardwise.compression.errors import CompressionError
from shardwise.compression.examples import example_inputs
from shardwise.compression.exporting import exported
from shardwise.compression.reduction import Samples, extremes, reduce_shards
from shardwise.compression.stages import Surroundings
from shardwise.compression.subject import Subject
from shardwise.engine.group import Group
from shardwise.engine.task import Task
from shardwise.engine.usercode import user_code

BINS = 2048
STATIC = "static"


class StaticRanges:
    """A stage of two advances: the ranges, then the histograms."""

    def __init__(self, subject: Subject, around: Surroundings, edit: str) -> None:
        self._subject, self._around, self._edit = subject, around, edit
        self._prepared = Prepared(subject.task)
        self._limits: tuple[Tensor, Tensor] | None = None
        self.position = 0

    @property
    def done(self) -> bool:
        return self.position >= 2

    def advance(self, group: Group) -> None:
        samples = self._around.calibration(self._subject)
        if self._limits is None:
            limits = self._prepared.limits(group, samples)
            self._limits = limits
        else:
            least, most = self._limits
            counts = self._prepared.histograms(group, samples, least, most)
            self._subject.ranges = {
                name: torch.cat([torch.stack([least[i], most[i]]).double(), counts[i].double()])
                for i, name in enumerate(self._prepared.observers)
            }
            self._subject.activations = STATIC
            self._subject.edits.append(f"{self._edit} {STATIC}")
        self.position += 1

    def state(self) -> dict[str, Tensor]:
        if self._limits is None:
            return {}
        return {"least": self._limits[0], "most": self._limits[1]}

    def load_state(self, position: int, state: Mapping[str, Tensor]) -> None:
        if "least" in state:
            self._limits = (state["least"], state["most"])
        self.position = position


class Still(nn.Module):
    """A prepared graph as a module that train() and eval() leave alone: it has but one mode."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def train(self, mode: bool = True) -> Still:
        del mode
        return self

    def forward(self, *inputs: Tensor) -> Any:
        return self.graph(*inputs)


class _Recorder(nn.Module):
    """Stands where torchao observes, and hands what flows by to `take`."""

    def __init__(self) -> None:
        super().__init__()
        self.take: Callable[[Tensor], None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.take is not None:
            self.take(x.detach())
        return x


class Prepared:
    """The exported graph with the places that torchao wants to observe.

    Attributes:
        observers: torchao's activation observers by name, one a range.

    Raises:
        CompressionError: torchao is missing, or finds nothing to quantize in the model.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        prepare, _, quantizer = _library()
        program = exported(task)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about torch
            self.graph: Any = prepare(program.module(check_guards=False), quantizer)
        places: dict[int, list[str]] = {}
        self.observers: dict[str, Any] = {}
        for name, module in self.graph._modules.items():
            if type(module).__name__ == "HistogramObserver":
                if id(module) not in places:
                    self.observers[name] = module
                places.setdefault(id(module), []).append(name)
        if not self.observers:
            raise CompressionError(
                "quantize.activations: Static: the model has no layer that can be quantized: no "
                "Linear or convolution; write activations: None"
            )
        self._places = {names[0]: names for names in places.values()}

    def limits(self, group: Group, samples: Samples) -> tuple[Tensor, Tensor]:
        """The least and greatest value at each observer: float32, shape (observers,)."""
        count = len(self.observers)

        def compute(shard: int) -> tuple[Tensor, Tensor]:
            least, most = torch.full((count,), torch.inf), torch.full((count,), -torch.inf)

            def take(index: int, x: Tensor) -> None:
                least[index] = torch.minimum(least[index], x.amin())
                most[index] = torch.maximum(most[index], x.amax())

            self._run(samples, shard, take)
            return least, most

        memo = samples.memo("limits", self._task.model, detail=self._observed())
        least, most = extremes(group, samples.shards, count, compute, memo)
        for index, name in enumerate(self.observers):
            if not bool(torch.isfinite(least[index]) & torch.isfinite(most[index])):
                raise CompressionError(
                    f"quantize.activations: Static: what flows by {name} is not finite; look for "
                    "samples that are not finite"
                )
        # Zero must have a level of its own, and a range must have a width.
        return least.clamp(max=0.0), most.clamp(min=0.0)

    def histograms(self, group: Group, samples: Samples, least: Tensor, most: Tensor) -> Tensor:
        """Counts in BINS equal bins between the limits: int64, shape (observers, BINS)."""
        count = len(self.observers)
        low, width = least.double(), (most.double() - least.double()).clamp_(min=1e-30)

        def compute(shard: int) -> Tensor:
            counts = torch.zeros(count, BINS, dtype=torch.int64)

            def take(index: int, x: Tensor) -> None:
                place = (x.reshape(-1).double() - low[index]) / width[index] * BINS
                counts[index] += torch.bincount(place.long().clamp_(0, BINS - 1), minlength=BINS)

            self._run(samples, shard, take)
            return counts.view(-1)

        bounds = f"{least.tolist()} {most.tolist()}"
        memo = samples.memo("histograms", self._task.model, detail=self._observed() + bounds)
        total = reduce_shards(group, samples.shards, count * BINS, torch.int64, compute, memo)
        return total.view(count, BINS)

    def _observed(self) -> str:
        return " ".join(self.observers)

    def _run(self, samples: Samples, shard: int, take: Callable[[int, Tensor], None]) -> None:
        """Run a shard's micro-batches with `take(observer's number, values)` at each observer."""
        kept = dict(self.graph._modules)
        for index, name in enumerate(self.observers):
            recorder = _Recorder()
            recorder.take = lambda x, index=index: take(index, x)
            for place in self._places[name]:
                self.graph._modules[place] = recorder
        try:
            model = Still(self.graph)
            for _, batch in samples.batches(shard):
                with torch.no_grad(), user_code("loss"):
                    self._task.loss(model, batch)
        finally:
            self.graph._modules.update(kept)

    def converted(self, ranges: Mapping[str, Tensor]) -> nn.Module:
        """The graph of integers, without the floating-point weights that it has no use for."""
        with torch.no_grad():
            self.graph(*example_inputs(self._task))  # torchao's own observers see the weights
        for name, observer in self.observers.items():
            found = ranges[name]
            observer.min_val = found[0].float()
            observer.max_val = found[1].float()
            observer.histogram = found[2:].float()
            observer.bins = BINS
        _, convert, _ = _library()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = convert(self.graph)
        _drop_unused(graph)
        # It has but one mode. Not wrapped, as Still does it: the exporters know its names.
        graph.train = lambda mode=True: graph
        graph.eval = lambda: graph
        converted: nn.Module = graph
        return converted


def _library() -> tuple[Any, Any, Any]:
    # The first has CUDA parts that cannot load here; the second tells of torchao's own code.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
            from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
    except ImportError as error:
        raise CompressionError(
            "quantize.activations: Static needs the package torchao; install shardwise[compression]"
        ) from error
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    return prepare_pt2e, convert_pt2e, quantizer


def _drop_unused(graph: Any) -> None:
    """Take out what no node reads: convert_pt2e leaves the floating-point weights in."""
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in _tensors(graph)]:
        if name not in used:
            owner, _, attribute = name.rpartition(".")
            delattr(graph.get_submodule(owner), attribute)


def _tensors(graph: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from graph.named_parameters(remove_duplicate=False)
    yield from graph.named_buffers(remove_duplicate=False)
