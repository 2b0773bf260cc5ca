"""`shardwise.load`: the files of a folder, checked, as a model."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from shardwise.loading.graph import Graph
from shardwise.loading.packed import LARGEST_FILE, unpacked
from shardwise.regular import UnsafeFileError, read_regular

GRAPH: Final = "graph.json.gz"
WEIGHTS: Final = "model.safetensors"
CONSTANTS: Final = "constants.safetensors"
FORMER: Final = "graph.pt2.gz"
RESULT: Final = "result.json"

LARGEST_PACKED: Final = 8 << 20
LARGEST_GRAPH: Final = 32 << 20
"""Bytes of the graph, packed and unpacked: a model of 100,000 operators takes about 15 MB."""
LARGEST_RESULT: Final = 64 << 20


def load(folder: str | Path, *, sha256: str | None = None) -> torch.nn.Module:
    """The model of a folder with `model.safetensors` and `graph.json.gz`, ready to be called.

    No code of the folder is run, whatever lies in it. The graph holds the sizes and hashes of the
    weights, which are checked before they are used; where the job's `result.json` is there too, the
    graph is checked against it.

    Args:
        sha256: of graph.json.gz, as the job's status or result.json tells it, where the folder has
            come by a way that is not trusted: then nothing else than what the job wrote is loaded.

    Raises:
        FileNotFoundError: the folder has no such files.
        UnsafeFileError: a file was changed, is too large, or is none that a job writes.
    """
    place = Path(folder)
    packed = _graph_bytes(place)
    found = hashlib.sha256(packed).hexdigest()
    for expected, who in ((sha256, "you gave"), (_listed(place), f"{RESULT} tells")):
        if expected is not None and found != expected:
            raise UnsafeFileError(
                f"{place / GRAPH}: has the SHA-256 {found}, not {expected} as {who}: it was "
                "changed or is of another run; take it from the job's output again"
            )
    described = _parsed(place / GRAPH, packed)
    try:
        files = described["files"]
        weights = unpacked(place / WEIGHTS, _checked(place, WEIGHTS, files))
        constants = {}
        if described["constants"]:
            constants = unpacked(place / CONSTANTS, _checked(place, CONSTANTS, files))
        return Graph(described, weights, constants)
    except UnsafeFileError as error:
        if str(error).startswith(str(place)):
            raise
        raise UnsafeFileError(f"{place / GRAPH}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UnsafeFileError(
            f"{place / GRAPH}: is no graph of a job: {type(error).__name__}: {error}; take it from "
            "the job's output again"
        ) from error


def _graph_bytes(place: Path) -> bytes:
    try:
        return read_regular(place / GRAPH, LARGEST_PACKED)
    except FileNotFoundError as error:
        if (place / FORMER).exists():
            raise UnsafeFileError(
                f"{place / FORMER}: is of an earlier version of Shardwise, in a form that can hold "
                "code, and is not read; run the job again, or use model.onnx"
            ) from error
        raise


def _listed(place: Path) -> str | None:
    """The graph's SHA-256 by the result.json in the folder, where there is one that lists it."""
    try:
        told = json.loads(read_regular(place / RESULT, LARGEST_RESULT))
        return next(
            (str(item["sha256"]) for item in told.get("artifacts") or () if item["name"] == GRAPH),
            None,
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnsafeFileError(
            f"{place / RESULT}: is no result of a job: {error}; take it from the job's output "
            "again, or remove it"
        ) from error


def _parsed(file: Path, packed: bytes) -> dict[str, Any]:
    try:
        unpacker = zlib.decompressobj(wbits=31)
        text = unpacker.decompress(packed, LARGEST_GRAPH + 1)
        if len(text) > LARGEST_GRAPH:
            raise UnsafeFileError(
                f"{file}: unpacks to more than {LARGEST_GRAPH} bytes; no graph of a job does"
            )
        if not unpacker.eof or unpacker.unused_data:
            raise ValueError("is cut, or has something behind its end")
        described = json.loads(text)
        if not isinstance(described, dict):
            raise ValueError("is no JSON object")
    except UnsafeFileError:
        raise
    except (zlib.error, ValueError, RecursionError) as error:
        raise UnsafeFileError(
            f"{file}: is no graph of a job: {error}; take it from the job's output again"
        ) from error
    return described


def _checked(place: Path, name: str, files: Mapping[str, Any]) -> bytes:
    data = read_regular(place / name, min(LARGEST_FILE, int(files[name]["bytes"])))
    if (
        len(data) != files[name]["bytes"]
        or hashlib.sha256(data).hexdigest() != (files[name]["sha256"])
    ):
        raise UnsafeFileError(
            f"{place / name}: does not match the hash in {GRAPH}: it was cut or changed, or is of "
            "another run; take both from the job's output again"
        )
    return data
