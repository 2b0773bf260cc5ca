"""What a rule across fields is; `rules` has the table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shardwise.api.conditions import INVALID_SPEC
from shardwise.api.spec import OptimizationJobSpec
from shardwise.api.types import OptimizationJob

COMPRESSION = "spec.compression"
TASK_COMPRESSION = "spec.tasks.list[].compression"
"""The one other place where there is a Compression."""


def where(expression: str, *optional: str) -> str:
    """The CEL expression; true where one of the optional fields in it is absent.

    Fields with a default are optional too: a server evaluates rules before it has filled defaults
    in where it answers to an object of another kind, and the default of a parent as it stands.
    """
    return "".join(f"!has({field}) || " for field in optional) + f"({expression})"


def places(at: str) -> tuple[str, ...]:
    """All nodes that carry a rule of `at`: a task of a list has a compression of its own."""
    if at != COMPRESSION and not at.startswith(f"{COMPRESSION}."):
        return (at,)
    return (at, at.replace(COMPRESSION, TASK_COMPRESSION, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Something that must hold between fields. `message` is what an API server prints."""

    at: str
    """Path of the object that the expression's `self` is: "" (the whole), spec, spec.trainer…;
    `[]` stands for each entry of a list."""
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
    here: str = ""
    """`message` without the path, for a rule that stands in several places; there the server
    prints the path before it."""

    @property
    def places(self) -> tuple[str, ...]:
        """The paths of all nodes that carry it."""
        return places(self.at)

    @property
    def full_message(self) -> str:
        return f"{self.message}; {self.remedy}"

    @property
    def cel_message(self) -> str:
        return f"{self.here or self.message}; {self.remedy}"

    @property
    def field_path(self) -> str:
        """The field below `at`, as a CRD's fieldPath; "" where there is none to name. Of metadata,
        a CRD's schema knows no fields."""
        if not self.at or not self.field.startswith(f"{self.at}."):
            return ""
        return self.field.removeprefix(self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Immutable:
    """A part of the spec that must stay as it was when the job was created."""

    at: str
    message: str
    remedy: str
    same: Callable[[OptimizationJobSpec, OptimizationJobSpec], bool]
    expression: str = "self == oldSelf"
    field_path: str = ""

    @property
    def places(self) -> tuple[str, ...]:
        """The paths of all nodes that carry it."""
        return places(self.at)

    @property
    def full_message(self) -> str:
        return f"{self.message}; {self.remedy}"

    @property
    def cel_message(self) -> str:
        return self.full_message
