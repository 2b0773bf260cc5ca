"""What a compression leaves: the model in files that need no training code, and its table.

model.safetensors   the weights: integers and scales, packed, pruned ones left out
graph.pt2.gz        what computes with them (torch.export), for `shardwise.load`
model.onnx          the same for ONNX Runtime and others
compression.json    the table; pareto.png, its picture

Every file but the last two has the same bytes on any number of workers.
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from shardwise.compression.deployment import Deployment, deploy
from shardwise.compression.errors import CompressionError
from shardwise.compression.examples import example_inputs
from shardwise.compression.exporting import exported
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
    files: dict[str, bytes] = {"model.safetensors": deployed.packed()}
    for name, make in FILES:
        beat("finishing")
        try:
            files[name] = make(deployed)
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
    _aside(directory / "model.safetensors", deployed.packed())
    try:
        _aside(directory / "graph.pt2.gz", to_graph(deployed))
    except CompressionError as error:
        log.warning("graph.pt2.gz is not written: %s", error.message)


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


def to_graph(deployed: Deployment) -> bytes:
    """The exported program without its weights, compressed.

    Raises:
        CompressionError: torch.export refuses the model.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about how torch copies a graph
        blank = copy.deepcopy(deployed.model)
    for _, tensor, owner, attribute in _tensors(blank):
        # One element in memory, whatever its shape: the weights come from model.safetensors.
        empty = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        if attribute in owner._parameters:
            owner._parameters[attribute] = nn.Parameter(
                empty, requires_grad=tensor.requires_grad and tensor.is_floating_point()
            )
        else:
            owner._buffers[attribute] = empty
    program = exported(deployed.subject.task, blank)
    for node in program.graph.nodes:
        for origin in ("from_node", "stack_trace"):  # they hold addresses and paths
            node.meta.pop(origin, None)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the blank weights are incomplete: they are
        torch.export.save(program, buffer)
    return gzip.compress(buffer.getvalue(), mtime=0)


def _tensors(model: nn.Module) -> list[tuple[str, Tensor, nn.Module, str]]:
    return [
        (f"{prefix}.{name}", tensor, module, name)
        for prefix, module in model.named_modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    ]


def _checked_onnx(deployed: Deployment) -> bytes:
    data = to_onnx(deployed)
    inputs = example_inputs(deployed.subject.task, CHECKED_SAMPLES)
    same = agreement(deployed, OnnxModel(data), inputs)
    if same < AGREEMENT:
        raise CompressionError(
            f"onnxruntime gives the same prediction for {100 * same:.1f} % of {len(inputs[0])} "
            f"samples only, less than {100 * AGREEMENT:.0f} %"
        )
    return data


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


FILES: Final[tuple[tuple[str, Callable[[Deployment], bytes]], ...]] = (
    ("graph.pt2.gz", to_graph),
    ("model.onnx", _checked_onnx),
)
"""The files beside the weights, and what makes each."""


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
