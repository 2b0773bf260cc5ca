"""What is wrong with a job: the errors that `validation`, `tasks_check` and `signature` give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardwise.api.conditions import INVALID_SPEC


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong. `problem` has the value in it, for people."""

    field: str
    value: object
    problem: str
    remedy: str
    reason: str = INVALID_SPEC
    """The reason of the condition Accepted that this error leads to."""

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}; {self.remedy}"


class InvalidJob(ValueError):  # noqa: N818 - reads as what it is
    """The manifest is no valid OptimizationJob; one line an error."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__(*self.errors)

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))

    @property
    def reason(self) -> str:
        """The reason of the condition Accepted: that of the first error."""
        return self.errors[0].reason
