"""Reads a job's manifest from a file, or says what is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from shardwise.api.types import KIND, OptimizationJob
from shardwise.api.validation import validate

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
        text = sys.stdin.read() if path == STANDARD_INPUT else path.read_text()
        documents = [d for d in yaml.safe_load_all(text) if d is not None]
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: no YAML: {error}") from error
    objects: list[dict[str, Any]] = [d for d in documents if isinstance(d, dict)]
    jobs = [found for found in objects if found.get("kind") == KIND]
    if len(jobs) != 1:
        raise ManifestError(
            f"{path}: holds {len(jobs)} documents of kind {KIND}; it must hold exactly one"
        )
    return jobs[0], [found for found in objects if found.get("kind") != KIND]


def read_job(path: Path) -> OptimizationJob:
    """The one OptimizationJob in a YAML file.

    Raises:
        ManifestError: as `read_manifests`.
        InvalidJob: the job breaks a rule; each line names field, value and remedy.
    """
    return validate(read_manifests(path)[0])
