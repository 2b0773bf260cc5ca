"""Manifests with a few things wrong at random, the same for the same seed.

What is changed lies anywhere in the spec, within what Kubernetes itself defines too; what it is
changed to is what people and broken generators write.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

from bad_manifests import BASES

SEEDS = range(300)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**31, 2**53, -(2**63), 0.1, -2.5,
    "", " ", "0", "1", "-1", "0.5", "1e400", "NaN", "-inf", "1Gi", "500m", "yes", "auto", "AUTO",
    "none", "grid", "ü", "日本", "a\x00b", "a\nb", "\u202e", "x" * 64, "x" * 300, "x" * 5000,
    "../..", "a:b", "${HOME}", [], {}, [[]], [None], [1, "a"], ["a", "a"], {"a": {"b": {"c": 1}}},
    {"name": "a"}, [{"name": "a"}, {"name": "a"}], [{}], {"": 1}, {"a b": "c"},
)  # fmt: skip
NAMES = ("Replicas", "image_pull", "shard", "x", "name ", "", "ärger", "a.b/c")


def places(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every field and entry of the object, parents first."""
    if path:
        yield path
    children = enumerate(node) if isinstance(node, list) else ()
    for key, child in node.items() if isinstance(node, dict) else children:
        yield from places(child, (*path, key))


def fuzzed(seed: int) -> dict[str, Any]:
    choose = random.Random(seed)
    manifest: dict[str, Any] = copy.deepcopy(BASES[choose.choice(list(BASES))])
    for _ in range(choose.choice((1, 1, 1, 2, 3))):
        found = list(places(manifest["spec"]))
        if not found:
            break
        *parents, last = choose.choice(found)
        node: Any = manifest["spec"]
        for key in parents:
            node = node[key]
        match choose.choice(("value", "value", "value", "absent", "more", "rename")):
            case "value":
                node[last] = copy.deepcopy(choose.choice(VALUES))
            case "absent":
                del node[last]
            case "more" if isinstance(node, dict):
                node[choose.choice(NAMES)] = copy.deepcopy(choose.choice(VALUES))
            case "rename" if isinstance(node, dict):
                node[str(last).upper()] = node.pop(last)
            case _:
                node.append(copy.deepcopy(node[last]))  # an entry twice
    return manifest
