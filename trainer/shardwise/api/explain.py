"""Turns pydantic's errors into a problem and a remedy that a user of the manifest understands.

Called by `validation` for errors of a single field. Knows pydantic's error types and the shape
of the API types; knows no rule across fields.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from shardwise.api import words
from shardwise.api.parameters import NAME_PATTERN
from shardwise.api.spec import LABEL_KEY_PATTERN
from shardwise.api.tasks import NUMBER_PATTERN
from shardwise.api.types import API_VERSION, KIND, OptimizationJob

SHOWN_CHARACTERS = 60

_REMEDIES_BY_FIELD = {
    "apiVersion": f"write apiVersion: {API_VERSION}",
    "kind": f"write kind: {KIND}",
    "metadata.name": "give the job a name",
    "spec.trainer.entrypoint": "write module:function, for example my_package.train:task",
    "spec.trainer.image": "write an image's name without spaces, for example registry/name:tag",
    "spec.trainer.codeFrom.configMap": "write the name of a ConfigMap of the job's namespace",
    "spec.output.volume": (
        "give exactly one volume source, for example persistentVolumeClaim: {claimName: results}"
    ),
    "spec.checkpoint.volume": (
        "give exactly one volume source, for example persistentVolumeClaim: {claimName: kept}"
    ),
    "spec.checkpoint.url": "write it with its scheme, for example s3://bucket/jobs",
    "spec.tasks.workersPerTask": "write Auto, or an integer from 1 to 1024",
    "spec.managedBy": "write a name with a domain, for example kueue.x-k8s.io/multikueue",
}

_TYPES = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "bool_type": "a boolean",
    "string_type": "a string",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "mapping_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
}


def path(location: tuple[int | str, ...]) -> str:
    """`spec.trainer.shards`, as kubectl prints it. A mapping's bad key is named by itself."""
    text = ""
    for part in location:
        if part == "[key]":
            continue
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text or "manifest"


