"""Reads a job's manifest from a file, or says what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from shardwise.api.types import KIND, OptimizationJob
from shardwise.api.validation import validate


class ManifestError(Exception):
    """The file holds no job that can be run; the message tells what and where."""


def read_job(path: Path) -> OptimizationJob:
    """The one OptimizationJob in a YAML file.

    Raises:
        ManifestError: the file cannot be read, is no YAML, or has no job or several.
        InvalidJob: the job breaks a rule; each line names field, value and remedy.
    """
    try:
        documents = [d for d in yaml.safe_load_all(path.read_text()) if d is not None]
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: no YAML: {error}") from error
    jobs: list[dict[str, Any]] = [
        d for d in documents if isinstance(d, dict) and d.get("kind") == KIND
    ]
    if len(jobs) != 1:
        raise ManifestError(
            f"{path}: holds {len(jobs)} documents of kind {KIND}; it must hold exactly one"
        )
    return validate(jobs[0])
