"""What a run leaves to look at: its course as a table and as a picture."""

from __future__ import annotations

import csv
from pathlib import Path

from shardwise.engine.history import History

_COLUMNS = ("step", "epoch", "loss", "learningRate", "evaluationLoss")


def write_csv(history: History, path: Path) -> None:
    """One row a step; the evaluation's metrics stand in the row of their step."""
    evaluations = dict(history.evaluations)
    names = sorted({name for metrics in evaluations.values() for name in metrics} - {"loss"})
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*_COLUMNS, *names))
        for step, epoch, loss, rate in history.rows():
            metrics = evaluations.get(step, {})
            figures = [metrics.get(name, "") for name in ("loss", *names)]
            writer.writerow((step, epoch, loss, rate, *figures))


def write_picture(history: History, path: Path, title: str) -> None:
    """The training curve as a PNG: losses on the left axis, metrics on the right."""
    # Loaded here: it takes half a second, and only rank 0 draws, at the very end.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    losses = figure.add_subplot()
    losses.set(title=title, xlabel="step", ylabel="loss")
    losses.plot(range(1, len(history) + 1), history.losses, lw=1, label="training")
    places = [step for step, _ in history.evaluations]
    if places:
        values = [metrics["loss"] for _, metrics in history.evaluations]
        losses.plot(places, values, marker="o", ms=3, label="evaluation")
        names = sorted(history.evaluations[-1][1].keys() - {"loss"})
        if names:
            right = losses.twinx()
            right.set_ylabel(", ".join(names))
            for number, name in enumerate(names):
                course = [metrics[name] for _, metrics in history.evaluations]
                right.plot(places, course, color=f"C{number + 2}", ls="--", label=name)
    losses.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")
