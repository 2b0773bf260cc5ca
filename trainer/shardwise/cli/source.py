"""Whether a job's parameters fit its entrypoint, as far as the source that is at hand tells.

Nothing of the user's is imported: the module's file is found and read.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardwise.api.errors import FieldError
    from shardwise.api.types import OptimizationJob


def entrypoint_errors(
    job: OptimizationJob, files: Mapping[str, str] | None = None
) -> list[FieldError]:
    """Parameters that the job's entrypoint does not take, or needs and does not get, and
    objectives that it does not give; empty too where the source cannot be had or does not tell.

    Args:
        files: the code by file name, as a ConfigMap has it; None: the module that the current
            folder has, else the one that is installed.
    """
    from shardwise.api.figures import source_errors

    module, _, function = job.spec.trainer.entrypoint.partition(":")
    source = source_of(module, Path.cwd()) if files is None else files.get(f"{module}.py")
    return [] if source is None else source_errors(job, source, function)


def source_of(module: str, folder: Path) -> str | None:
    """The source text of a module, which `folder` or else the Python path has; None where there
    is none. Neither the module nor the packages around it are imported."""
    first, *parts = module.split(".")
    spec = PathFinder.find_spec(first, [str(folder)]) or _installed(first)
    for part in parts:
        if spec is None or spec.submodule_search_locations is None:
            return None
        # By its last name: with the whole one, a namespace package would ask for its parent.
        spec = PathFinder.find_spec(part, list(spec.submodule_search_locations))
    loader = None if spec is None else spec.loader
    if spec is None or loader is None or not hasattr(loader, "get_source"):
        return None
    try:
        text: str | None = loader.get_source(spec.name)
    except (ImportError, SyntaxError, UnicodeError):  # No text that Python could read.
        return None
    return text


def _installed(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except ValueError:  # It is loaded already, in a way that tells nothing of its file.
        return None
