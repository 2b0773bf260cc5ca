"""A pod's first process: imports torch once, and keeps the worker alive.

python -m shardwise.worker              one worker, from its environment
python -m shardwise.worker --count N    N workers, indices 0 to N-1 (local mode); more with
                                        `start INDEX` on standard input
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import sys
import threading

# Before torch and NumPy read them: the number of threads is the job's to choose, not the pod's.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from shardwise.api import environment, exitcodes
from shardwise.worker.launcher import ALIVE, READY, Launcher
from shardwise.worker.life import main as run_worker
from shardwise.worker.outcome import out_of_memory
from shardwise.worker.settings import Settings, SettingsError

ALIVE_SECONDS = 0.5
WATCHDOG_SECONDS = 15.0
_PR_SET_NAME = 15


def _worker(index: int | None, signs_of_life: int) -> int:
    """One worker in a process of its own."""
    if index is not None:
        os.environ[environment.INDEX] = str(index)
        os.environ[environment.WORKER] = f"worker-{index}"
        log = os.environ.get(environment.TERMINATION_LOG)
        if log:
            os.environ[environment.TERMINATION_LOG] = f"{log}-{index}"
        port = os.environ.get(environment.METRICS_PORT, "")
        if port.isdigit():
            os.environ[environment.METRICS_PORT] = str(int(port) + index)
    try:
        settings = Settings.read(os.environ)
    except SettingsError as error:
        print(f"shardwise.worker: {error}", file=sys.stderr)
        return exitcodes.USAGE
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"shardwise-{settings.index}".encode(), 0, 0, 0)
    _log_as(settings.worker)
    # A worker whose threads have died would hold its group up; begun anew it does not.
    threading.excepthook = _crash
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before any thread starts
    threading.Thread(target=_live, args=(signs_of_life,), name="alive", daemon=True).start()
    return run_worker(settings, lambda: _write(signs_of_life, READY))


def _log_as(name: str) -> None:
    logging.basicConfig(
        level=os.environ.get("SHARDWISE_LOG_LEVEL", "INFO").upper(),
        format=f"%(asctime)s %(levelname)s [{name}] %(message)s",
        stream=sys.stderr,
        force=True,
    )


def _crash(what: threading.ExceptHookArgs) -> None:
    threading.__excepthook__(what)
    sys.stderr.flush()
    os._exit(1)


def _live(signs_of_life: int) -> None:
    """Tell the launcher that this process is not stopped, from a thread that never waits long."""
    pause = threading.Event()
    while _write(signs_of_life, ALIVE):
        pause.wait(ALIVE_SECONDS)


def _write(descriptor: int, sign: bytes) -> bool:
    try:
        os.write(descriptor, sign)
    except OSError:  # the launcher is gone, and this process is about to be
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m shardwise.worker")
    parser.add_argument("--count", type=int, default=None, metavar="N")
    count = parser.parse_args().count
    _log_as("launcher")
    watchdog = float(os.environ.get(environment.WATCHDOG_SECONDS) or WATCHDOG_SECONDS)
    pool = bool(os.environ.get(environment.POOL))
    launcher = Launcher(_worker, watchdog, out_of_memory(os.environ), pool)
    if count is None:
        return launcher.main([None], None)
    return launcher.main(range(count), sys.stdin.fileno())


if __name__ == "__main__":
    sys.exit(main())
