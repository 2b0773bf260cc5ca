"""What a compression leaves: the model in files that need no training code, and its table.

model.safetensors   the weights: integers and scales, packed, pruned ones left out
graph.json.gz       what computes with them, for `shardwise.load`: torch's operators by their names
constants.safetensors
                    tensors that are part of the graph alone, where there are any
model.onnx          the same for ONNX Runtime and others
compression.json    the table; pareto.png, its picture

Every file but the last two has the same bytes on any number of workers.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from shardwise.compression.deployment import Deployment, deploy
from shardwise.compression.errors import CompressionError
from shardwise.compression.examples import example_inputs
from shardwise.compression.graphs import to_graph
from shardwise.compression.onnx_export import AGREEMENT, OnnxModel, agreement, to_onnx
from shardwise.compression.pipeline import Pipeline
from shardwise.engine.activity import Beat, silent

log = logging.getLogger("shardwise.compression")

TABLE = "compression.json"
CHECKED_SAMPLES = 256
TIMED_SAMPLES = 64


def write(
    pipeline: Pipeline, directory: Path, *, title: str, beat: Beat = silent
) -> dict[str, Any]:
    """Write the compressed model and its table.

    Args:
        pipeline: done.
        directory: is made where it is missing.
        title: of the picture.
        beat: called between the parts of the work.

    Returns:
        `artifacts` (name, path, bytes, sha256 of each file) and `compression` (the table), as
        result.json has them.

    Raises:
        OSError: the directory cannot be written to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    deployed = deploy(pipeline.subject)
    notes: list[str] = []
    packed = deployed.packed()
    files: dict[str, bytes] = {"model.safetensors": packed}
    for name, make in FILES:
        beat("finishing")
        try:
            files |= make(deployed, packed)
        except CompressionError as error:
            notes.append(f"{name} is not written: {error.message}")
    onnx, trained = files.get("model.onnx", b""), pipeline.rows[0].bytes
    if len(onnx) > trained:
        # ONNX has no form for what is pruned, and the graph is in it.
        notes.append(
            f"model.onnx is larger than the trained weights ({len(onnx)} bytes, {trained})"
        )
    made = {[row.step for row in pipeline.rows if row.step != pipeline.undone][-1]: onnx}
    rows = [row.to_json() | _latency(pipeline, row.step, made, beat) for row in pipeline.rows]
    table = {
        "rows": rows,
        "undone": pipeline.undone,
        "notes": notes,
        "latency": {
            "runtime": "onnxruntime",
            "samples": TIMED_SAMPLES,
            "threads": torch.get_num_threads(),
            "vnni": _has_vnni(),
        },
    }
    for name, data in files.items():
        _aside(directory / name, data)
    _aside(directory / TABLE, _json(table))
    _aside(directory / "pareto.png", picture(rows, title))
    artifacts = [
        {
            "name": name,
            "path": str(directory / name),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        for name, data in files.items()
    ]
    return {"artifacts": artifacts, "compression": table}


def keep(pipeline: Pipeline, directory: Path) -> None:
    """Write the model as the last finished step left it, for a failure of a later one.

    Raises:
        OSError: the directory cannot be written to.
    """
    _aside(directory / TABLE, _json({"rows": [row.to_json() for row in pipeline.rows]}))
    if not pipeline.finished:
        return  # the trained model is in a file of its own
    deployed = deploy(pipeline.subject)
    packed = deployed.packed()
    _aside(directory / "model.safetensors", packed)
    try:
        for name, data in to_graph(deployed, packed).items():
            _aside(directory / name, data)
    except CompressionError as error:
        log.warning("graph.json.gz is not written: %s", error.message)


def for_status(result: Mapping[str, Any], metric: str = "accuracy") -> dict[str, Any]:
    """What `write` gave, as status.result has it: `artifacts` and `compression`, a list of rows.

    Args:
        metric: the figure of each row; the loss where there is no such metric.
    """
    rows = []
    for row in result["compression"]["rows"]:
        figures, time = row["metrics"], row["latencyMilliseconds"]
        name = metric if metric in figures else "loss"
        found = {
            "name": row["step"],
            "metric": f"{name} {figures[name]:.4f}" if name in figures else None,
            "latencyMilliseconds": None if time is None else f"{time:.3f}",
            "note": row["note"] or None,
        } | {key: row[key] for key in ("bytes", "parameters", "nonzeros", "macs")}
        rows.append({key: value for key, value in found.items() if value is not None})
    return {"artifacts": result["artifacts"], "compression": rows}


def _graph(deployed: Deployment, packed: bytes) -> dict[str, bytes]:
    return to_graph(deployed, packed)


def _onnx(deployed: Deployment, packed: bytes) -> dict[str, bytes]:
    del packed
    data = to_onnx(deployed)
    inputs = example_inputs(deployed.subject.task, CHECKED_SAMPLES)
    same = agreement(deployed, OnnxModel(data), inputs)
    if same < AGREEMENT:
        raise CompressionError(
            f"onnxruntime gives the same prediction for {100 * same:.1f} % of {len(inputs[0])} "
            f"samples only, less than {100 * AGREEMENT:.0f} %"
        )
    return {"model.onnx": data}


def _latency(
    pipeline: Pipeline, step: str, made: Mapping[str, bytes], beat: Beat
) -> dict[str, float | None]:
    """The median time of a forward pass in ONNX Runtime, where this worker has the model.

    Args:
        made: what is exported already, by step.
    """
    subject = pipeline.models.get(step)
    if subject is None:
        return {"latencyMilliseconds": None}
    beat("finishing")
    try:
        model = OnnxModel(made.get(step) or to_onnx(deploy(subject)))
    except CompressionError:
        return {"latencyMilliseconds": None}
    inputs = example_inputs(subject.task, TIMED_SAMPLES)
    return {"latencyMilliseconds": round(model.milliseconds(inputs), 4)}


FILES: Final[tuple[tuple[str, Callable[[Deployment, bytes], dict[str, bytes]]], ...]] = (
    ("graph.json.gz", _graph),
    ("model.onnx", _onnx),
)
"""The files beside the weights, and what makes each and what belongs to it."""


def _has_vnni() -> bool:
    """Whether the CPU multiplies integers of eight bits by themselves: without it they are slower,
    and sums of products may saturate."""
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def picture(rows: list[dict[str, Any]], title: str) -> bytes:
    """Bytes against the first metric that is no loss: a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = sorted(
        {name for row in rows for name in row["metrics"]}, key=lambda n: (n == "loss", n)
    )
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel="bytes", xscale="log", ylabel=names[0] if names else "")
    for number, row in enumerate(rows):
        value = row["metrics"].get(names[0], 0.0) if names else 0.0
        axes.plot([row["bytes"]], [value], marker="o", color=f"C{number}", ls="")
        axes.annotate(row["step"], (row["bytes"], value), xytext=(6, 4), textcoords="offset points")
    axes.grid(alpha=0.3)
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _json(table: Mapping[str, Any]) -> bytes:
    return (json.dumps(table, indent=2) + "\n").encode()


def _aside(path: Path, data: bytes) -> None:
    # A name that nobody can have put a link at before.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
