"""CEL rules for what a single field takes, made from its bounds in the schema.

A CRD's own `pattern` or `minimum` answers with a regular expression or a bare bound. A rule can
say the same in words, with the remedy. A number's bounds stay beside their rules: they are what
other tools read, and of a server of v1.34 they alone print the value. A pattern or a least length
goes, since the server would print it as well.

What a rule may cost is bounded, and the server reckons with as many values as the schema allows.
Where a task of a list has a field in every step, or in every layer of every step, a cheaper rule
stands for the pattern; what it lets through, the operator says in the condition Accepted.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final

from shardwise.api import words
from shardwise.api.base import SAFE_INTEGER
from shardwise.api.compression import FRACTION_BELOW_ONE_PATTERN
from shardwise.api.parameters import ENTRYPOINT_PATTERN
from shardwise.api.words import Words

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """A CEL expression, and what is said where it does not hold."""

    rule: str
    words: Words
    value: str = ""
    """A CEL expression for the text that is wrong. Of a number there is none: the server reckons
    its text with the longest that there could be, and prints the number itself."""

    def to_json(self) -> dict[str, str]:
        found = {"rule": self.rule, "message": f"{self.words}"}
        if self.value:
            rest = json.dumps(f"' {self.words}")
            found["messageExpression"] = f'"\'" + {self.value} + {rest}'
        return found


KEYS: Final = "x-keys"
"""Where `schema` keeps the pattern of a mapping's keys and their length, for which a CRD has no
place."""

BUDGET: Final = 5_000_000
"""Units of CEL's cost for one rule at all of its places; the server allows 10,000,000 for a rule
and ten times that for all."""
BYTES: Final = 4
"""The most of one character."""

CHEAP: Final = {
    FRACTION_BELOW_ONE_PATTERN: "self < '1'",
    ENTRYPOINT_PATTERN: "self.contains(':')",
}
"""What stands for a pattern that would cost too much; nothing does for the others."""


def add_rules(node: Schema, number: int) -> None:
    """Gives a field of the spec the rules that say its bounds in words.

    Args:
        number: how many such fields there may be in one object.
    """
    rules = [said.to_json() for said in _rules(node, number)]
    if rules:
        node.setdefault("x-kubernetes-validations", []).extend(rules)


def _rules(node: Schema, number: int) -> list[Said]:
    if "x-kubernetes-int-or-string" in node:
        return _int_or_string(node, number)
    match node.get("type"):
        case "integer":
            return _integer(node)
        case "string":
            return _string(node, number)
        case "array" if "minItems" in node:
            bound = node.pop("minItems")
            return [Said(f"size(self) >= {bound}", words.fewer(bound, "entries"))]
        case "object" if KEYS in node:
            return _keys(node, number)
        case "object":
            # CEL cannot look into an object of unknown fields; the operator says it in words.
            node.pop("minProperties", None)
    return []


def _integer(node: Schema) -> list[Said]:
    return [
        Said(f"self >= {node['minimum']}", words.least(node["minimum"])),
        Said(f"self <= {node['maximum']}", words.most(node["maximum"])),
    ]


def _string(node: Schema, number: int) -> list[Said]:
    least = node.pop("minLength", 0)
    if "pattern" in node:
        pattern = node.pop("pattern")
        said = words.pattern(pattern)
        if number * _cost(pattern, node["maxLength"]) <= BUDGET:
            return [Said(_matches("self", pattern), said, "self")]
        return [Said(CHEAP[pattern], said)] if pattern in CHEAP else []
    if least:
        return [Said("self != ''", words.fewer(1, "characters"))]
    return []


def _keys(node: Schema, number: int) -> list[Said]:
    pattern, length = node.pop(KEYS)
    said = words.pattern(pattern)
    if number * node["maxProperties"] * _cost(pattern, length) > BUDGET:
        return []
    right = f"size(key) <= {length} && {_matches('key', pattern)}"
    return [Said(f"self.all(key, {right})", said, f"self.filter(key, !({right}))[0]")]


def _int_or_string(node: Schema, number: int) -> list[Said]:
    low, high = node.pop("minimum"), node.pop("maximum")
    bounds = f"(self >= {low} && self <= {high})"
    # type() reads a string to its end.
    if number * _cost("", node["maxLength"]) > BUDGET:
        return []
    found = []
    if (low, high) == (-SAFE_INTEGER, SAFE_INTEGER):
        found = [Said(f"type(self) == string || {bounds}", words.BEYOND)]
        bounds = "true"
    if "pattern" in node:
        pattern = node.pop("pattern")
        matches = _matches("self", pattern)
        rule = f"type(self) == string ? {matches} : {bounds}"
        found.append(Said(rule, words.pattern(pattern)))
    return found


def _matches(what: str, pattern: str) -> str:
    return f"{what}.matches(r'{pattern}')"


def _cost(pattern: str, length: int) -> int:
    """Of a regular expression on a text of at most so many characters, about as the server reckons:
    a unit for ten bytes, times one for four characters of the pattern."""
    return math.ceil(length * BYTES / 10) * math.ceil((len(pattern) + 1) / 4)
