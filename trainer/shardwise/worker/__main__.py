"""A pod's first process: imports torch once, forks the worker, passes signals on, reaps.

    python -m shardwise.worker              one worker, from its environment
    python -m shardwise.worker --count N    N workers, indices 0 to N-1 (local mode)

Nothing but imports may happen before the fork: no tensor operation, no thread.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from types import FrameType

# Before torch and NumPy read them: the number of threads is the job's to choose, not the pod's.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from shardwise.api import environment, exitcodes
from shardwise.worker.run import main as run_worker
from shardwise.worker.settings import Settings, SettingsError

SIBLING_SECONDS = 20
"""For the other workers of this machine to end once one has failed."""


def _child(environ: dict[str, str]) -> int:
    """One worker in a process of its own."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    try:
        settings = Settings.read(environ)
    except SettingsError as error:
        print(f"shardwise.worker: {error}", file=sys.stderr)
        return exitcodes.USAGE
    logging.basicConfig(
        level=environ.get("SHARDWISE_LOG_LEVEL", "INFO").upper(),
        format=f"%(asctime)s %(levelname)s [{settings.worker}] %(message)s",
        stream=sys.stderr,
    )
    return run_worker(settings)


def _environ(index: int | None) -> dict[str, str]:
    environ = dict(os.environ)
    if index is not None:
        environ |= {environment.INDEX: str(index), environment.WORKER: f"worker-{index}"}
    return environ


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m shardwise.worker")
    parser.add_argument("--count", type=int, default=None, metavar="N")
    count = parser.parse_args().count

    children: set[int] = set()

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        for child in children:
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    for index in range(count) if count is not None else [None]:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ.update(_environ(index))
                code = _child(dict(os.environ))
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                # Not sys.exit: the parent's exit handlers are not this process's to run.
                os._exit(code)
        children.add(child)
    worst = exitcodes.OK
    while children:
        child, status = os.wait()  # as a pod's first process it reaps whatever is left to it
        if child in children:
            children.discard(child)
            code = _exit_code(status)
            if code != exitcodes.OK and worst == exitcodes.OK:
                # The coordinator ends the others, unless it never heard of the one that is gone.
                signal.signal(signal.SIGALRM, lambda *_: pass_on(signal.SIGTERM, None))
                signal.alarm(SIBLING_SECONDS)
            worst = max(worst, code)
    return worst


if __name__ == "__main__":
    sys.exit(main())
