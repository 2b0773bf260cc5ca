"""What the steps are to do: spec.compression, in its validated JSON form, as the steps read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from shardwise.api.compression_rules import kinds, problems
from shardwise.compression.errors import CompressionError


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Training after a step, with what is pruned staying pruned."""

    epochs: int | None = None
    steps: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> FineTune:
        rate = spec.get("learningRate")
        return cls(
            epochs=spec.get("epochs"),
            steps=spec.get("steps"),
            learning_rate=None if rate is None else float(rate),
            batch_size=spec.get("batchSize"),
        )


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Take weights away."""

    method: Literal["Magnitude", "Taylor", "Fisher", "OBS"] = "Magnitude"
    pattern: Literal["Unstructured", "TwoOfFour", "Channels"] = "Unstructured"
    scope: Literal["Global", "Uniform"] = "Global"
    sparsity: float = 0.5
    layers: Mapping[str, float] = field(default_factory=dict)
    ignore: Sequence[str] = ()
    every_steps: int | None = None
    """Prune gradually during the fine-tuning, every so many steps; None for all at once."""
    until: float = 0.5
    """The part of the fine-tuning's steps after which the last weights go."""

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Prune:
        schedule = spec.get("schedule") or {}
        settings = cls(
            method=spec.get("method", "Magnitude"),
            pattern=spec.get("pattern", "Unstructured"),
            scope=spec.get("scope", "Global"),
            sparsity=float(spec.get("sparsity", "0.5")),
            layers={item["name"]: float(item["sparsity"]) for item in spec.get("layers") or ()},
            ignore=tuple(spec.get("ignore") or ()),
            every_steps=schedule.get("everySteps"),
            until=float(schedule.get("until", "0.5")),
        )
        settings.check()
        return settings

    def check(self) -> None:
        """Raises CompressionError."""
        for value in (self.sparsity, *self.layers.values()):
            if not 0.0 <= value < 1.0:
                raise CompressionError(
                    f"prune.sparsity: {value:g} is not in [0, 1); at 1 no weight would be left"
                )


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """Keep weights, and what flows between layers, in few bits."""

    method: Literal["Nearest", "GPTQ"] = "Nearest"
    """How weights are rounded: to the nearest level, or so that later ones make up for it."""
    bits: int = 8
    group_size: int | None = None
    activations: Literal["None", "Static", "Dynamic"] = "None"
    ignore: Sequence[str] = ()

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Quantize:
        return cls(
            method=spec.get("method", "Nearest"),
            bits=spec.get("bits", 8),
            group_size=spec.get("groupSize"),
            activations=spec.get("activations", "None"),
            ignore=tuple(spec.get("ignore") or ()),
        )

    @property
    def symmetric(self) -> bool:
        """Eight bits are symmetric, as the integer kernels want them; fewer bits cannot afford
        the level that this costs."""
        return self.bits == 8


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Train a model on another's outputs."""

    teacher: Mapping[str, Any] | None = None
    student: Mapping[str, Any] | None = None
    temperature: float = 4.0
    alpha: float = 0.9
    samples: int | None = None
    teacher_outputs: Literal["Once", "EveryStep"] = "Once"
    features: Mapping[str, Any] | None = None

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Distill:
        settings = cls(
            teacher=spec.get("teacher"),
            student=spec.get("student"),
            temperature=float(spec.get("temperature", "4")),
            alpha=float(spec.get("alpha", "0.9")),
            samples=spec.get("samples"),
            teacher_outputs=spec.get("teacherOutputs", "Once"),
            features=spec.get("features"),
        )
        if not settings.temperature > 0.0:
            raise CompressionError(
                f"distill.temperature: {settings.temperature:g} is not positive; 2 to 20 is usual"
            )
        if not 0.0 <= settings.alpha <= 1.0:
            raise CompressionError(f"distill.alpha: {settings.alpha:g} is not in [0, 1]")
        return settings


@dataclass(frozen=True, kw_only=True)
class Guard:
    """How much accuracy the steps may cost."""

    metric: str = "accuracy"
    max_drop: float = 1.0
    on_guard: Literal["Fail", "KeepPrevious"] = "Fail"

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Guard:
        return cls(
            metric=spec.get("metric", "accuracy"),
            max_drop=float(spec["maxAccuracyDrop"]),
            on_guard=spec.get("onGuard", "Fail"),
        )


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step: exactly one of prune, quantize and distill."""

    name: str
    prune: Prune | None = None
    quantize: Quantize | None = None
    distill: Distill | None = None
    fine_tune: FineTune | None = None

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], number: int) -> Step:
        (kind,) = kinds(spec)
        tune = spec.get("fineTune")
        return cls(
            name=spec.get("name") or f"{number + 1}-{kind}",
            prune=Prune.from_spec(spec["prune"]) if kind == "prune" else None,
            quantize=Quantize.from_spec(spec["quantize"]) if kind == "quantize" else None,
            distill=Distill.from_spec(spec["distill"]) if kind == "distill" else None,
            fine_tune=FineTune.from_spec(tune) if tune is not None else None,
        )


@dataclass(frozen=True, kw_only=True)
class Compression:
    """All of spec.compression."""

    steps: tuple[Step, ...]
    source: Mapping[str, Any] | None = None
    calibration_samples: int = 1024
    calibration_batch_size: int = 64
    guard: Guard | None = None

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Compression:
        """Raises CompressionError: the steps do not go together."""
        for problem in problems(spec):
            raise CompressionError(problem)
        steps = tuple(Step.from_spec(step, number) for number, step in enumerate(spec["steps"]))
        calibration = spec.get("calibration") or {}
        return cls(
            steps=steps,
            source=spec.get("source"),
            calibration_samples=calibration.get("samples", 1024),
            calibration_batch_size=calibration.get("batchSize", 64),
            guard=Guard.from_spec(spec["guard"]) if spec.get("guard") else None,
        )
