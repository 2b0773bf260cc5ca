"""A reader beside a writer that keeps few checkpoints: what it gets is always whole and recent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from states import IDENTITY, Group, same, state

from shardwise.checkpoint import listing, newest
from shardwise.checkpoint.files import Local
from shardwise.checkpoint.layout import MANIFEST

SAVES = 40


def test_readers_beside_a_writer(tmp_path: Path) -> None:
    group = Group.at(tmp_path, 2, keep=1)
    group.save(1)
    done = threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        last = 1
        try:
            while not done.is_set():
                snapshot = newest(str(tmp_path), IDENTITY)
                assert snapshot is not None
                assert same(snapshot, state(snapshot.step))
                assert snapshot.step >= last, "never back"
                last = snapshot.step
                listing(str(tmp_path))
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for step in range(2, SAVES):
        group.save(step)
    done.set()
    for reader in readers:
        reader.join(60)
    assert not errors
    assert group.committed == list(range(1, SAVES))


class Interrupted(Local):
    """Files between whose operations something else happens."""

    def __init__(self, root: str, before: Callable[[str], None]) -> None:
        super().__init__(root)
        self.before = before

    def get(self, path: str, limit: int | None = None) -> bytearray:
        self.before(path)
        return super().get(path)

    def entries(self, directory: str) -> dict[str, int | None]:
        found = super().entries(directory)
        self.before(f"{directory}/")
        return found


@pytest.mark.parametrize("where", ["/", f"/{MANIFEST}", "part-00000", "part-00001"])
def test_what_is_being_read_is_removed(
    tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    group = Group.at(tmp_path, 2, keep=1)
    group.save(10)
    steps = iter([20, 30])

    def overtake(path: str) -> None:
        if where in path and (step := next(steps, None)):
            group.save(step)

    snapshot = newest(str(tmp_path), IDENTITY, files=Interrupted(str(tmp_path), overtake))
    assert snapshot is not None
    assert same(snapshot, state(30))
    assert not caplog.messages, "that is no reason to warn"


def test_it_is_committed_after_it_was_looked_at(tmp_path: Path) -> None:
    # The only committed one goes for one that had not been committed when it was looked at.
    group = Group.at(tmp_path, 2, keep=1)
    group.save(10)
    group.write(20, 0)
    looked: list[str] = []

    def commit(path: str) -> None:
        looked.append(path)
        if path.startswith("step-0000000020") and len(looked) == 2:
            group.write(20, 1)
            group.savers[0].poll()

    files = Interrupted(str(tmp_path), commit)
    assert same(newest(str(tmp_path), IDENTITY, files=files), state(20))
    assert group.committed == [10, 20]
