"""The launcher, with workers of a few lines: who is begun anew, who is not, and what it exits with.

Each test runs a program of its own, because the launcher forks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from shardwise.api import exitcodes

TIMEOUT = 60

PROGRAM = """
import os, signal, sys, threading
from pathlib import Path
from shardwise.worker.launcher import ALIVE, READY, Launcher

folder = Path(sys.argv[1])

def lives(index):
    path = folder / f"lives-{index}"
    number = int(path.read_text()) if path.exists() else 0
    path.write_text(str(number + 1))
    return number

def run(index, pipe):
    life = lives(index)
    os.write(pipe, ALIVE)
%s

launcher = Launcher(run, %s)
sys.exit(launcher.main(range(int(sys.argv[2])), sys.stdin.fileno()))
"""


def launch(
    tmp_path: Path, body: str, count: int, watchdog: float = 30.0
) -> subprocess.Popen[bytes]:
    indented = "\n".join("    " + line for line in body.splitlines())
    program = PROGRAM % (indented, watchdog)
    return subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), str(count)], stdin=subprocess.PIPE
    )


def lives(tmp_path: Path, index: int) -> int:
    return int((tmp_path / f"lives-{index}").read_text())


def test_a_killed_worker_is_begun_anew_and_the_others_are_left_alone(tmp_path: Path) -> None:
    body = (
        "os.write(pipe, READY)\n"
        "if index == 1 and life < 7:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "return 0"
    )
    with launch(tmp_path, body, 2) as process:
        assert process.wait(TIMEOUT) == 0
    assert (lives(tmp_path, 0), lives(tmp_path, 1)) == (1, 8)


def test_a_worker_that_crashes_before_it_is_ready_is_given_up(tmp_path: Path) -> None:
    with launch(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)", 1) as process:
        assert process.wait(TIMEOUT) == 128 + signal.SIGSEGV
    assert lives(tmp_path, 0) == 5


def test_a_worker_that_others_kill_before_it_is_ready_is_not_to_blame(tmp_path: Path) -> None:
    body = "if life < 6:\n    os.kill(os.getpid(), signal.SIGKILL)\nreturn 0"
    with launch(tmp_path, body, 1) as process:
        assert process.wait(TIMEOUT) == 0
    assert lives(tmp_path, 0) == 7


def test_transfers_that_do_not_end_are_not_held_against_a_worker(tmp_path: Path) -> None:
    body = f"os.write(pipe, READY)\nreturn {exitcodes.HUNG} if life < 7 else 0"
    with launch(tmp_path, body, 1) as process:
        assert process.wait(TIMEOUT) == 0
    assert lives(tmp_path, 0) == 8


def test_a_worker_that_never_gives_a_sign_of_life_is_given_up(tmp_path: Path) -> None:
    with launch(tmp_path, "os.kill(os.getpid(), signal.SIGSTOP)", 1, watchdog=0.2) as process:
        assert process.wait(TIMEOUT) == 128 + signal.SIGKILL
    assert lives(tmp_path, 0) == 5


def test_a_worker_that_ends_in_an_exception_again_and_again_is_given_up(tmp_path: Path) -> None:
    with launch(tmp_path, "os.write(pipe, READY)\nreturn 1", 1) as process:
        assert process.wait(TIMEOUT) == 1
    assert lives(tmp_path, 0) == 5


def test_an_exit_code_of_its_own_is_final(tmp_path: Path) -> None:
    with launch(tmp_path, f"return {exitcodes.USER_CODE}", 1) as process:
        assert process.wait(TIMEOUT) == exitcodes.USER_CODE
    assert lives(tmp_path, 0) == 1


def test_a_worker_that_stands_still_is_begun_anew(tmp_path: Path) -> None:
    body = "if life == 0:\n    os.kill(os.getpid(), signal.SIGSTOP)\nreturn 0"
    with launch(tmp_path, body, 1, watchdog=0.5) as process:
        assert process.wait(TIMEOUT) == 0
    assert lives(tmp_path, 0) == 2


def test_a_worker_is_added_on_command(tmp_path: Path) -> None:
    body = (
        "if index == 5:\n"
        "    return 0\n"
        "while not (folder / 'lives-5').exists():\n"
        "    os.write(pipe, ALIVE)\n"
        "    threading.Event().wait(0.01)\n"
        "return 0"
    )
    with launch(tmp_path, body, 1) as process:
        assert process.stdin is not None
        process.stdin.write(b"start 5\n")
        process.stdin.flush()
        assert process.wait(TIMEOUT) == 0
    assert lives(tmp_path, 5) == 1


def test_sigterm_reaches_the_workers_and_none_is_begun_anew(tmp_path: Path) -> None:
    body = (
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(9))\n"
        "(folder / 'up').touch()\n"
        "threading.Event().wait(60)\n"
        "return 0"
    )
    with launch(tmp_path, body, 1) as process:
        _until_there(tmp_path / "up", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 9
    assert lives(tmp_path, 0) == 1


def test_sigterm_that_comes_with_the_fork_reaches_the_worker(tmp_path: Path) -> None:
    """It is sent by the worker itself, before its parent has even noted that it is there."""
    body = (
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(9))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "threading.Event().wait(60)\n"
        "return 0"
    )
    with launch(tmp_path, body, 1) as process:
        assert process.wait(TIMEOUT) == 9
    assert lives(tmp_path, 0) == 1


def test_the_workers_end_with_the_process_that_started_the_launcher(tmp_path: Path) -> None:
    body = (
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\n"
        "(folder / 'up').touch()\n"
        "threading.Event().wait(60)\n"
        "return 1"
    )
    with launch(tmp_path, body, 1) as process:
        _until_there(tmp_path / "up", process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0


def _until_there(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = os.times().elapsed + TIMEOUT
    while not path.exists():
        assert process.poll() is None, "the launcher has ended"
        assert os.times().elapsed < deadline, f"{path} did not come"
