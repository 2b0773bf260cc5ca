"""Exec plug-ins of a kubeconfig: the command that gives credentials, and its failures in words.

Where it fails, the command ends with what the plug-in said. It is never gone on without: a request
that nobody signed gets a refusal that names the wrong reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from shardwise.cli.errors import CliError
from shardwise.cli.kubeconfig import HEADER, Entry, cluster_info

SECONDS: Final = 60.0
INTERACTIVE_SECONDS: Final = 600.0
"""For a plug-in that asks its user something: a login in a browser."""
VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
SHOWN: Final = 1000


@dataclass(frozen=True)
class Credential:
    """What a plug-in gave: a token, a certificate with its key (PEM), or both."""

    token: str = ""
    certificate: str = ""
    key: str = ""
    expires: datetime | None = None

    @property
    def expired(self) -> bool:
        return self.expires is not None and datetime.now(UTC) >= self.expires


def run(entry: Entry) -> Credential:
    """Run the plug-in of a user's entry.

    Raises:
        CliError: it is missing, fails, takes too long, or gives no credentials.
    """
    asked = entry.user["exec"]
    if not isinstance(asked, dict) or not isinstance(asked.get("command"), str):
        raise CliError(f"{entry.where}: users: exec has no command; give one")
    version = asked.get("apiVersion")
    if version not in VERSIONS:
        raise _failed(entry, f"has apiVersion {version!r}; known are {' and '.join(VERSIONS)}")
    interactive = _interactive(entry, asked)
    info: dict[str, Any] = {"interactive": interactive}
    if asked.get("provideClusterInfo"):
        info["cluster"] = cluster_info(entry)
    told = {"apiVersion": version, "kind": "ExecCredential", "spec": info}
    environ = os.environ | {"KUBERNETES_EXEC_INFO": json.dumps(told)}
    for pair in asked.get("env") or ():
        environ[str(pair["name"])] = str(pair.get("value") or "")
    command = str(asked["command"])
    if "/" in command:
        command = str(entry.folder / command)  # As kubectl has it: beside the kubeconfig.
    limit = INTERACTIVE_SECONDS if interactive else SECONDS
    try:
        done = subprocess.run(
            [command, *map(str, asked.get("args") or ())],
            env=environ,
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if interactive else subprocess.PIPE,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = _words(error.stderr)
        raise _failed(entry, f"has given no answer within {limit:.0f} s{said}") from error
    except (OSError, ValueError) as error:
        hint = str(asked.get("installHint") or "").strip()
        more = f"; {hint}" if hint else "; install it, or see that PATH has it"
        told_as = getattr(error, "strerror", None) or str(error)
        raise _failed(entry, f"cannot be run: {told_as}{more}") from error
    if done.returncode:
        raise _failed(entry, f"ended with exit code {done.returncode}{_words(done.stderr)}")
    return _credential(entry, done.stdout, version)


def _interactive(entry: Entry, asked: dict[str, Any]) -> bool:
    mode = asked.get("interactiveMode") or "IfAvailable"
    if mode == "Never":
        return False
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if mode == "Always" and not terminal:
        raise _failed(
            entry,
            "asks its user (interactiveMode: Always), and standard input is no terminal; run the "
            "command in one",
        )
    return terminal


def _credential(entry: Entry, output: bytes, version: str) -> Credential:
    try:
        found = json.loads(output)
        status = found["status"]
        if found.get("apiVersion") != version or found.get("kind") != "ExecCredential":
            raise ValueError(
                f"is {found.get('apiVersion')} {found.get('kind')}, not {version} ExecCredential"
            )
        made = Credential(
            token=str(status.get("token") or ""),
            certificate=str(status.get("clientCertificateData") or ""),
            key=str(status.get("clientKeyData") or ""),
            expires=_time(status.get("expirationTimestamp")),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _failed(entry, f"gave no credentials: its output {_what(error)}") from error
    if bool(made.certificate) != bool(made.key):
        raise _failed(entry, "gave a certificate without its key, or a key without its certificate")
    if not made.token and not made.certificate:
        raise _failed(entry, "gave no credentials: neither a token nor a certificate")
    if not HEADER.issuperset(made.token):
        raise _failed(entry, "gave a token with characters that no token has")
    return made


def _what(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError):
        return "is no JSON"
    if isinstance(error, LookupError | TypeError | AttributeError):
        return "has no status"
    return str(error)


def _time(text: object) -> datetime | None:
    if not text:
        return None
    found = datetime.fromisoformat(str(text))
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _words(stderr: bytes | None) -> str:
    said = (stderr or b"").decode("utf-8", "replace").strip()
    return f": {said[-SHOWN:]}" if said else ""


def _failed(entry: Entry, what: str) -> CliError:
    command = Path(str(entry.user["exec"].get("command"))).name
    return CliError(
        f"no credentials: the exec plug-in {command} of {entry.where} (context {entry.context}) "
        f"{what}"
    )
