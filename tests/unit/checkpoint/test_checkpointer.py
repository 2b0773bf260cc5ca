"""The checkpointer with its thread: saving, keeping, leaving out, closing; paths and URLs."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import fsspec
import pytest
from states import IDENTITY, LENGTH, everything, same, state

from shardwise.checkpoint import Checkpointer, Report, listing, newest
from shardwise.checkpoint.files import Local, open_files
from shardwise.checkpoint.layout import Name, Sidecar, sidecar_file

SECONDS = 30.0


@pytest.fixture(params=["path", "file://", "memory://"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param != "memory://":
        prefix = "" if request.param == "path" else request.param
        yield f"{prefix}{tmp_path}/not/there/yet"
        return
    yield f"memory://{tmp_path.name}/checkpoints"
    with contextlib.suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


class Group:
    """A group's checkpointers; their reports come to one queue."""

    def __init__(self, location: str, size: int, *, keep: int = 2, **more: object) -> None:
        self.reports: queue.Queue[Report] = queue.Queue()
        self.members = [
            Checkpointer(
                location,
                identity=IDENTITY,
                keep=keep,
                on_report=self.reports.put,
                **more,  # type: ignore[arg-type]
            )
            for _ in range(size)
        ]

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *error: object) -> None:
        for member in self.members:
            member.close()

    def save(self, step: int, *, ranks: Iterable[int] | None = None, generation: int = 1) -> None:
        size = len(self.members)
        for rank in range(size) if ranks is None else ranks:
            snapshot = state(step, rank, size)
            assert self.members[rank].save(snapshot, rank=rank, size=size, generation=generation)

    def wait(self) -> None:
        for member in self.members:
            assert member.wait(SECONDS)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_any_number_of_workers_comes_back_whole(location: str, size: int) -> None:
    with Group(location, size) as group:
        group.save(12)
        group.wait()
        report = group.reports.get_nowait()
    assert (report.step, report.error, report.skipped) == (12, "", 0)
    # Of five workers some have no block.
    assert report.bytes > 3 * LENGTH * 4
    assert report.seconds > 0
    assert same(newest(location, IDENTITY), state(12))


def test_the_last_ones_are_kept(location: str) -> None:
    with Group(location, 2, keep=3) as group:
        for step in range(10, 60, 10):
            group.save(step)
            group.wait()
    found = listing(location)
    assert [each.step for each in found] == [50, 40, 30]
    assert all(each.committed and each.at is not None and each.workers == 2 for each in found)
    reports = [group.reports.get_nowait() for _ in range(5)]
    assert [each.bytes for each in found] == [each.bytes for each in reversed(reports[2:])]
    assert same(newest(location, IDENTITY), state(50))


def test_nothing_there_is_none(location: str) -> None:
    assert newest(location, IDENTITY) is None
    assert listing(location) == ()


def test_an_uncommitted_one_is_none(location: str) -> None:
    with Group(location, 3) as group:
        group.save(10, ranks=[0, 2])
        assert group.members[2].wait(SECONDS)
        assert not group.members[0].wait(0.05), "it waits for the part of rank 1"
    assert newest(location, IDENTITY) is None
    (only,) = listing(location)
    assert (only.step, only.committed, only.at) == (10, False, None)


def test_what_was_abandoned_is_removed(location: str) -> None:
    with Group(location, 2) as group:
        for step in (10, 20):
            group.save(step, ranks=[1], generation=step)
            assert group.members[1].wait(SECONDS)
        group.save(30, generation=3)
        group.wait()
    assert [each.step for each in listing(location)] == [30]


def test_two_jobs_share_a_location(location: str, caplog: pytest.LogCaptureFixture) -> None:
    def committed(identity: str, step: int) -> None:
        reports: queue.Queue[Report] = queue.Queue()
        saver = Checkpointer(location, identity=identity, keep=1, on_report=reports.put)
        saver.save(state(step), rank=0, size=1, generation=1)
        assert saver.wait(SECONDS)
        saver.close()
        assert not reports.get_nowait().error

    committed("mine", 10)
    for step in (10, 20):
        committed("theirs", step)
    assert same(newest(location, "mine"), state(10))
    (warning,) = caplog.messages
    assert "belongs to another job" in warning
    assert str(Name.of(step=20, generation=1, workers=1, identity="theirs")) in warning
    assert len(listing(location)) == 2


