"""The space that a sweep goes through: each parameter's values, and when it is there at all.

Pure. A value is an integer, or a string: what is not an integer travels as text, whose bytes
everyone sees alike. What is computed on a log scale is computed in decimal, so the last digit does
not depend on a machine's mathematical library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any

Value = int | str
Assigned = dict[str, Value]

_DECIMAL = Context(prec=30)
_FIELD_DIGITS = 9
"""How many decimals a fraction in spec.compression may have (`api.compression`)."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """An interval of integers or of floats, both ends included.

    Args:
        integer: whether its values are integers.
        low, high: the ends, exact.
        log: whether values are spread evenly in their logarithm; `low` is positive then.
        points: how many values a grid has; None: every integer.
        fixed: write a float with at most 9 decimals and without an exponent, as the fields of the
            spec want it; else with all its digits.
    """

    integer: bool
    low: Fraction
    high: Fraction
    log: bool = False
    points: int | None = None
    fixed: bool = False

    def at(self, u: float) -> Value:
        """The value at a place within the range, `u` in [0, 1)."""
        if self.integer:
            low, high = int(self.low), int(self.high)
            if self.log:
                return self._bounded(round(self._exp(Fraction(u), wide=True)))
            return low + int(Fraction(u) * (high - low + 1))
        if self.log:
            return self.write(float(self._exp(Fraction(u))))
        low_f, high_f = float(self.low), float(self.high)
        return self.write(low_f + (high_f - low_f) * u)

    def choices(self) -> Iterator[Value]:
        """The values of a grid, in ascending order, none twice.

        Raises:
            ValueError: for floats without `points`.
        """
        if self.points is None:
            if not self.integer:
                raise ValueError("a Grid over a Float range needs its points")
            return iter(range(int(self.low), int(self.high) + 1))
        return iter(dict.fromkeys(self._point(index, self.points) for index in range(self.points)))

    def write(self, value: float) -> str:
        """A float of this range as text; one beyond an end by its rounding is that end."""
        value = min(max(value, float(self.low)), float(self.high))
        if not self.fixed:
            return repr(value)
        return f"{value:.{_FIELD_DIGITS}f}".rstrip("0").rstrip(".")

    def _point(self, index: int, points: int) -> Value:
        part = Fraction(index, max(points - 1, 1))
        if index in (0, points - 1):  # The ends are met exactly.
            value = self.high if index else self.low
        elif self.log:
            value = Fraction(self._exp(part))
        else:
            value = self.low + (self.high - self.low) * part
        return self._bounded(round(value)) if self.integer else self.write(float(value))

    def _exp(self, part: Fraction, *, wide: bool = False) -> Decimal:
        """The value at a part of the way in the logarithm; `wide`: half beyond both ends, so that
        rounding gives the end values their full share."""
        low, high = self._wide_logs if wide else self._logs
        way = _DECIMAL.divide(Decimal(part.numerator), Decimal(part.denominator))
        return _DECIMAL.exp(_DECIMAL.fma(_DECIMAL.subtract(high, low), way, low))

    def _bounded(self, value: int) -> int:
        return min(max(value, int(self.low)), int(self.high))

    @cached_property
    def _logs(self) -> tuple[Decimal, Decimal]:
        return _ln(self.low), _ln(self.high)

    @cached_property
    def _wide_logs(self) -> tuple[Decimal, Decimal]:
        return _ln(self.low - Fraction(1, 2)), _ln(self.high + Fraction(1, 2))


def _ln(value: Fraction) -> Decimal:
    return _DECIMAL.ln(_DECIMAL.divide(Decimal(value.numerator), Decimal(value.denominator)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter: either `values` or a `range`; there only where an earlier one has a value."""

    name: str
    field: str | None
    values: tuple[Value, ...] | None
    range: Range | None
    when: tuple[str, tuple[Value, ...]] | None

    def holds(self, assigned: Mapping[str, Value]) -> bool:
        """Whether the parameter is there, given the values of the earlier ones."""
        return self.when is None or assigned.get(self.when[0]) in self.when[1]

    def choices(self) -> Iterator[Value]:
        """The values of a grid, in the manifest's order.

        Raises:
            ValueError: for a range of floats without points.
        """
        if self.values is not None:
            return iter(self.values)
        assert self.range is not None
        try:
            return self.range.choices()
        except ValueError as error:
            raise ValueError(f"parameter {self.name}: {error}") from None

    def least(self) -> int:
        """The least of the values, which are integers."""
        if self.values is not None:
            return min(int(value) for value in self.values)
        assert self.range is not None
        return int(self.range.low)

    def at(self, u: float) -> Value:
        """The value at a place within the parameter's values, `u` in [0, 1)."""
        if self.values is not None:
            return self.values[int(u * len(self.values))]
        assert self.range is not None
        return self.range.at(u)


