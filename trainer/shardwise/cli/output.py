"""Objects on standard output in the forms of `-o`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from shardwise.cli.names import GROUP, SINGULAR

F = TypeVar("F", bound=Callable[..., Any])


def as_text(objects: Sequence[dict[str, Any]], form: str, *, single: bool) -> str:
    """The objects as json, yaml or name; one alone, or as a List."""
    if form == "name":
        return "".join(f"{SINGULAR}.{GROUP}/{found['metadata']['name']}\n" for found in objects)
    cleaned = [_clean(found) for found in objects]
    content: Any = cleaned[0] if single else {"apiVersion": "v1", "kind": "List", "items": cleaned}
    if form == "json":
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    import yaml

    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return text


def _clean(found: dict[str, Any]) -> dict[str, Any]:
    """Without managedFields, which nobody reads; kubectl leaves them out too."""
    metadata = {k: v for k, v in found.get("metadata", {}).items() if k != "managedFields"}
    return {**found, "metadata": metadata}


def output_option(*forms: str) -> Callable[[F], F]:
    return click.option("-o", "--output", type=click.Choice(forms), help="Form of the output.")
