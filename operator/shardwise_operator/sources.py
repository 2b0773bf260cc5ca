"""The text of the module that a job's entrypoint is in, where the operator can have it without a
pod: from a ConfigMap, or of the examples that are in every image. Nothing of it is run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

EXAMPLES = "shardwise.examples."
MAX_CHARACTERS = 8192
"""Of a module that is looked at on the event loop: at worst some 100 ms."""


def source(trainer: Mapping[str, Any], files: Mapping[str, str] | None) -> str | None:
    """The text; None where the entrypoint is in an image of the user's, or nowhere.

    Args:
        trainer: spec.trainer as it is in the manifest.
        files: those of the ConfigMap that the code is taken from, by name; None where there is
            none.
    """
    entrypoint = trainer.get("entrypoint")
    if not isinstance(entrypoint, str):
        return None
    module = entrypoint.partition(":")[0]
    if trainer.get("codeFrom"):
        text = (files or {}).get(f"{module}.py")
        # Reading it costs a thousand times what its bytes do; of a longer one the worker tells.
        return text if isinstance(text, str) and len(text) <= MAX_CHARACTERS else None
    if module.startswith(EXAMPLES) and not trainer.get("image"):
        return _example(module)
    return None


@cache
def _example(module: str) -> str | None:
    try:
        found = find_spec(module)
    except (ImportError, ValueError):
        return None
    if found is None or not found.origin or not found.origin.endswith(".py"):
        return None
    return Path(found.origin).read_text()