class Space:
    """All parameters of a sweep, in the manifest's order.

    Args:
        parameters: spec.tasks.sweep.parameters as JSON has it.
    """

    def __init__(self, parameters: Sequence[Mapping[str, Any]]) -> None:
        self.parameters = tuple(_parameter(item) for item in parameters)
        self._by_name = {parameter.name: parameter for parameter in self.parameters}

    def by_field(self, field: str) -> Parameter | None:
        """The parameter that sets a field of the spec, such as `trainer.epochs`."""
        return next((item for item in self.parameters if item.field == field), None)

    def grid(self) -> Iterator[Assigned]:
        """The cartesian product in the manifest's order, the last parameter changing fastest. A
        conditional parameter is left out where its condition does not hold."""
        return self._grid(0, {})

    def _grid(self, index: int, assigned: Assigned) -> Iterator[Assigned]:
        if index == len(self.parameters):
            yield dict(assigned)
            return
        parameter = self.parameters[index]
        if not parameter.holds(assigned):
            yield from self._grid(index + 1, assigned)
            return
        for value in parameter.choices():
            assigned[parameter.name] = value
            yield from self._grid(index + 1, assigned)
        del assigned[parameter.name]

    def random(self, seed: int, trial: int) -> Assigned:
        """The values of one trial, at random. No trial's values depend on another's, and no
        parameter's on another's but through its condition."""
        assigned: Assigned = {}
        for parameter in self.parameters:
            if parameter.holds(assigned):
                assigned[parameter.name] = parameter.at(uniform(seed, trial, parameter.name))
        return assigned

    def random_value(self, seed: int, trial: int, parameter: Parameter) -> Value | None:
        """What `random` gives one parameter, without the others; None: it is left out."""
        if parameter.when is not None:
            earlier, wanted = parameter.when
            if self.random_value(seed, trial, self._by_name[earlier]) not in wanted:
                return None
        return parameter.at(uniform(seed, trial, parameter.name))


def uniform(seed: int, trial: int, name: str) -> float:
    """A number in [0, 1) with 53 random bits that depends on the arguments alone."""
    digest = hashlib.sha256(f"{seed}/{trial}/{name}".encode()).digest()
    return (int.from_bytes(digest[:7], "big") >> 3) / 2.0**53


def _parameter(item: Mapping[str, Any]) -> Parameter:
    values, given, when = item.get("values"), item.get("range"), item.get("when")
    field = item.get("field")
    return Parameter(
        name=item["name"],
        field=field,
        values=None if values is None else tuple(values),
        range=None if given is None else _range(given, fixed=field is not None),
        when=None if when is None else (when["parameter"], tuple(when["values"])),
    )


def _range(given: Mapping[str, Any], *, fixed: bool) -> Range:
    return Range(
        integer=given["type"] == "Int",
        low=Fraction(str(given["min"])),
        high=Fraction(str(given["max"])),
        log=given.get("scale", "Linear") == "Log",
        points=given.get("points"),
        fixed=fixed,
    )
