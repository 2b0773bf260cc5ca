"""What Kubernetes knows of a pod: the fields of each of its types, as the client's models say.

The models are read and never made: their classes say what there is. Other types than these (a
quantity's form, a name's) are left to the API server.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from kubernetes.aio import client

from shardwise.api.errors import FieldError
from shardwise.api.explain import SHOWN_CHARACTERS

MINOR = int(version("kubernetes").partition(".")[0])
"""The newest Kubernetes 1.x whose fields are known here."""
QUANTITIES = frozenset({"limits", "requests", "overhead", "sizeLimit", "divisor"})
"""Texts that may be written as numbers."""
QUANTITY = re.compile(r"[+-]?[0-9.]+([eEinumkKMGTP]*[-+]?[0-9]*)")
SUFFIXES = frozenset(
    ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]
)
INT64 = range(-(2**63), 2**63)
_MODELS: Any = client
_WORDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a string"),
    "datetime": ((str,), "a string"),
    "int": ((int,), "an integer"),
    "bool": ((bool,), "true or false"),
    "float": ((int, float), "a number"),
}


@cache
def fields(model: str) -> Mapping[str, str]:
    """The types of a model's fields, by their names in JSON."""
    found = getattr(_MODELS, model)
    return {found.attribute_map[name]: kind for name, kind in found.openapi_types.items()}


def problems(
    value: Any, kind: str, at: str, *, unknown: bool = True, number: bool = False
) -> Iterator[FieldError]:
    """All that is wrong with a value of a type, at any depth.

    Args:
        kind: as the models write it: V1PodSpec, List[V1Volume], Dict[str, str], str.
        at: where the value stands.
        unknown: whether fields that are not known here count.
        number: a number will do as well.
    """
    if value is None or kind == "object":
        return
    if kind.startswith("List["):
        yield from _list(value, kind[5:-1], at, unknown)
    elif kind.startswith("Dict["):
        inner = kind[5:-1].partition(",")[2].strip()
        if not isinstance(value, Mapping):
            yield _wrong(value, at, "a mapping")
            return
        for key, item in value.items():
            yield from problems(item, inner, f"{at}.{key}", unknown=unknown, number=number)
    elif kind in _WORDS:
        yield from _plain(value, kind, at, number)
    elif hasattr(_MODELS, kind):
        yield from _object(value, kind, at, unknown)


def conform(value: Any, kind: str) -> Any:
    """The value without what is of another type than it should be; None where it is so itself."""
    if kind.startswith("List["):
        items = value if isinstance(value, list | tuple) else ()
        kept = (conform(item, kind[5:-1]) for item in items)
        return [item for item in kept if item is not None]
    if kind.startswith("Dict["):
        inner = kind[5:-1].partition(",")[2].strip()
        if not isinstance(value, Mapping):
            return None
        parts = {str(key): conform(item, inner) for key, item in value.items()}
        return {key: item for key, item in parts.items() if item is not None}
    if kind in _WORDS:
        flag = isinstance(value, bool) and kind != "bool"
        return value if isinstance(value, _WORDS[kind][0]) and not flag else None
    if not hasattr(_MODELS, kind):
        return value
    if not isinstance(value, Mapping):
        return None
    known = fields(kind)
    return {name: conform(item, known[name]) for name, item in value.items() if name in known}


def _list(value: Any, inner: str, at: str, unknown: bool) -> Iterator[FieldError]:
    if not isinstance(value, list | tuple):
        yield _wrong(value, at, "a list")
        return
    for place, item in enumerate(value):
        if item is None:
            yield FieldError(f"{at}[{place}]", None, "is empty", "remove it, or fill it in")
        yield from problems(item, inner, f"{at}[{place}]", unknown=unknown)


def _object(value: Any, kind: str, at: str, unknown: bool) -> Iterator[FieldError]:
    if not isinstance(value, Mapping):
        yield _wrong(value, at, "a mapping")
        return
    known = fields(kind)
    for name, item in value.items():
        if name in known:
            number = name in QUANTITIES
            yield from problems(item, known[name], f"{at}.{name}", unknown=unknown, number=number)
        elif unknown:
            yield FieldError(
                f"{at}.{name}", item, "there is no such field", did_you_mean(str(name), known)
            )


def _plain(value: Any, kind: str, at: str, number: bool) -> Iterator[FieldError]:
    types, wanted = _WORDS[kind]
    if number and isinstance(value, int | float) and not isinstance(value, bool):
        return
    flag = isinstance(value, bool) and kind != "bool"
    if flag or not isinstance(value, types):
        yield _wrong(value, at, wanted)
    elif number and not _is_quantity(str(value)):
        yield FieldError(at, value, f"{_shown(value)} is no quantity", "write it like 500m or 2Gi")
    elif kind == "int" and value not in INT64:
        yield FieldError(at, value, f"{_shown(value)} does not fit 64 bits", "give a smaller one")


def _is_quantity(text: str) -> bool:
    match = QUANTITY.fullmatch(text)
    if match is None:
        return False
    suffix = match[1]
    return suffix in SUFFIXES or re.fullmatch("[eE][-+]?[0-9]+", suffix) is not None


def did_you_mean(name: str, known: Mapping[str, str]) -> str:
    plain = {field.lower(): field for field in known}
    near = difflib.get_close_matches(name.lower(), plain, n=1)
    # pvc, for persistentVolumeClaim: the capitals tell.
    short = [f for f in known if re.sub("[a-z]", "", f[:1].upper() + f[1:]).lower() == name.lower()]
    best = [*(plain[found] for found in near), *short]
    if best:
        return f"did you mean {best[0]}?"
    listed = ", ".join(sorted(known))
    return f"remove it; known are {listed}"


def _wrong(value: Any, at: str, wanted: str) -> FieldError:
    remedy = f'write it in quotes: "{value}"' if _quotes(value, wanted) else f"give {wanted}"
    return FieldError(at, value, f"{_shown(value)} is not {wanted}", remedy)


def _quotes(value: Any, wanted: str) -> bool:
    return wanted == "a string" and isinstance(value, int | float)


def _shown(value: Any) -> str:
    # No more than is shown is made into text: the value may be large.
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**200:
        return "this integer"
    text = repr(value) if not isinstance(value, Mapping | list) else repr(value)[:1000]
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
