"""Faults on demand: their text, and when they strike."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from shardwise.worker import faults
from shardwise.worker.faults import Fault, FaultError, Faults, parse_fault, parse_faults


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("kill:1@50", Fault("kill", 50, 1)),
        ("hang:2@120", Fault("hang", 120, 2)),
        ("partition:0@200", Fault("partition", 200, 0)),
        ("leave:1@260", Fault("leave", 260, 1)),
        ("kill:3@7/2", Fault("kill", 7, 3, 2)),
        ("crash-coordinator@300", Fault("crash-coordinator", 300)),
    ],
)
def test_a_fault_is_read_and_written(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault
    assert str(fault) == text


@pytest.mark.parametrize("text", ["", "kill", "kill:1", "kill:x@1", "melt:1@2", "kill:1@-2"])
def test_what_is_no_fault_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(FaultError, match="kill:1@50"):
        parse_fault(text)


def test_a_list_may_be_empty() -> None:
    assert parse_faults("") == ()
    assert len(parse_faults("kill:1@5, hang:2@6")) == 2


@pytest.fixture
def struck(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    table = {kind: (lambda kind=kind: seen.append(kind)) for kind in faults._STRIKE}
    monkeypatch.setattr(faults, "_STRIKE", table)
    return seen


def test_a_fault_strikes_its_worker_at_its_step_once(struck: list[str], tmp_path: Path) -> None:
    listed = parse_faults("kill:1@2,hang:0@2,leave:1@3/2")
    for life in range(2):
        mine = Faults(listed, 1, tmp_path)
        for step in (0, 1, 2, 2, 4):
            mine.begin_step(step)
            mine.begin_transfer()
            mine.begin_transfer()
        assert struck == ["kill", "leave"], f"life {life}"


def test_a_partition_lets_nothing_in_and_heals(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: the filter is put on every socket of the process."""
    monkeypatch.setattr(faults, "PARTITION_SECONDS", 0.5)
    server = socket.create_server(("127.0.0.1", 0))
    program = (
        "import socket, sys\n"
        "from shardwise.worker import faults\n"
        "faults.PARTITION_SECONDS = 0.5\n"
        f"peer = socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))\n"
        "faults._partition()\n"
        "peer.settimeout(0.25)\n"
        "peer.sendall(b'now')\n"
        "try:\n"
        "    peer.recv(1)\n"
        "    sys.exit('it heard what was sent to it')\n"
        "except TimeoutError:\n"
        "    pass\n"
        "peer.settimeout(30)\n"
        "assert peer.recv(5) == b'hello'\n"
    )
    with server:
        child = subprocess.Popen([sys.executable, "-c", program])
        try:
            server.settimeout(60)
            connection, _ = server.accept()
            with connection:
                connection.settimeout(30)
                assert connection.recv(3) == b"now"  # the filter is on
                connection.sendall(b"hello")  # sent again by the kernel until it is taken
                assert child.wait(timeout=60) == 0
        finally:
            child.kill()
            child.wait()


def test_a_kill_is_a_real_one() -> None:
    program = (
        "from shardwise.worker.faults import Faults, parse_faults\n"
        "Faults(parse_faults('kill:0@0'), 0, None).begin_step(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
