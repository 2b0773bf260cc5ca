"""Reads a job's manifest from a file, or says what is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from shardwise.api.types import KIND, OptimizationJob
from shardwise.api.validation import validate
from shardwise.cli.yamltext import LARGEST_BYTES, TextError, decoded, documents

STANDARD_INPUT = Path("-")


class ManifestError(Exception):
    """The file holds no job that can be run; the message tells what and where."""


def read_manifests(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The one OptimizationJob in a YAML file, unchecked, and the objects of other kinds beside it;
    `-` is standard input.

    Raises:
        ManifestError: the file cannot be read, is no YAML, or has no job or several.
    """
    try:
        found = documents(decoded(_read(path)))
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from error
    except TextError as error:
        raise ManifestError(f"{path}: {error}") from error
    objects: list[dict[str, Any]] = [each for each in found if isinstance(each, dict)]
    if not objects:
        what = "is empty" if all(each is None for each in found) else "holds no object"
        raise ManifestError(f"{path}: {what}; it must hold one document of kind {KIND}")
    jobs = [each for each in objects if each.get("kind") == KIND]
    if len(jobs) != 1:
        kinds = ", ".join(sorted({str(each.get("kind")) for each in objects}))
        told = f" (it has {kinds})" if not jobs else "; put each into a file of its own"
        raise ManifestError(
            f"{path}: holds {len(jobs)} documents of kind {KIND}; it must hold exactly one{told}"
        )
    return jobs[0], [each for each in objects if each.get("kind") != KIND]


def _read(path: Path) -> bytes:
    """What the user names may be a pipe of the shell's; what is read of it is bounded."""
    if path == STANDARD_INPUT:
        return sys.stdin.buffer.read(LARGEST_BYTES + 1)
    with path.open("rb") as file:
        return file.read(LARGEST_BYTES + 1)


def read_job(path: Path) -> OptimizationJob:
    """The one OptimizationJob in a YAML file.

    Raises:
        ManifestError: as `read_manifests`.
        InvalidJob: the job breaks a rule; each line names field, value and remedy.
    """
    return validate(with_name(read_manifests(path)[0]))


def with_name(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with a name where it leaves that to the server: the beginning that it gives,
    and `local`, for what is checked or run here."""
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("name") is not None:
        return manifest
    begins = metadata.get("generateName")
    if not isinstance(begins, str) or not begins:
        return manifest
    return {**manifest, "metadata": {**metadata, "name": f"{begins}local"}}
