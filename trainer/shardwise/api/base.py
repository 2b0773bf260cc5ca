"""What every API type shares: how it is spelled in JSON, how strict it is, and its bounds.

Imported by `spec`, `status` and `types`. Must not know any particular field.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

INT32_MAX = 2**31 - 1
SAFE_INTEGER = 2**53 - 1
"""The largest integer that survives every JSON reader; the bound of what is stored as int64."""

INT32 = {"format": "int32"}
INT64 = {"format": "int64"}
ATOMIC = {"x-kubernetes-list-type": "atomic"}
OPEN = {"x-kubernetes-preserve-unknown-fields": True}


def map_by(key: str) -> dict[str, JsonValue]:
    """A list whose items go by one of their fields."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


class Model(BaseModel):
    """Camel case in JSON, snake case in Python; the docstring under a field is its description."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        use_attribute_docstrings=True,
    )

    def to_json(self) -> dict[str, Any]:
        """This object as JSON has it: camel case, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class SpecModel(Model):
    """What a user writes: an unknown field or a wrong type is an error, nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, found: Any) -> Any:
        """A field that is left blank is absent, as it is to an API server."""
        if not isinstance(found, dict) or None not in found.values():
            return found
        known = {info.alias or name for name, info in cls.model_fields.items()}
        return {key: value for key, value in found.items() if value is not None or key not in known}


class StatusModel(Model):
    """What the operator writes, and reads back: fields of another version are passed over."""

    model_config = ConfigDict(extra="ignore")


def distinct(key: str | None = None) -> AfterValidator:
    """For a list whose entries, or one of their fields, must differ, as an API server wants it of
    a list that is a map or a set."""

    def check(found: Any) -> Any:
        first: dict[Any, int] = {}
        for index, entry in enumerate(found):
            value = entry if key is None else getattr(entry, key)
            earlier = first.setdefault(value, index)
            if earlier != index:
                places = {"first": earlier, "second": index, "value": value}
                raise PydanticCustomError("duplicate", "has an entry twice", places)
        return found

    return AfterValidator(check)


def _seconds_utc(time: datetime) -> datetime:
    return (
        (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).replace(microsecond=0)
    )


def _rfc3339(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


Time = Annotated[
    datetime,
    AfterValidator(_seconds_utc),
    PlainSerializer(_rfc3339, when_used="json"),
    # Kubernetes prints 20 characters; 64 leaves room for fractions and offsets.
    Field(json_schema_extra={"maxLength": 64}),
]
"""A point in time as Kubernetes writes it: UTC, whole seconds."""


def _cut_end(value: object, length: int) -> object:
    if isinstance(value, str) and len(value) > length:
        return value[: length - 1] + "…"
    return value


def _cut_start(value: object, length: int) -> object:
    if isinstance(value, str) and len(value) > length:
        return "…" + value[-(length - 1) :]
    return value


# Texts in status are cut to their bound, never refused: a status that cannot be written tells
# the user nothing at all.
Word = Annotated[str, BeforeValidator(lambda v: _cut_end(v, 63)), Field(max_length=63)]
Name = Annotated[str, BeforeValidator(lambda v: _cut_end(v, 253)), Field(max_length=253)]
Text = Annotated[str, BeforeValidator(lambda v: _cut_end(v, 1024)), Field(max_length=1024)]
Tail = Annotated[str, BeforeValidator(lambda v: _cut_start(v, 4096)), Field(max_length=4096)]
"""The last characters of a log: its end is what tells."""
Sha256 = Annotated[str, Field(min_length=64, max_length=64, pattern="^[0-9a-f]{64}$")]
Count32 = Annotated[int, Field(ge=0, le=INT32_MAX, json_schema_extra=INT32)]
Count64 = Annotated[int, Field(ge=0, le=SAFE_INTEGER, json_schema_extra=INT64)]
Type = Annotated[str, Field(min_length=1, max_length=63, pattern="^[A-Z][A-Za-z]*$")]
"""One word for scripts, as the types and the reasons of conditions are."""
