"""What `run` draws on a terminal: the coordinator's report, in the picture of `watch`."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import NOW

from shardwise.cli.display import display
from shardwise.cli.view.local import as_job, as_pods
from shardwise.cli.view.sight import Sight
from shardwise.cli.view.style import PLAIN
from shardwise.cli.view.watch import frame
from shardwise.coordinator.report import CheckpointState, Loss, Progress, TaskReport
from shardwise.local.display import lines

STARTED = datetime(2026, 1, 1, 0, 59, 0, tzinfo=UTC)
AT = datetime(2026, 1, 1, 0, 59, 30, tzinfo=UTC).timestamp()
REPORT = TaskReport(
    state="training",
    generation=3,
    connected=("worker-0", "worker-1", "worker-3"),
    members=("worker-0", "worker-1"),
    workers=4,
    progress=Progress(
        step=120,
        total_steps=460,
        epoch=10,
        loss=0.25,
        samples_per_second=5120.0,
        eta_seconds=12.0,
        at=AT,
        metrics={"accuracy": 0.9},
    ),
    failure=None,
    result=None,
    recoveries={"Killed": 1, "Joined": 2},
    losses=(Loss(worker="worker-2", index=2, cause="Killed", at=AT, step=100, seconds=0.21),),
    seconds={"productive": 27.0, "recovery": 0.3, "waiting": 2.7},
    checkpoint=CheckpointState(step=100, at=AT, bytes=10, seconds=0.1),
)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("training", "digits: 99 % compression: prune · step 460/460 · loss 0.2500 · "),
        (
            "finished",
            "digits: 100 % step 460/460 · loss 0.2500 · accuracy 90.00% · 5,120 samples/s",
        ),
    ],
)
def test_what_comes_after_the_training_is_told(state, told, capsys):
    done = replace(REPORT.progress, step=460, stage="compression: prune")
    lines("digits")(replace(REPORT, state=state, progress=done))
    assert capsys.readouterr().err.startswith(told)


FRAME = """\
digits  Running  for 1m00s
━━━━━━━━━━━━━━━━━━╸─────────────────────────────────────────────────────  26 %
step 120/460 · epoch 10 · 12s left · loss 0.25 · 5,120 samples/s

loss        ▁
workers     2/4 ready · generation 3 · ■ 2 Running · ◧ 1 Starting
            0 ■ ■ · ◧
goodput     0.900 · productive 27s · waiting 2.7s · recovery 300ms
checkpoint  step 100
recoveries  1 (Killed 1)
            ↻ worker-2 Killed at step 100, went on after 210ms, 30s ago
"""


def drawn(report: TaskReport) -> list[str]:
    sight = Sight()
    sight.take_job("MODIFIED", as_job("digits", report, STARTED))
    sight.pods = {pod["metadata"]["name"]: pod for pod in as_pods(report)}
    return frame(sight, NOW, 80, PLAIN)


def test_a_local_run_looks_as_a_job_does():
    assert "\n".join(drawn(REPORT)) + "\n" == FRAME


@pytest.mark.parametrize(
    ("state", "progress", "word"),
    [
        ("waiting", False, "Starting"),
        ("forming", True, "Recovering"),
        ("finished", True, "Succeeded"),
        ("failed", True, "Failed"),
    ],
)
def test_states(state, progress, word):
    report = replace(REPORT, state=state, progress=REPORT.progress if progress else None)
    assert drawn(report)[0].startswith(f"digits  {word}")


def test_why_it_waits_is_told():
    report = replace(REPORT, state="waiting", waiting="1 of 4 workers is ready", progress=None)
    assert "  1 of 4 workers is ready" in drawn(report)


@given(
    st.floats(allow_nan=True),
    st.integers(0, 10),
    st.none() | st.floats(0),
    st.dictionaries(st.sampled_from(["productive", "waiting"]), st.floats(0, 1e9)),
)
def test_any_report_can_be_drawn(loss, total, eta, seconds):
    progress = replace(REPORT.progress, loss=loss, total_steps=total, eta_seconds=eta)
    drawn(replace(REPORT, progress=progress, seconds=seconds))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_it_draws_on_standard_error(monkeypatch, capsys):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with display("digits") as show:
        show(REPORT)
        show(replace(REPORT, state="finished"))
    assert "starting the workers" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[?25h")
    assert capsys.readouterr().out == ""


def test_elsewhere_it_prints_lines(capsys):
    with display("digits") as show:
        show(REPORT)
    assert capsys.readouterr().err.startswith("digits: 26 % step 120/460")
