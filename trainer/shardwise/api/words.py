"""What is said of a value that its field does not take: the problem, then the remedy.

One source of the words for the CRD's CEL rules (`field_rules`) and for `explain`, so that the API
server, the operator and the command line say the same. Pure text: knows bounds and patterns, and
no particular object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shardwise.api.base import SAFE_INTEGER
from shardwise.api.compression import (
    FRACTION_BELOW_ONE_PATTERN,
    FRACTION_PATTERN,
    POSITIVE_PATTERN,
)
from shardwise.api.parameters import ENTRYPOINT_PATTERN, NAME_PATTERN
from shardwise.api.policy import MANAGER_PATTERN, URL_PATTERN
from shardwise.api.spec import (
    IMAGE_PATTERN,
    LABEL_KEY_PATTERN,
    LABEL_PATTERN,
    OBJECT_NAME_PATTERN,
)
from shardwise.api.tasks import AUTO, FIELD_PATTERN, MAX_GROUP, NUMBER_PATTERN, TASK_NAME_PATTERN


@dataclass(frozen=True, slots=True)
class Words:
    """`problem` goes on from the value: "0" "is less than 1"."""

    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


PATTERNS: Final = {
    ENTRYPOINT_PATTERN: Words(
        "is not of the form module:function",
        "write module:function, for example my_package.train:task",
    ),
    IMAGE_PATTERN: Words(
        "is not an image's name",
        "write an image's name without spaces, for example registry/name:tag",
    ),
    OBJECT_NAME_PATTERN: Words(
        "is not an object's name (lowercase letters, digits, dashes and dots)",
        "write the name of a ConfigMap of the job's namespace",
    ),
    URL_PATTERN: Words(
        "is not of the form scheme://place",
        "write it with its scheme, for example s3://bucket/jobs",
    ),
    MANAGER_PATTERN: Words(
        "is not of the form domain/name",
        "write a name with a domain, for example kueue.x-k8s.io/multikueue",
    ),
    FRACTION_BELOW_ONE_PATTERN: Words(
        "is not a fraction from 0 to below 1",
        'write it in quotes with a point and at most 9 decimal places, for example "0.9"',
    ),
    FRACTION_PATTERN: Words(
        "is not a fraction from 0 to 1",
        'write it in quotes with a point and at most 9 decimal places, for example "0.01"',
    ),
    POSITIVE_PATTERN: Words(
        "is not a positive number",
        'write it in quotes with a point and at most 9 decimal places, for example "0.01"',
    ),
    FIELD_PATTERN: Words(
        "is not trainer.epochs, .steps, .batchSize or .seed, or compression.<step's name>.<path>",
        "correct it, or leave it out: an argument of the entrypoint needs none",
    ),
    TASK_NAME_PATTERN: Words(
        "is not a name of lowercase letters, digits and dashes",
        "rename it, for example wide-2: it starts and ends with a letter or a digit",
    ),
    NUMBER_PATTERN: Words(
        "is not a number", 'give an integer, or a decimal number below 1e100 as "0.001" or "1e-5"'
    ),
    f"^{AUTO}$": Words(
        f"is neither {AUTO} nor a number of workers",
        f"write {AUTO}, or an integer from 1 to {MAX_GROUP}",
    ),
    NAME_PATTERN: Words(
        "cannot be the name of an argument",
        "use at most 63 letters, digits and underscores, not starting with a digit",
    ),
    LABEL_PATTERN: Words(
        "is not a label's value",
        "use at most 63 letters, digits, dashes, dots and underscores, with a letter or a digit"
        " first and last",
    ),
    LABEL_KEY_PATTERN: Words(
        "is not the name of a label or an annotation",
        "use at most 63 letters, digits, dashes, dots and underscores, where wanted after a domain"
        " and a slash, for example example.com/team",
    ),
}
"""By the pattern. A new pattern of a field of the spec needs its words here: a test says so."""

BEYOND: Final = Words("is an integer beyond 2**53 - 1", "write it in quotes")


def pattern(found: str) -> Words:
    return PATTERNS.get(found) or Words(f"is not of the form {found}", "correct it")


def least(bound: int) -> Words:
    return (
        BEYOND
        if bound == -SAFE_INTEGER
        else Words(f"is less than {bound}", f"give {bound} or more")
    )


def most(bound: int) -> Words:
    return Words(f"is more than {bound}", f"give {bound} or less")


def fewer(bound: int, unit: str) -> Words:
    """Of a text or a list that is shorter than it may be; `unit` is its parts."""
    return Words(f"has fewer than {bound} {unit}", f"give at least {bound}")


def longer(bound: int, unit: str) -> Words:
    return Words(f"has more than {bound} {unit}", f"give at most {bound}")
