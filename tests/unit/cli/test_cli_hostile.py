"""A job whose every text acts on a terminal, in every command; and terminals of ASCII alone."""

from __future__ import annotations

import io
import re

import pytest
from samples import event, job, pod, pool

from shardwise.cli.guard import Guard
from shardwise.cli.terminal import Screen
from shardwise.cli.view.visible import visible

EVIL = "\x1b[2J\x1b]52;c;cm0=\x07\x1b]8;;http://x\x1b\\\r\x9b31m\u202eevil\u2066\x7f"
ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
KEPT = {"kind", "apiVersion", "uid", "namespace", "name", "phase", "type", "state", "metric"}
KEPT |= {"resourceVersion", "creationTimestamp", "status", "direction", "labels"}


def hostile(value, key=""):
    """The object with EVIL behind each of its texts that the API server does not check."""
    if isinstance(value, dict):
        return (
            {
                k: v if k in KEPT and not isinstance(v, dict) else hostile(v, k)
                for k, v in value.items()
            }
            if key != "labels"
            else value
        )
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return value + EVIL if isinstance(value, str) and not re.match(r"\d{4}-", value) else value


FAILURE = {"reason": "UserCodeFailed", "message": EVIL, "logTail": f"a\n{EVIL}\nb"}
COMMANDS = [
    ("get",),
    ("get", "-o", "wide"),
    ("get", "-o", "json"),
    ("get", "-o", "yaml"),
    ("describe", "digits"),
    ("explain", "digits"),
    ("watch", "digits", "--timeout", "1"),
    ("watch", "--timeout", "1"),
    ("logs", "digits"),
    ("tasks", "digits"),
    ("tasks", "digits", "-o", "csv"),
    ("tasks", "digits", "-o", "json"),
    ("plot", "digits", "--history"),
    ("scale", "digits", "2"),
    ("suspend", "digits"),
    ("delete", "digits"),
    ("get", "no-such-job"),
]


@pytest.mark.parametrize("make", [job, pool])
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_command(api, call, make, arguments):
    found = hostile(make())
    found["status"]["lastFailure"] = dict(FAILURE, time="2026-01-01T00:59:00Z")
    found["metadata"]["annotations"] = {"a": EVIL}
    name = found["metadata"]["name"]
    api.put("optimizationjobs", found)
    api.put("pods", hostile(pod(0, job=name)))
    api.put("events", hostile(event("Warning", "Bad", "message")))
    api.write_log(f"{name}-0", f"2026-01-01T00:00:00Z {EVIL}")
    done = call(*(name if each == "digits" else each for each in arguments))
    assert not ACTING.search(done.stdout), repr(done.stdout)
    assert not ACTING.search(done.stderr), repr(done.stderr)
    assert "Traceback" not in done.stderr


def test_what_is_shown_in_their_place():
    assert visible("a\x1b[2Jb\u202ec\x9bd\te\n") == "a\\x1b[2Jb\\u202ec\\x9bd\te\n"
    assert visible("\x1b[1;32mgreen\x1b[0m\x1b[8mhidden", styles=True) == (
        "\x1b[1;32mgreen\x1b[0m\\x1b[8mhidden"
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_terminals_that_are_not_utf_8(encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    Guard(stream).write("a → b · ✓ ━━╸ ⣿ ▇ … 漢\n")
    Screen(stream).draw(["x → y ━━", EVIL])
    text = raw.getvalue().decode(encoding)
    assert text.startswith("a -> b")
    assert "x -> y --" in text
