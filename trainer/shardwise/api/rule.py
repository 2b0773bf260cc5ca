"""What a rule across fields is: the types of the entries of `rules`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shardwise.api.conditions import INVALID_SPEC
from shardwise.api.spec import OptimizationJobSpec
from shardwise.api.types import OptimizationJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Something that must hold between fields. `message` is what an API server prints."""

    at: str
    """Path of the object that the expression's `self` is: "" (the whole), spec, spec.trainer…"""
    field: str
    """The field to change."""
    expression: str
    message: str
    remedy: str
    holds: Callable[[OptimizationJob], bool]
    value: Callable[[OptimizationJob], object]
    problem: Callable[[OptimizationJob], str]
    """What is wrong, with the values."""
    reason: str = INVALID_SPEC

    @property
    def full_message(self) -> str:
        return f"{self.message}; {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Immutable:
    """A part of the spec that must stay as it was when the job was created."""

    at: str
    message: str
    remedy: str
    same: Callable[[OptimizationJobSpec, OptimizationJobSpec], bool]
    expression: str = "self == oldSelf"

    @property
    def full_message(self) -> str:
        return f"{self.message}; {self.remedy}"
