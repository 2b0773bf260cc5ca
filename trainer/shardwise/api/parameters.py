"""Parameters of an entrypoint: their names and values, as `spec` and `tasks` have them."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from shardwise.api.base import SAFE_INTEGER

IDENTIFIER: Final = "[A-Za-z_][A-Za-z0-9_]*"
NAME_PATTERN: Final = f"^{IDENTIFIER}$"
ENTRYPOINT_PATTERN: Final = rf"^{IDENTIFIER}(\.{IDENTIFIER})*:{IDENTIFIER}$"
MAX_PARAMETER_LENGTH: Final = 1024


def parameter_value(value: Any) -> Any:
    """Integers and strings pass as they are. A float's text differs between writers, so a float
    travels as a string, whose bytes everyone sees alike."""
    if isinstance(value, bool):
        raise PydanticCustomError("parameter_bool", "is a boolean")
    if isinstance(value, float):
        raise PydanticCustomError("parameter_float", "is a fraction")
    if isinstance(value, int):
        if abs(value) > SAFE_INTEGER:
            raise PydanticCustomError("parameter_size", "is an integer beyond 2**53 - 1")
        return value
    if isinstance(value, str):
        if len(value) > MAX_PARAMETER_LENGTH:
            raise PydanticCustomError(
                "parameter_length",
                "is longer than {limit} characters",
                {"limit": MAX_PARAMETER_LENGTH},
            )
        return value
    raise PydanticCustomError("parameter_type", "is neither an integer nor a string")


ParameterValue = Annotated[
    int | str,
    BeforeValidator(parameter_value),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "maxLength": MAX_PARAMETER_LENGTH,
            "minimum": -SAFE_INTEGER,
            "maximum": SAFE_INTEGER,
        }
    ),
]
ParameterName = Annotated[str, StringConstraints(max_length=63, pattern=NAME_PATTERN)]
