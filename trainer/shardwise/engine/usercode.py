"""The border to user code: what it raises becomes a UserCodeError that tells where."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator


class UserCodeError(Exception):
    """The user's code raised, or gave something that it may not give.

    Attributes:
        message: one line: what was called and what it raised.
        detail: the last lines of the traceback; empty when the engine itself found the fault.
    """

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.message, self.detail = message, detail


class NotFiniteError(UserCodeError):
    """A loss, gradient or parameter is NaN or infinite: every further step would be as well."""


@contextlib.contextmanager
def user_code(what: str) -> Iterator[None]:
    """Run a call into user code; `what` names it in the message."""
    try:
        yield
    except UserCodeError:
        raise
    except Exception as error:
        line = f"{what} raised {type(error).__name__}: {error}".replace("\n", " ")
        raise UserCodeError(line, traceback.format_exc(limit=-8)) from error
