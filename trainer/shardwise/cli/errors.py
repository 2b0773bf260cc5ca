"""Errors that end a command: a message for people on standard error, and an exit code."""

from __future__ import annotations

import click

from shardwise.cli import exitcodes


class CliError(click.ClickException):
    """Ends the command with this exit code; click prints `Error: message`."""

    def __init__(self, message: str, code: int = exitcodes.USAGE) -> None:
        super().__init__(message)
        self._code = code

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click has a class variable
        return self._code


class ApiError(CliError):
    """A call that the API server refused; status 0: it was not reached."""

    def __init__(self, status: int, reason: str, message: str, remedy: str = "") -> None:
        code = exitcodes.NOT_FOUND if status == 404 else exitcodes.API
        super().__init__((message or reason) + remedy, code)
        self.status = status
        self.reason = reason
        self.words = message or reason
        """The message without the remedy."""