class Gate(Local):
    """Files whose parts are written once the gate is open."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.entered = threading.Event()
        self.opened = threading.Event()

    def put(self, path: str, chunks: Iterable[object]) -> None:
        def gated() -> Iterator[object]:
            for chunk in chunks:
                self.entered.set()
                assert self.opened.wait(SECONDS)
                yield chunk

        super().put(path, gated())  # type: ignore[arg-type]


def test_a_save_that_comes_too_early_is_left_out_and_counted(tmp_path: Path) -> None:
    gate = Gate(str(tmp_path))
    with Group(str(tmp_path), 1, files=gate) as group:
        (member,) = group.members
        assert not member.busy
        group.save(10)
        assert gate.entered.wait(SECONDS)
        assert member.busy
        for step in (20, 30):
            assert not member.save(state(step), rank=0, size=1, generation=1)
        assert not member.wait(0.05)
        gate.opened.set()
        group.wait()
        group.save(40)
        group.wait()
        reports = [group.reports.get_nowait() for _ in range(2)]
    assert [(report.step, report.skipped) for report in reports] == [(10, 2), (40, 0)]


def test_saving_returns_while_the_volume_hangs(tmp_path: Path) -> None:
    gate = Gate(str(tmp_path))
    with Group(str(tmp_path), 1, files=gate) as group:
        group.save(10)  # comes back, though nothing can be written
        assert gate.entered.wait(SECONDS)
        group.members[0].close(timeout=0.05)  # nor does closing wait for it
        gate.opened.set()
        group.members[0].close(timeout=SECONDS)
    assert everything(tmp_path) == [], "what was half written is gone"
    assert newest(str(tmp_path), IDENTITY) is None


def test_closed_is_closed(tmp_path: Path) -> None:
    with Group(str(tmp_path), 1) as group:
        group.members[0].close()
        with pytest.raises(RuntimeError, match="closed"):
            group.save(10)
    assert group.members[0].wait(SECONDS)


def test_closing_gives_up_what_is_waited_for(location: str) -> None:
    with Group(location, 2) as group:
        group.save(10, ranks=[0])
        assert not group.members[0].wait(0.05)
        group.members[0].close()
        assert group.members[0].wait(SECONDS)
    assert newest(location, IDENTITY) is None


def test_keep_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"spec.checkpoint.keep is 0; give 1 or more"):
        Group(str(tmp_path), 1, keep=0)


def test_workers_slower_than_the_interval_still_commit(location: str) -> None:
    # Rank 1 writes step 10 only when rank 0 is at step 40: waiting for the newest alone would
    # commit nothing, ever.
    with Group(location, 2) as group:
        for step in (10, 20, 30, 40):
            group.save(step, ranks=[0])
            until(lambda: not group.members[0].busy)
        group.save(10, ranks=[1])
        report = group.reports.get(timeout=SECONDS)
        assert (report.step, report.error, report.skipped) == (10, "", 2)
        group.save(40, ranks=[1])
        group.wait()
        assert group.reports.get_nowait().step == 40
    assert [each.step for each in listing(location)] == [40, 10]


def test_a_newer_commit_gives_up_the_older_ones(location: str) -> None:
    with Group(location, 2) as group:
        group.save(10, ranks=[0])
        until(lambda: not group.members[0].busy)
        group.save(20, generation=2)
        group.wait()
        report = group.reports.get_nowait()
    assert (report.step, report.skipped) == (20, 1)
    assert [each.step for each in listing(location)] == [20]


def test_a_part_that_never_comes_is_reported(location: str) -> None:
    with Group(location, 3, part_seconds=0.05) as group:
        group.save(10, ranks=[2])
        assert group.members[2].wait(SECONDS)
        group.save(10, ranks=[0])
        group.wait()
        report = group.reports.get_nowait()
    assert report.bytes == 0
    assert report.error.startswith("checkpoint of step 10: no part of rank 1 within 0.05 s")
    assert report.error.endswith("same volume; training goes on without it")


def test_a_failed_part_is_not_waited_for(location: str) -> None:
    name = Name.of(step=10, generation=1, workers=2, identity=IDENTITY)
    with Group(location, 2) as group:
        group.save(10, ranks=[1])
        assert group.members[1].wait(SECONDS)
        files = open_files(location)
        mark = f"{name}/{sidecar_file(1)}"
        left = Sidecar.unseal(bytes(files.get(mark)))
        failed = left.model_copy(update={"part": None, "error": "rank 1: no room"})
        files.put(mark, [failed.seal()])
        group.save(10, ranks=[0])
        group.wait()
        assert "rank 1: no room" in group.reports.get_nowait().error
    assert newest(location, IDENTITY) is None


def test_an_error_in_the_report_is_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(report: Report) -> None:
        raise ConnectionError("the coordinator is away")

    saver = Checkpointer(str(tmp_path), identity=IDENTITY, keep=2, on_report=refuse)
    for step in (10, 20):
        assert saver.save(state(step), rank=0, size=1, generation=1)
        assert saver.wait(SECONDS)
    saver.close()
    assert same(newest(str(tmp_path), IDENTITY), state(20))
    assert "could not be passed on" in caplog.text


def test_a_snapshot_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with Group(str(tmp_path), 1) as group:
        bad = state(10)
        bad.vectors["parameters"] = bad.vectors["parameters"][:5]
        group.members[0].save(bad, rank=0, size=1, generation=1)
        group.wait()
        assert "'parameters' of the snapshot has shape (5,)" in group.reports.get_nowait().error
        group.save(20)
        group.wait()
    assert same(newest(str(tmp_path), IDENTITY), state(20))


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    with Group(str(tmp_path), 1, keep=1) as group:
        group.save(10)
        group.wait()
        (old,) = tmp_path.glob("step-*")
        (old / "notes.txt").write_text("mine")
        group.save(20)
        group.wait()
    assert {path.name for path in tmp_path.iterdir()} > {"lost+found", "notes.txt"}
    assert [path.name for path in old.iterdir()] == ["notes.txt"]
    assert same(newest(str(tmp_path), IDENTITY), state(20))


def test_a_second_life_may_write_the_same_one_again(location: str) -> None:
    for _ in range(2):
        with Group(location, 2) as group:
            group.save(10)
            group.wait()
            assert group.reports.get_nowait().step == 10
    assert same(newest(location, IDENTITY), state(10))
    name = listing(location)[0].path
    assert len(open_files(location).entries(name)) == 5, "two parts, two sidecars, a manifest"


def until(condition: object, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come about"
        pause.wait(0.005)
