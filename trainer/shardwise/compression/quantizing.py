"""The step `quantize`: rounding to nearest, GPTQ, static and dynamic int8, and training for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from shardwise.compression.aware import rounding_loss
from shardwise.compression.finetune import Tuning
from shardwise.compression.grid import fit_grid
from shardwise.compression.hessians import check_solvable, gather_hessians, rounds
from shardwise.compression.layers import Weight, choose_weights
from shardwise.compression.settings import FineTune, Quantize
from shardwise.compression.solve import quantize_with_hessian
from shardwise.compression.stages import Rounds, Stage, Surroundings
from shardwise.compression.static import StaticRanges
from shardwise.compression.subject import Quantized, Subject
from shardwise.engine.group import Group

FIELD = "quantize"
EDIT = "activations"


def stages(
    subject: Subject, settings: Quantize, tune: FineTune | None, around: Surroundings
) -> Sequence[Callable[[], Stage]]:
    """What makes the stages of one quantization step, each when it is reached.

    Raises:
        CompressionError: a layer is not the model's, or cannot be solved for.
    """
    weights = choose_weights(subject.model, settings.ignore, FIELD)
    then: list[Callable[[], Stage]] = []
    if tune is not None:
        loss = rounding_loss(subject, settings, list(weights))
        then.append(lambda: Tuning(subject, tune, around, loss=loss))
    if settings.activations == "Static":
        return [*then, lambda: StaticRanges(subject, around, EDIT)]
    if settings.method == "GPTQ":
        check_solvable(weights)
        cut = rounds(weights)

        def solve(group: Group, number: int) -> None:
            _solve(group, subject, settings, around, weights, cut[number])

        solving: Callable[[], Stage] = lambda: Rounds(len(cut), solve)  # noqa: E731
        return [*then, solving]

    def nearest(group: Group, number: int) -> None:
        del group, number
        for name, weight in weights.items():
            subject.add_quantized(name, round_to_nearest(weight.matrix(), settings))
        if settings.activations == "Dynamic":
            set_activations(subject, "dynamic")

    return [*then, lambda: Rounds(1, nearest)]


def round_to_nearest(matrix: Tensor, settings: Quantize) -> Quantized:
    """A weight's nearest levels. Zeros stay exactly zero."""
    grid = fit_grid(
        matrix, bits=settings.bits, group_size=settings.group_size, symmetric=settings.symmetric
    )
    return Quantized(levels=grid.levels(matrix), grid=grid)


def _solve(
    group: Group,
    subject: Subject,
    settings: Quantize,
    around: Surroundings,
    weights: Mapping[str, Weight],
    names: Sequence[str],
) -> None:
    """Gather a round's Hessians and solve for its weights; every member solves all of them."""
    samples = around.calibration(subject)
    hessians = gather_hessians(group, subject.task, samples, weights, names)
    solved = {}
    for name in names:
        around.beat("loading")
        levels, grid = quantize_with_hessian(
            weights[name].matrix(),
            hessians[name],
            bits=settings.bits,
            group_size=settings.group_size,
            symmetric=settings.symmetric,
            kept=subject.masks.get(name),
            name=name,
        )
        solved[name] = Quantized(levels=levels, grid=grid)
    for name, quantized in solved.items():
        subject.add_quantized(name, quantized)


def set_activations(subject: Subject, kind: str) -> None:
    subject.activations = kind
    subject.edits.append(f"{EDIT} {kind}")


def replay(subject: Subject, edit: str) -> None:
    subject.activations = edit.partition(" ")[2]