def explain(error: ErrorDetails) -> tuple[str, str]:
    """(problem, remedy) of one pydantic error."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    field = path(error["loc"])
    if kind == "missing":
        return _missing(error["loc"])
    if kind == "extra_forbidden":
        return _unknown(error["loc"])
    if kind.startswith("parameter_"):
        return _parameter(kind, field, value, context)
    if error["loc"][-1:] == ("[key]",):
        return _key(error["loc"], value)
    return _value(kind, field, value, context)


def _missing(location: tuple[int | str, ...]) -> tuple[str, str]:
    field = path(location)
    known = _REMEDIES_BY_FIELD.get(field)
    return "is missing", known or f"add {location[-1]}: {_description(location)}"


def _unknown(location: tuple[int | str, ...]) -> tuple[str, str]:
    parent, name = location[:-1], str(location[-1])
    fields = tuple(children(_model_at(parent)))
    inside = path(parent) if parent else f"an {KIND}"
    near = difflib.get_close_matches(name, fields, n=1)
    elsewhere = None if near else _elsewhere(name)
    if near:
        remedy = f"did you mean {near[0]!r}?"
    elif elsewhere:
        remedy = f"move it to {elsewhere}"
    else:
        remedy = f"remove it; the fields here are {', '.join(fields)}"
    return f"{name!r} is not a field of {inside}", remedy


def _parameter(kind: str, field: str, value: object, context: Mapping[str, Any]) -> tuple[str, str]:
    name = field.rpartition(".")[2]
    key = "" if name.endswith("]") else f"{name}: "  # An item of a list has none.
    shown = _shown(value)
    if kind == "parameter_float":
        problem = f"{shown} is a fraction, and a fraction has more than one spelling"
        return problem, f'write it in quotes: {key}"{value}"'
    if kind == "parameter_bool":
        word = str(value).lower()
        problem = f"{word} is a boolean, not an integer or a string"
        return problem, f'write it in quotes: {key}"{word}", or as 0 or 1'
    if kind == "parameter_size":
        return f"{shown} {words.BEYOND.problem}", f'{words.BEYOND.remedy}: {key}"{value}"'
    if kind == "parameter_length":
        limit = context.get("limit", "")
        return f"{shown} is longer than {limit} characters", "put long texts into the code"
    if kind == "parameter_number":
        said = words.pattern(NUMBER_PATTERN)
        return f"{shown} {said.problem}", said.remedy
    return f"{shown} is not an integer or a string", "give each part a parameter of its own"


def _key(location: tuple[int | str, ...], value: object) -> tuple[str, str]:
    if not isinstance(value, str):
        return f"{_shown(value)} is not a string", f'write it in quotes: "{value}"'
    said = words.pattern(NAME_PATTERN if "parameters" in location else LABEL_KEY_PATTERN)
    return f"{_shown(value)} {said.problem}", said.remedy


def _value(kind: str, field: str, value: object, context: Mapping[str, Any]) -> tuple[str, str]:
    shown = _shown(value)
    known = _REMEDIES_BY_FIELD.get(field)
    match kind:
        case _ if kind in _TYPES:
            problem = f"{shown} is {_what(value)}, not {_TYPES[kind]}"
            remedy = known or _type_remedy(value, _TYPES[kind])
        case "greater_than_equal":
            problem, remedy = _of(shown, words.least(int(context["ge"])))
        case "less_than_equal":
            problem, remedy = _of(shown, words.most(int(context["le"])))
        case "literal_error":
            expected = str(context["expected"])
            problem, remedy = f"{shown} is not {expected}", known or f"write {expected}"
        case "duplicate":
            problem = "has {value!r} twice (at [{first}] and [{second}])".format_map(context)
            remedy = "remove one of them, or give it a name of its own"
        case "string_pattern_mismatch":
            problem, remedy = _of(shown, words.pattern(str(context["pattern"])))
        case "string_too_short" | "string_too_long":
            problem, remedy = _length(kind, shown, "characters", context, known)
        case "too_short" | "too_long":
            problem, remedy = _length(kind, shown, "entries", context, known)
        case _:
            problem, remedy = f"{shown} is not accepted", known or "see `kubectl explain`"
    return problem, remedy


def _type_remedy(value: object, wanted: str) -> str:
    if wanted == "an integer" and isinstance(value, str) and value.lstrip("-").isdigit():
        return f"write it without quotes: {value}"
    if wanted == "a string" and isinstance(value, int | float):
        return f'write it in quotes: "{value}"'
    return f"give {wanted}"


def _of(shown: str, said: words.Words) -> tuple[str, str]:
    return f"{shown} {said.problem}", said.remedy


def _length(
    kind: str, shown: str, unit: str, context: Mapping[str, Any], known: str | None
) -> tuple[str, str]:
    said = (
        words.fewer(context["min_length"], unit)
        if kind.endswith("short")
        else words.longer(context["max_length"], unit)
    )
    return f"{shown} {said.problem}", known or said.remedy


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _what(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a fraction"
        case str():
            return "a string"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return f"a {type(value).__name__}"


# The shape of the API types: which fields stand where.


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def children(model: type[BaseModel]) -> dict[str, Any]:
    """The annotations of a type's fields, by their names in JSON."""
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    model: type[BaseModel] = OptimizationJob
    for part in location:
        if isinstance(part, int):  # an entry of a list: the list's own type tells of it
            continue
        model = next(_models_in(children(model)[str(part)]))
    return model


def _description(location: tuple[int | str, ...]) -> str:
    """The first sentence about a field, without the name that it starts with."""
    for info in _model_at(location[:-1]).model_fields.values():
        if info.alias == location[-1] and info.description:
            sentence = " ".join(info.description.split()).split(". ")[0].split("; ")[0]
            return sentence.removeprefix(f"{info.alias} is ").rstrip(".")
    return "it is required"


def _elsewhere(name: str) -> str | None:
    """Where in the spec a field of this name stands, for one that stands in the wrong place."""

    def search(model: type[BaseModel], at: str) -> Iterator[str]:
        for child, annotation in children(model).items():
            if child == name:
                yield f"{at}.{child}"
            for inner in _models_in(annotation):
                yield from search(inner, f"{at}.{child}")

    return next(search(_model_at(("spec",)), "spec"), None)
