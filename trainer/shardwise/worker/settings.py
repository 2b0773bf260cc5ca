"""What a worker is told by its environment: the only place that reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shardwise.api import environment
from shardwise.worker.faults import Fault, FaultError, parse_faults

GRACE_SECONDS = 25
"""For leaving, unless told otherwise: Kubernetes' default grace period less a margin."""


class SettingsError(Exception):
    """The environment is incomplete or wrong; the message names the variable."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One worker's environment, read."""

    host: str
    port: int
    certificate: str | None
    server_name: str | None
    token_file: Path
    worker: str
    index: int
    job: str
    output: Path
    address: str
    termination_log: Path | None
    metrics_port: int | None = None
    checkpoint: str | None = None
    """A directory or an fsspec URL."""
    grace_seconds: int = GRACE_SECONDS
    faults: tuple[Fault, ...] = ()
    fault_markers: Path | None = None
    last_end: str = ""
    """How this worker's former process ended: OOMKilled, `Signal 11`, `Exit 1`."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """The settings in an environment.

        Raises:
            SettingsError: a variable is missing or malformed.
        """
        host, _, port = _required(environ, environment.COORDINATOR).rpartition(":")
        if not host:
            raise SettingsError(f"{environment.COORDINATOR} must be host:port")
        log = environ.get(environment.TERMINATION_LOG)
        metrics = environ.get(environment.METRICS_PORT)
        markers = environ.get(environment.FAULT_MARKERS)
        try:
            faults = parse_faults(environ.get(environment.FAULTS, ""))
        except FaultError as error:
            raise SettingsError(f"{environment.FAULTS}: {error}") from error
        return cls(
            host=host,
            port=_integer(environment.COORDINATOR, port),
            certificate=environ.get(environment.COORDINATOR_CA),
            server_name=environ.get(environment.COORDINATOR_NAME),
            token_file=Path(_required(environ, environment.TOKEN_FILE)),
            worker=_required(environ, environment.WORKER),
            index=_integer(environment.INDEX, _required(environ, environment.INDEX)),
            job=environ.get(environment.JOB, ""),
            output=Path(_required(environ, environment.OUTPUT)),
            address=environ.get(environment.ADDRESS, "127.0.0.1"),
            termination_log=Path(log) if log else None,
            metrics_port=_integer(environment.METRICS_PORT, metrics) if metrics else None,
            checkpoint=environ.get(environment.CHECKPOINT) or None,
            grace_seconds=_integer(
                environment.GRACE_SECONDS,
                environ.get(environment.GRACE_SECONDS, str(GRACE_SECONDS)),
            ),
            faults=faults,
            fault_markers=Path(markers) if markers else None,
            last_end=environ.get(environment.LAST_END, ""),
        )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    if not value:
        raise SettingsError(f"{name} is not set; a worker is started by the operator or `run`")
    return value


def _integer(name: str, text: str) -> int:
    if not text.isdigit():
        raise SettingsError(f"{name} must hold a whole number, not {text!r}")
    return int(text)
