"""Ranges of a sweep's parameters: what is wrong with one, and how large a grid is.

Pure. Numbers are exact: integers and fractions of what the manifest says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

from shardwise.api.base import SAFE_INTEGER
from shardwise.api.errors import FieldError
from shardwise.api.tasks import Range, Sweep, SweepParameter


def range_errors(at: str, parameter: SweepParameter, algorithm: str) -> Iterator[FieldError]:
    """What is wrong with the range of a parameter; `at` is where it stands."""
    found = parameter.range
    if found is None:
        return
    ends = [*_end(f"{at}.min", found, found.min), *_end(f"{at}.max", found, found.max)]
    yield from ends
    if ends:
        return
    least, most = _exact(found.min), _exact(found.max)
    if least > most:
        yield FieldError(
            f"{at}.min",
            found.min,
            f"is {found.min}, more than max ({found.max}), so the range is empty",
            "exchange them",
        )
    elif least == most:
        yield FieldError(
            f"{at}.min",
            found.min,
            f"is {found.min}, and so is max, so there is nothing to choose",
            "put it into spec.trainer.parameters, or give the parameter values",
        )
    elif found.scale == "Log" and least <= 0:
        yield FieldError(
            f"{at}.min",
            found.min,
            f"is {found.min}, and the scale is Log",
            "give a positive min, or scale: Linear",
        )
    yield from _points(f"{at}.points", found, algorithm)


def _exact(number: int | str) -> Fraction:
    return Fraction(str(number))


def _end(at: str, found: Range, number: int | str) -> Iterator[FieldError]:
    if found.type == "Int":
        if _exact(number).denominator != 1:
            yield FieldError(
                at, number, f"is {number}, and the type is Int", "give an integer, or type: Float"
            )
        elif abs(_exact(number)) > SAFE_INTEGER:
            yield FieldError(
                at, number, f"is {number}, beyond 2**53 - 1", "give an end that is nearer to 0"
            )


def _points(at: str, found: Range, algorithm: str) -> Iterator[FieldError]:
    if found.points is None:
        if found.type == "Float" and algorithm == "Grid":
            yield FieldError(
                at,
                None,
                "is missing, and a Grid cannot try every fraction",
                "add points: how many it is to try, the bounds among them",
            )
    elif found.type == "Int":
        number = int(_exact(found.max) - _exact(found.min)) + 1
        if found.points > number > 1:
            yield FieldError(
                at,
                found.points,
                f"is {found.points}, and the range has only {number} integers",
                f"give at most {number}, or leave it out to try each",
            )


def grid_size(sweep: Sweep) -> int:
    """How many tasks a Grid over sound parameters has.

    A parameter with `when` hangs on one earlier parameter, so the parameters are trees, and the
    combinations below each value of a parameter are counted once.
    """

    def below(parameter: SweepParameter) -> int:
        """The combinations of a parameter and all that hangs on it."""
        hanging = [
            (child.when.values, below(child))
            for child in sweep.parameters
            if child.when is not None and child.when.parameter == parameter.name
        ]
        if parameter.values is None:
            assert parameter.range is not None
            return _count(parameter.range)  # Nothing hangs on a range.
        return sum(
            math.prod(size if value in wanted else 1 for wanted, size in hanging)
            for value in parameter.values
        )

    return math.prod(below(parameter) for parameter in sweep.parameters if parameter.when is None)


def _count(found: Range) -> int:
    least, most = _exact(found.min), _exact(found.max)
    if found.type == "Float":
        return found.points or 0
    if found.points is None:
        return int(most - least) + 1
    last = found.points - 1
    parts = [index / last for index in range(found.points)]
    if found.scale == "Linear":
        return len(
            {round(least + (most - least) * Fraction(index, last)) for index in range(last + 1)}
        )
    ratio = math.log(most / least)
    return len({round(float(least) * math.exp(ratio * part)) for part in parts})
