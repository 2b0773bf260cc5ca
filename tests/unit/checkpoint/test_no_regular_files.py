"""A volume that others write to as well: what is no regular file is no checkpoint, and nothing
forged makes a reader wait, follow a link, or take more memory than the files have bytes."""

from __future__ import annotations

import json
import os
import resource
import socket
from pathlib import Path

import pytest
from states import IDENTITY, Group

from shardwise.checkpoint import listing, newest
from shardwise.checkpoint.layout import DOCUMENT_BYTES, MANIFEST, _hash

OLD, NEW = 10, 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    group = Group.at(tmp_path / "checkpoints", 2)
    for step in (OLD, NEW):
        group.save(step)
    return tmp_path / "checkpoints"


def of_step(root: Path, step: int) -> Path:
    (folder,) = root.glob(f"step-{step:010d}-*")
    return folder


def pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def link(path: Path, kept: Path) -> None:
    path.symlink_to(kept)


def endless(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path, _: Path) -> None:
    path.mkdir()


def listener(path: Path, _: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


@pytest.mark.parametrize("make", [pipe, link, endless, folder, listener])
@pytest.mark.parametrize("which", [MANIFEST, "part"])
def test_in_the_place_of_a_file(root: Path, tmp_path: Path, make, which) -> None:
    newer = of_step(root, NEW)
    path = newer / MANIFEST if which == MANIFEST else next(newer.glob("*.safetensors"))
    path.rename(tmp_path / "kept")
    make(path, tmp_path / "kept")
    found = newest(str(root), IDENTITY)
    assert found is not None and found.step == OLD
    assert {each.step for each in listing(str(root))} == {OLD, NEW}


@pytest.mark.parametrize("make", [pipe, link, endless, folder, listener])
def test_in_the_place_of_a_checkpoint(root: Path, tmp_path: Path, make) -> None:
    newer = of_step(root, NEW)
    newer.rename(tmp_path / newer.name)
    make(newer, tmp_path / newer.name)
    found = newest(str(root), IDENTITY)
    assert found is not None and found.step == OLD


def test_a_link_to_all_checkpoints_of_a_job(root: Path, tmp_path: Path) -> None:
    """The location itself is the user's to name: it may be a link."""
    (tmp_path / "named").symlink_to(root)
    found = newest(str(tmp_path / "named"), IDENTITY)
    assert found is not None and found.step == NEW


@pytest.mark.parametrize("make", [pipe, link, endless, folder])
def test_a_group_goes_on_saving_beside_it(root: Path, tmp_path: Path, make) -> None:
    newer = of_step(root, NEW)
    (newer / MANIFEST).rename(tmp_path / "kept")
    make(newer / MANIFEST, tmp_path / "kept")
    group = Group.at(root, 2)
    group.save(30)
    found = newest(str(root), IDENTITY)
    assert found is not None and found.step == 30


def test_a_manifest_without_end_is_not_read(root: Path) -> None:
    with (of_step(root, NEW) / MANIFEST).open("ab") as file:
        file.truncate(1 << 33)  # without blocks: the disk has room for it
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    damages: list[str] = []
    found = newest(str(root), IDENTITY, on_damage=damages.append)
    assert found is not None and found.step == OLD
    assert f"more than {DOCUMENT_BYTES}" in damages[0]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_manifest_that_promises_more_than_there_is(root: Path) -> None:
    newer = of_step(root, NEW)
    body = json.loads((newer / MANIFEST).read_text())
    body.pop("seal")
    body["length"] = body["parts"][1]["stop"] = 1 << 50
    (newer / MANIFEST).write_text(json.dumps({"seal": _hash(body), **body}))
    damages: list[str] = []
    found = newest(str(root), IDENTITY, on_damage=damages.append)
    assert found is not None and found.step == OLD
    assert "cannot hold elements" in damages[0]
