"""The files of a finished run. Every file is complete or absent: written aside, then renamed.

weights.safetensors     parameters and buffers; its SHA-256 is the result's weightsSha256
optimizer.safetensors   the optimizer's state vectors, named SLOT/PARAMETER
result.json, history.csv, curve.png
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from shardwise.engine.history import History
from shardwise.worker.history import write_csv, write_picture


class OutputError(Exception):
    """The result could not be written; the message names the file and the remedy."""

    @classmethod
    def of(cls, directory: Path, error: OSError) -> OutputError:
        return cls(
            f"spec.output: cannot write to {directory}: {error.strerror}: {error.filename}; give "
            "the volume enough room, and write access for group 65532"
        )


def write(
    directory: Path,
    *,
    name: str,
    weights: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    history: History,
    result: Mapping[str, Any],
    brief: bool = False,
) -> dict[str, Any]:
    """Write all files into `directory`; the result with the hashes and the path added.

    Args:
        brief: without the optimizer's state and the picture: one of many tasks.

    Raises:
        OutputError: the directory cannot be written to.
    """
    try:
        trained = write_trained(directory, name=name, weights=weights, history=history, brief=brief)
        hashes = {"weightsSha256": trained}
        if not brief:
            file = directory / "optimizer.safetensors"
            hashes["optimizerSha256"] = _write_tensors(file, optimizer)
        complete = {**result, **hashes, "path": str(directory)}
        text = json.dumps(complete, indent=2) + "\n"
        # Last, so that a result.json says that all the rest is there.
        write_aside(directory / "result.json", lambda path: _write_text(path, text))
    except OSError as error:
        raise OutputError.of(directory, error) from error
    return complete


COMPRESSION_FIGURES = ("bytes", "parameters", "nonzeros", "macs", "latencyMilliseconds")


def figures(result: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a result by name: the last evaluation's, and those of the compression's last
    row where there was one, its evaluation included."""
    found: dict[str, float] = dict(result["metrics"])
    rows = (result.get("compression") or {}).get("rows") or ()
    if rows:
        last = rows[-1]
        found |= last["metrics"]
        found |= {name: last[name] for name in COMPRESSION_FIGURES if last.get(name) is not None}
    return found


def write_trained(
    directory: Path,
    *,
    name: str,
    weights: Mapping[str, Tensor],
    history: History,
    brief: bool = False,
) -> str:
    """Write what the training alone gave; the hash of the weights.

    Args:
        brief: without the picture.

    Raises:
        OSError: the directory cannot be written to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    sha256 = _write_tensors(directory / "weights.safetensors", weights)
    write_aside(directory / "history.csv", lambda path: write_csv(history, path))
    if not brief:
        write_aside(directory / "curve.png", lambda path: write_picture(history, path, name))
    return sha256


def for_status(result: Mapping[str, Any], metric: str = "accuracy") -> dict[str, Any]:
    """The result as status.result has it: figures as text, metrics as a list; beside it what
    status.artifacts and status.compression have, where there was a compression.

    Args:
        metric: the figure of each line of the compression's table.
    """
    found: dict[str, Any] = {
        "steps": result["steps"],
        "metrics": [{"name": k, "value": f"{v:.6g}"} for k, v in result["metrics"].items()],
        "weightsSha256": result["weightsSha256"],
        "seconds": f"{result['seconds']:.1f}",
        "samplesPerSecond": f"{result['samplesPerSecond']:.0f}",
        "path": result["path"],
    }
    if "optimizerSha256" in result:
        found["optimizerSha256"] = result["optimizerSha256"]
    if "compression" not in result:
        return found
    from shardwise.compression import artifacts

    told = artifacts.for_status(result, metric)
    table = {"rows": told["compression"], "undone": result["compression"]["undone"]}
    return found | {"artifacts": told["artifacts"], "compression": table}


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    data = save(dict(tensors))
    write_aside(path, lambda target: _write_bytes(target, data))
    return hashlib.sha256(data).hexdigest()


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)


def write_aside(path: Path, write_to: Callable[[Path], None]) -> None:
    """Have a file written under another name, and give it its own once it is whole."""
    # A name that nobody can have put a link at before.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        write_to(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
