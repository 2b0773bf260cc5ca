"""Names, documents and the choice of what goes: the pure parts."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwise.checkpoint.layout import (
    BrokenError,
    Manifest,
    Name,
    Part,
    Sidecar,
    is_ours,
    part_file,
    sidecar_file,
    tiles,
)
from shardwise.checkpoint.retention import State, doomed

names = st.builds(
    Name,
    step=st.integers(0, 10**12),
    generation=st.integers(0, 10**6),
    workers=st.integers(1, 10**4),
    job=st.sampled_from(["0123abcd", "ffffffff"]),
)
MANIFEST = Manifest(
    identity="job",
    step=200,
    generation=5,
    evaluated=150,
    length=4096,
    parts=(
        Part(rank=0, sha256="0" * 64, bytes=100, start=0, stop=2048),
        Part(rank=1, sha256="1" * 64, bytes=80, start=2048, stop=4096),
    ),
    versions={"torch": "2.13.0"},
    at="2026-11-23T12:00:00+00:00",
)


@given(names)
def test_a_name_survives_its_directory(name: Name) -> None:
    assert Name.parse(str(name)) == name


def test_a_name_as_it_is_documented() -> None:
    name = Name.of(step=200, generation=5, workers=4, identity="x")
    assert str(name).startswith("step-0000000200-g5-w4-")


@pytest.mark.parametrize(
    "text",
    ["lost+found", "step-200-g5-w4-0123abcd", "step-0000000200-g05-w4-0123abcd", "step-0000000200"],
)
def test_other_directories_are_no_checkpoints(text: str) -> None:
    assert Name.parse(text) is None


@given(names, names)
def test_newer_is_greater(one: Name, other: Name) -> None:
    if one.step != other.step:
        assert (one < other) == (one.step < other.step)


def test_only_our_files_are_ours() -> None:
    ours = [part_file(3, "a" * 64), sidecar_file(123456), "manifest.json"]
    assert all(map(is_ours, ours))
    assert all(is_ours(f".{name}.tmp-123-0badcafe") for name in ours)
    assert not any(map(is_ours, ["notes.txt", "manifest.json.bak", "part-1.json", ".hidden"]))


def test_a_document_survives() -> None:
    assert Manifest.unseal(MANIFEST.seal()) == MANIFEST
    failed = Sidecar(identity="job", versions={}, error="No space left on device")
    assert Sidecar.unseal(failed.seal()) == failed


@given(st.data())
def test_a_changed_bit_in_a_document_is_noticed(data: st.DataObject) -> None:
    sealed = bytearray(MANIFEST.seal())
    place = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[place // 8] ^= 1 << place % 8
    with contextlib.suppress(BrokenError):
        # White space may change; what the document says may not.
        assert Manifest.unseal(bytes(sealed)) == MANIFEST


@given(st.integers(0, len(MANIFEST.seal()) - 2))
def test_a_truncated_document_is_noticed(length: int) -> None:
    with pytest.raises(BrokenError):
        Manifest.unseal(MANIFEST.seal()[:length])


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text(), st.lists).map(repr).map(str.encode)
)
def test_anything_else_is_no_document(data: bytes) -> None:
    with pytest.raises(BrokenError):
        Manifest.unseal(data)


def test_another_format_is_named() -> None:
    newer = Manifest.model_construct(**{**dict(MANIFEST), "format": 2})
    with pytest.raises(BrokenError, match="is not of format 1"):
        Manifest.unseal(newer.seal())


@pytest.mark.parametrize(
    "pieces, length, whole",
    [
        ([(0, 4)], 4, True),
        ([(2, 4), (0, 2)], 4, True),
        ([(0, 0), (0, 4), (4, 4)], 4, True),
        ([(0, 2), (3, 4)], 4, False),
        ([(0, 3), (2, 4)], 4, False),
        ([(0, 3)], 4, False),
        ([(0, 5)], 4, False),
        ([], 0, True),
        ([], 4, False),
    ],
)
def test_tiles(pieces: list[tuple[int, int]], length: int, whole: bool) -> None:
    assert tiles(pieces, length) is whole


def test_a_manifest_must_be_its_directorys() -> None:
    name = Name.of(step=200, generation=5, workers=2, identity="job")
    MANIFEST.check(name)
    with pytest.raises(BrokenError, match="step 200"):
        MANIFEST.check(Name.of(step=201, generation=5, workers=2, identity="job"))
    gap = MANIFEST.model_copy(update={"length": 8192})
    with pytest.raises(BrokenError, match="do not make up"):
        gap.check(name)


states = st.sampled_from(State)


@given(st.dictionaries(names, states), names, st.integers(1, 4), st.booleans(), st.data())
def test_what_goes(
    found: dict[Name, State], current: Name, keep: int, committed: bool, data: st.DataObject
) -> None:
    found = {**found, current: State.SOUND if committed else State.UNCOMMITTED}
    awaited = data.draw(st.sets(st.sampled_from(sorted(found))))
    gone = doomed(found, current=current, committed=committed, keep=keep, awaited=awaited)
    assert gone == sorted(set(gone))
    own = {name for name in found if name.job == current.job}
    assert set(gone) <= {name for name in own if name < current}
    uncommitted = {name for name in own if found[name] is State.UNCOMMITTED}
    assert not set(gone) & uncommitted & awaited
    assert {n for n in uncommitted - awaited if n < current} <= set(gone)
    if not committed:
        assert set(gone) <= uncommitted
        return
    # Of the sound ones up to the current, exactly the last `keep` stay.
    sound = sorted(n for n in own if n <= current and found[n] is State.SOUND)
    assert [n for n in sound if n not in gone] == sound[-keep:]
