"""Damaged, missing and foreign checkpoints are skipped for the one before, with a word on each."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from states import IDENTITY, Group, everything, same, state

from shardwise.checkpoint import CheckpointError, listing, newest
from shardwise.checkpoint.layout import MANIFEST, Manifest

OLD, NEW = 10, 20
SIZE = 3


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two checkpoints of three workers."""
    root = tmp_path_factory.mktemp("pristine")
    group = Group.at(root, SIZE)
    for step in (OLD, NEW):
        group.save(step)
    assert group.committed == [OLD, NEW]
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "checkpoints"))


@pytest.fixture(scope="module")
def scratch(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for the property tests, which mend what they break."""
    return Path(shutil.copytree(pristine, tmp_path_factory.mktemp("scratch") / "checkpoints"))


def of_step(root: Path, step: int) -> Path:
    (folder,) = root.glob(f"step-{step:010d}-*")
    return folder


def read_files(root: Path) -> list[Path]:
    """The files of the newest checkpoint that are read: manifest and parts."""
    folder = of_step(root, NEW)
    return sorted([folder / MANIFEST, *folder.glob("*.safetensors")])


@contextmanager
def changed(path: Path, data: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


class Warnings(logging.Handler):
    """What the reader warns of. (caplog cannot be used with Hypothesis.)"""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> Warnings:
        logging.getLogger("shardwise.checkpoint").addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger("shardwise.checkpoint").removeHandler(self)


def skips_to_the_old(root: Path, file: Path) -> str:
    """Assert that the old one is taken, with one warning that names the file; the warning."""
    with Warnings() as warnings:
        assert same(newest(str(root), IDENTITY), state(OLD))
    (message,) = warnings.messages
    assert str(file) in message
    return message


def test_undamaged(root: Path) -> None:
    with Warnings() as warnings:
        assert same(newest(str(root), IDENTITY), state(NEW))
    assert not warnings.messages


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_flipped_bit(scratch: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(read_files(scratch)))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) * 8 - 1))
    content[place // 8] ^= 1 << place % 8
    if path.name == MANIFEST and means_the_same(content, path.read_bytes()):
        return  # one kind of white space for another
    with changed(path, bytes(content)):
        skips_to_the_old(scratch, path)


def means_the_same(one: bytes, other: bytes) -> bool:
    return one.split() == other.split()


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_a_truncated_file(scratch: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(read_files(scratch)))
    content = path.read_bytes()
    length = data.draw(st.integers(0, len(content) - 2))
    with changed(path, content[:length]):
        skips_to_the_old(scratch, path)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_zeroes_where_data_was(scratch: Path, data: st.DataObject) -> None:
    # What some file systems leave after a power cut: the right length, and nothing in it.
    path = data.draw(st.sampled_from(read_files(scratch)))
    content = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(content) - 1))
    content[start:] = bytes(len(content) - start)
    if bytes(content) == path.read_bytes():
        return
    with changed(path, bytes(content)):
        skips_to_the_old(scratch, path)


def test_a_file_too_long(root: Path) -> None:
    path = read_files(root)[-1]
    path.write_bytes(path.read_bytes() + b"\0")
    assert "bytes, not" in skips_to_the_old(root, path)


@pytest.mark.parametrize("number", range(1, SIZE + 1))
def test_a_missing_part(root: Path, number: int) -> None:
    path = read_files(root)[number]
    path.unlink()
    assert skips_to_the_old(root, path).endswith("is missing")


def test_parts_of_one_place_in_another(root: Path) -> None:
    first, second = read_files(root)[1:3]
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    skips_to_the_old(root, first)


def test_another_checkpoints_files(root: Path) -> None:
    # A whole, valid checkpoint under a wrong name.
    new = of_step(root, NEW)
    shutil.rmtree(new)
    shutil.copytree(of_step(root, OLD), new)
    assert f"is of step {OLD}" in skips_to_the_old(root, new / MANIFEST)


def test_a_sealed_manifest_that_promises_too_much(root: Path) -> None:
    path = of_step(root, NEW) / MANIFEST
    manifest = Manifest.unseal(path.read_bytes())
    longer = manifest.model_copy(update={"length": 2 * manifest.length})
    path.write_bytes(longer.seal())
    assert "do not make up" in skips_to_the_old(root, path)
    later = manifest.model_copy(update={"evaluated": NEW + 1})
    path.write_bytes(later.seal())
    message = skips_to_the_old(root, read_files(root)[1])
    assert "of another place than the manifest says" in message


def test_a_directory_in_a_files_place(root: Path) -> None:
    path = read_files(root)[1]
    path.unlink()
    path.mkdir()
    skips_to_the_old(root, path)


def test_another_identity(root: Path) -> None:
    damaged: list[str] = []
    with Warnings() as warnings:
        assert newest(str(root), "cd" * 32, on_damage=damaged.append) is None
    assert damaged == []
    assert len(warnings.messages) == 2
    assert all("belongs to another job" in message for message in warnings.messages)


def test_another_identity_of_the_same_digits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Eight digits may agree by chance; the manifest holds the whole.
    monkeypatch.setattr("shardwise.checkpoint.reader.job_digits", lambda _: new_job)
    new_job = of_step(root, NEW).name[-8:]
    assert newest(str(root), "cd" * 32) is None


def test_all_damaged_is_none(root: Path) -> None:
    for path in everything(root):
        path.write_bytes(path.read_bytes()[:-9])
    with Warnings() as warnings:
        assert newest(str(root), IDENTITY) is None
    assert len(warnings.messages) == 2


def test_other_versions_are_mentioned(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardwise.checkpoint.reader.versions", lambda: {"torch": "9.9"})
    with Warnings() as warnings:
        assert same(newest(str(root), IDENTITY), state(NEW))
    (message,) = warnings.messages
    assert "may end in other bytes" in message


def test_parts_of_other_versions_are_not_committed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Group.at(root, 2)
    group.write(30, 1)
    monkeypatch.setattr("shardwise.checkpoint.saver.versions", lambda: {"torch": "9.9"})
    group.save(30, order=[0])
    assert group.committed == []
    assert same(newest(str(root), IDENTITY), state(NEW))


def test_a_location_that_cannot_be_read_is_not_an_empty_one(root: Path) -> None:
    file = read_files(root)[0]
    for read in (lambda: newest(str(file), IDENTITY), lambda: listing(str(file))):
        with pytest.raises(CheckpointError, match=r"cannot read .*manifest\.json: Not a directory"):
            read()


def test_the_list_tells_of_a_damaged_manifest(root: Path) -> None:
    (of_step(root, NEW) / MANIFEST).write_text("{}")
    new, old = listing(str(root))
    assert (new.step, new.committed, new.at) == (NEW, True, None)
    assert "was changed" in new.trouble
    assert (old.step, old.trouble) == (OLD, "")


def test_a_spoilt_one_never_drives_out_a_good_one(root: Path) -> None:
    # Of two to keep, the one of step 20 is cut short: it does not count.
    part = read_files(root)[1]
    part.write_bytes(part.read_bytes()[:100])
    group = Group.at(root, SIZE, keep=2, generation=2)
    group.save(30)
    assert [each.step for each in listing(str(root))] == [30, NEW, OLD]
    group.save(40)
    assert [each.step for each in listing(str(root))] == [40, 30]
