"""The step `prune`: its stages, at once or on a schedule during the fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from torch import Tensor

from shardwise.compression.finetune import Tuning
from shardwise.compression.hessians import check_solvable, gather_hessians, rounds
from shardwise.compression.layers import Weight, choose_weights, resolve_name
from shardwise.compression.scores import gradient_scores, magnitudes
from shardwise.compression.select import cubic, masks_of, two_of_four_masks
from shardwise.compression.settings import FineTune, Prune
from shardwise.compression.solve import lowest, prune_with_hessian, two_of_four
from shardwise.compression.stages import Rounds, Stage, Surroundings
from shardwise.compression.structured import prune_channels
from shardwise.compression.subject import Subject
from shardwise.engine.group import Group

FIELD = "prune"


def stages(
    subject: Subject, settings: Prune, tune: FineTune | None, around: Surroundings
) -> Sequence[Callable[[], Stage]]:
    """What makes the stages of one pruning step, each when it is reached.

    Raises:
        CompressionError: a layer is not the model's, or cannot be solved for.
    """
    then: list[Callable[[], Stage]] = []
    if tune is not None:
        then.append(lambda: Tuning(subject, tune, around))
    if settings.pattern == "Channels":
        return [lambda: prune_channels(subject, settings, around), *then]
    weights = choose_weights(subject.model, settings.ignore, FIELD)
    layers = {
        resolve_name(weights, name, f"{FIELD}.layers"): part
        for name, part in settings.layers.items()
    }
    if settings.every_steps is not None and tune is not None:
        return [lambda: Gradual(subject, settings, tune, around, weights, layers)]
    if settings.method == "OBS":
        check_solvable(weights)
        cut = rounds(weights)

        def solve(group: Group, number: int) -> None:
            _solve(group, subject, settings, around, weights, layers, cut[number])

        return [lambda: Rounds(len(cut), solve), *then]

    def choose(group: Group, number: int) -> None:
        del number
        scores = _scores(group, subject, settings, around, weights)
        subject.add_masks(_masks(scores, settings, settings.sparsity, layers))

    return [lambda: Rounds(1, choose), *then]


def _scores(
    group: Group,
    subject: Subject,
    settings: Prune,
    around: Surroundings,
    weights: Mapping[str, Weight],
) -> dict[str, Tensor]:
    if settings.method == "Magnitude":
        return magnitudes(weights)
    samples = around.calibration(subject)
    score: Literal["taylor", "fisher"] = "taylor" if settings.method == "Taylor" else "fisher"
    return gradient_scores(group, subject.task, samples, weights, score)


def _masks(
    scores: Mapping[str, Tensor], settings: Prune, sparsity: float, layers: Mapping[str, float]
) -> dict[str, Tensor]:
    if settings.pattern == "TwoOfFour":
        return two_of_four_masks(scores)
    return masks_of(
        scores, sparsity, scope="global" if settings.scope == "Global" else "uniform", layers=layers
    )


def _solve(
    group: Group,
    subject: Subject,
    settings: Prune,
    around: Surroundings,
    weights: Mapping[str, Weight],
    layers: Mapping[str, float],
    names: Sequence[str],
) -> None:
    """Gather a round's Hessians and solve for its weights; every member solves all of them."""
    samples = around.calibration(subject)
    hessians = gather_hessians(group, subject.task, samples, weights, names)
    fours = settings.pattern == "TwoOfFour"
    solved = {}
    for name in names:
        around.beat("loading")
        choose = two_of_four if fours else lowest(layers.get(name, settings.sparsity))
        solved[name] = prune_with_hessian(
            weights[name].matrix(), hessians[name], choose, name, fours=fours
        )
    for name, (matrix, _) in solved.items():
        subject.put(weights, name, matrix)
    subject.add_masks({name: kept for name, (_, kept) in solved.items()})


class Gradual(Tuning):
    """Fine-tuning that prunes a little more every so many steps, along a cubic."""

    def __init__(
        self,
        subject: Subject,
        settings: Prune,
        tune: FineTune,
        around: Surroundings,
        weights: Mapping[str, Weight],
        layers: Mapping[str, float],
    ) -> None:
        super().__init__(subject, tune, around)
        self._settings, self._weights, self._layers = settings, weights, layers
        assert settings.every_steps is not None
        self._last = int(self.training.total_steps * settings.until)
        self._events = 1 + self._last // settings.every_steps
        self._done_events = 0

    @property
    def _due(self) -> bool:
        assert self._settings.every_steps is not None
        return (
            self._done_events < self._events
            and self.training.steps_done >= self._done_events * self._settings.every_steps
        )

    @property
    def done(self) -> bool:
        return super().done and not self._due

    def advance(self, group: Group) -> None:
        if not self._due:
            super().advance(group)
            return
        scores = _scores(group, self.subject, self._settings, self.around, self._weights)
        number = self._done_events + 1
        layers = {name: cubic(number, self._events, part) for name, part in self._layers.items()}
        sparsity = cubic(number, self._events, self._settings.sparsity)
        self.subject.add_masks(_masks(scores, self._settings, sparsity, layers))
        self.set_masks()
        self._done_events = number
        self.position += 1

    def load_state(self, position: int, state: Mapping[str, Tensor]) -> None:
        super().load_state(position, state)
        self._done_events = position - self.training.steps_done
