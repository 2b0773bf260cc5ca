"""TPE and NSGA-II: Optuna's, asked and told in this process's memory.

The one module that imports Optuna, and only where a sweep asks for it. What it suggests follows
from the seed and the order of asks and tells.
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from shardwise.sweep.space import Assigned, Parameter, Space, Value

# It writes a line for each study and each failed trial.
optuna.logging.set_verbosity(optuna.logging.CRITICAL)


class OptunaAlgorithm:
    """One of Optuna's samplers.

    Args:
        space: the sweep's parameters.
        name: `TPE` or `NSGA2`.
        seed: what all suggestions follow from.
        total: how many trials there are.
        directions: of the objectives: one for TPE, one or more for NSGA2.

    Raises:
        ValueError: the number of objectives does not fit.
    """

    adaptive = True

    def __init__(
        self, space: Space, name: str, seed: int, total: int, directions: Sequence[str]
    ) -> None:
        if not directions or (name == "TPE" and len(directions) > 1):
            wanted = "exactly one objective" if name == "TPE" else "at least one objective"
            raise ValueError(f"{name} needs {wanted}; the spec has {len(directions)}")
        self._space, self._tpe, self.total = space, name == "TPE", total
        self.order = range(total)
        self._assigned: list[Assigned] = []
        self._trials: list[Trial] = []
        self._storage = _Storage()
        self._study = optuna.create_study(
            storage=self._storage,
            sampler=_sampler(name, seed),
            directions=[StudyDirection[direction.upper()] for direction in directions],
        )
        self._study_id = self._storage.get_study_id_from_name(self._study.study_name)

    def begin(self, trial: int) -> None:
        asked = self._study.ask()
        self._trials.append(asked)
        assigned: Assigned = {}
        for parameter in self._space.parameters:
            if parameter.holds(assigned):
                assigned[parameter.name] = _suggest(asked, parameter)
        self._assigned.append(assigned)

    def assigned(self, trial: int) -> Assigned:
        if trial >= len(self._assigned):
            raise KeyError(f"task {trial} is not suggested yet")
        return dict(self._assigned[trial])

    def value(self, trial: int, parameter: Parameter) -> Value | None:
        return self.assigned(trial).get(parameter.name)

    def tell(self, trial: int, trained: int, values: Sequence[float] | None, *, last: bool) -> None:
        """A trial that may still be promoted counts with what it has come to so far: TPE ranks it
        below all that were trained longer, NSGA-II takes it as it is."""
        number = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial)
        state = TrialState.FAIL if values is None else TrialState.COMPLETE
        if values is not None and not last and self._tpe:
            state = TrialState.PRUNED
            self._storage.set_trial_intermediate_value(number, trained, values[0])
        if self._storage.get_trial(number).state.is_finished():
            self._storage.set_trial_state_values(number, state, values)
        elif state == TrialState.COMPLETE:
            self._study.tell(self._trials[trial], list(values or ()))
        else:
            self._study.tell(self._trials[trial], state=state)


class _Storage(InMemoryStorage):
    """In memory; a trial that waits at a rung counts as ended, and its training may go on."""

    def check_trial_is_updatable(self, trial_id: int, trial_state: TrialState) -> None:
        pass


def _sampler(name: str, seed: int) -> BaseSampler:
    if name == "NSGA2":
        return NSGAIISampler(seed=seed)
    # As Optuna 5 has it by default for one objective, spelled out.
    return TPESampler(seed=seed, multivariate=True, constant_liar=True)


def _suggest(trial: Trial, parameter: Parameter) -> Value:
    if parameter.values is not None:
        chosen = trial.suggest_categorical(parameter.name, parameter.values)
        assert isinstance(chosen, int | str)
        return chosen
    given = parameter.range
    assert given is not None
    if given.integer:
        return trial.suggest_int(parameter.name, int(given.low), int(given.high), log=given.log)
    return given.write(
        trial.suggest_float(parameter.name, float(given.low), float(given.high), log=given.log)
    )
