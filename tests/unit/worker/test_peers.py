"""Groups of proven peers: transfers by tag, their ends, and strangers while they form."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from shardwise.coordinator.protocol import PROTECTIONS
from shardwise.engine.group import GroupError
from shardwise.engine.traffic import wait
from shardwise.worker.handshake import NONCE_BYTES, Connector, Self
from shardwise.worker.meeting import PENDING
from shardwise.worker.peers import PeerGroup

SECONDS = 60.0
LENGTH = 16 * 2**20


class Values:
    """What a group needs of the control connection, among threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._values: dict[tuple[int, str], bytes] = {}

    def send(self, message) -> bool:
        with self._changed:
            self._values[message.generation, message.key] = message.value
            self._changed.notify_all()
        return True

    def wait_value(self, generation, key, timeout):
        with self._changed:
            if not self._changed.wait_for(lambda: (generation, key) in self._values, timeout):
                raise TimeoutError(f"no {key}")
            return self._values[generation, key]


def member(rank: int, size: int, **changes: Any) -> Self:
    values: dict[str, Any] = {
        "secret": b"s" * 32,
        "generation": 1,
        "rank": rank,
        "size": size,
        "protection": "authenticated",
    }
    return Self(**{**values, **changes})


def group(me: Self, address: str = "127.0.0.1") -> PeerGroup:
    return PeerGroup(me, address=address, before_wait=lambda: None)


def in_threads(*works: Callable[[], Any]) -> list[Any]:
    """What each gives, or the GroupError that it raised."""
    results: list[Any] = [None] * len(works)

    def run(number: int) -> None:
        try:
            results[number] = works[number]()
        except GroupError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive(), "a member never ended"
    return results


@contextlib.contextmanager
def formed(size: int, address: str = "127.0.0.1", **changes: Any) -> Iterator[list[PeerGroup]]:
    """A group of members in this process."""
    values = Values()
    groups = [group(member(rank, size, **changes), address) for rank in range(size)]
    try:
        ends = in_threads(*(lambda g=g: g.connect(values, SECONDS) for g in groups))
        assert ends == [None] * size
        yield groups
    finally:
        for each in groups:
            each.close()


def until(test: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not test():
        assert time.monotonic() < end
        time.sleep(0.0005)


# Transfers.


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_tensors_of_every_kind_arrive(protection) -> None:
    tensors = [
        torch.empty(0),
        torch.tensor(3.5, dtype=torch.float64),
        torch.arange(7, dtype=torch.int64),
        torch.ones(3, 5, dtype=torch.bfloat16),
        torch.tensor([True, False]),
        torch.randn(300_000),
    ]
    with formed(3, protection=protection) as groups:

        def work(rank: int) -> list[Any]:
            mine, others = groups[rank], [r for r in range(3) if r != rank]
            got = {r: [torch.zeros_like(t) for t in tensors] for r in others}
            works = [mine.receive(t, r, n) for r in others for n, t in enumerate(got[r])]
            works += [mine.send(t, r, n) for r in others for n, t in enumerate(tensors)]
            wait(works)
            return [each for r in others for each in got[r]]

        for got in in_threads(*(lambda r=r: work(r) for r in range(3))):
            assert all(torch.equal(a, b) for a, b in zip(got, [*tensors, *tensors], strict=True))


@pytest.mark.parametrize("length", [10, 2_000_000])
@pytest.mark.parametrize("protection", PROTECTIONS)
def test_the_order_of_posting_does_not_matter(protection, length) -> None:
    """As with gloo, a tag's messages come in order, and no tag waits for another one."""
    with formed(2, protection=protection) as (left, right):
        sent = [torch.full((length,), float(n)) for n in range(4)]

        def send() -> None:
            wait([left.send(t, 1, tag) for t, tag in zip(sent, (5, 6, 5, 7), strict=True)])

        def receive() -> list[float]:
            got = []
            for tag in (7, 5, 6, 5):
                tensor = torch.empty(length)
                right.receive(tensor, 0, tag).wait()
                got.append(float(tensor[-1]))
            return got

        assert in_threads(send, receive)[1] == [3.0, 0.0, 1.0, 2.0]


def test_a_peer_that_computes_holds_nobody_up_that_sends_to_another() -> None:
    with formed(3) as groups:
        big = torch.ones(LENGTH)
        stuck = groups[0].send(big, 1, 0)
        answer = torch.zeros(1)
        wait([groups[0].send(torch.ones(1), 2, 0)])
        wait([groups[2].receive(answer, 0, 0)])
        assert float(answer) == 1.0
        got = torch.empty(LENGTH)
        ends = in_threads(stuck.wait, groups[1].receive(got, 0, 0).wait)
        assert ends == [None, None]
        assert bool((got == 1).all())


def test_a_wrong_length_is_an_error_and_not_a_tensor() -> None:
    with formed(2) as (left, right):
        left.send(torch.ones(4), 1, 0).wait()
        with pytest.raises(GroupError, match="16 bytes of tag 0 came, where 12 are expected") as e:
            right.receive(torch.ones(3), 0, 0).wait()
        assert e.value.peer == 0


def test_a_peer_that_has_gone_is_named_and_others_are_heard() -> None:
    with formed(3) as groups:
        groups[2].send(torch.ones(1), 0, 0).wait()
        groups[1].close()
        got = torch.zeros(1)
        groups[0].receive(got, 2, 0).wait()
        with pytest.raises(GroupError, match=r"ended|broke") as e:
            groups[0].receive(got, 1, 0).wait()
        assert e.value.peer == 1


def test_what_was_sent_before_the_end_is_there() -> None:
    with formed(2) as (left, right):
        left.send(torch.ones(5), 1, 0).wait()
        left.close()
        got = torch.zeros(5)
        right.receive(got, 0, 0).wait()
        assert bool((got == 1).all())


def test_a_wait_ends_at_once_when_the_group_is_given_up() -> None:
    with formed(2) as (left, _):
        transfer = left.receive(torch.zeros(1), 1, 0)
        timer = threading.Timer(0.1, left.abort)
        timer.start()
        with pytest.raises(GroupError, match="the group is given up"):
            transfer.wait()
        # And so does every one that follows.
        with pytest.raises(GroupError, match="the group is given up"):
            left.send(torch.zeros(1), 1, 0).wait()
        left.close()
        left.abort()  # the control thread may be late


class FileValues(Values):
    """The same among processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def send(self, message) -> bool:
        path = self._folder / message.key.replace("/", "-")
        path.with_suffix(".new").write_bytes(message.value)
        path.with_suffix(".new").rename(path)
        return True

    def wait_value(self, generation, key, timeout):
        path = self._folder / key.replace("/", "-")
        until(path.exists)
        return path.read_bytes()


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_transfer_that_is_half_done_is_given_up(protection, tmp_path) -> None:
    """A peer that stands still, its connection open: what gloo forgets for ever."""
    torch.set_num_threads(1)  # a fork has none of the others
    child = os.fork()
    if child == 0:
        try:
            theirs = group(member(1, 2, protection=protection))
            theirs.connect(FileValues(tmp_path), SECONDS)
            theirs.send(torch.ones(64 * 2**20), 0, 7).wait()
        finally:
            signal.pause()
    try:
        mine = group(member(0, 2, protection=protection))
        mine.connect(FileValues(tmp_path), SECONDS)
        vector = torch.zeros(64 * 2**20)
        transfer = mine.receive(vector, 1, 7)
        ends: list[Any] = []
        waiting = threading.Thread(target=lambda: ends.extend(in_threads(transfer.wait)))
        waiting.start()
        until(lambda: vector[0] == 1)
        os.kill(child, signal.SIGSTOP)
        assert vector[-1] == 0, "it was over too soon to be half done"
        mine.abort()
        waiting.join(SECONDS)
        assert [str(end) for end in ends] == ["a transfer failed: the group is given up"]
        mine.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# Forming.


def test_ipv6() -> None:
    with formed(3, address="::1") as groups:
        groups[2].send(torch.ones(1), 0, 0).wait()
        got = torch.zeros(1)
        groups[0].receive(got, 2, 0).wait()
        assert float(got) == 1.0


def test_an_address_that_is_not_this_machine_s() -> None:
    mine = group(member(0, 2), "192.0.2.1")
    with pytest.raises(GroupError, match=r"cannot listen at 192\.0\.2\.1"):
        mine.connect(Values(), 1.0)
    mine.close()


def test_who_does_not_come_is_named() -> None:
    mine = group(member(1, 3))
    values = Values()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        told = f"127.0.0.1 {silent.getsockname()[1]}".encode()
        values._values[1, "address/0"] = told
        with pytest.raises(GroupError, match=r"within 1 s to rank 0, 2 \(rank 0: it does not"):
            mine.connect(values, 1.0)
    mine.close()


def test_forming_ends_at_once_when_it_is_given_up() -> None:
    mine = group(member(0, 2))
    threading.Timer(0.1, mine.abort).start()
    began = time.monotonic()
    with pytest.raises(GroupError, match="the group is given up"):
        mine.connect(Values(), SECONDS)
    assert time.monotonic() - began < SECONDS / 2
    mine.close()


@pytest.mark.parametrize("said", [b"", b"127.0.0.1", b"127.0.0.1 0", b"x 99999", b"\xff\xff 80"])
def test_an_address_that_is_none(said) -> None:
    values = Values()
    values._values[1, "address/0"] = said
    mine = group(member(1, 2))
    with pytest.raises(GroupError, match="no address"):
        mine.connect(values, 1.0)
    mine.close()


# Strangers.


class Crowd:
    """Strangers at the port of rank 0, of all kinds, for as long as it listens."""

    def __init__(self, values: Values, kinds: dict[str, Callable[[socket.socket], Any]]) -> None:
        self.values, self.kinds = values, kinds
        self.held: list[socket.socket] = []
        self.made = 0
        self.heard: dict[str, bytes] = {}
        """What somebody was told."""
        self.over = threading.Event()

    def run(self) -> None:
        port = int(self.values.wait_value(1, "address/0", SECONDS).split()[1])
        while not self.over.is_set():
            for name, say in self.kinds.items():
                try:
                    stranger = socket.create_connection(("127.0.0.1", port), timeout=1.0)
                    self.made += 1
                    self.held.append(stranger)
                    say(stranger)
                    stranger.settimeout(0)
                    data = stranger.recv(1000)
                    if data:
                        self.heard[name] = data
                except BlockingIOError:
                    continue
                except OSError:
                    continue  # cut off, or nobody listens any more
        for stranger in self.held:
            stranger.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def knock(secret: bytes = b"t" * 32, **changes: Any) -> bytes:
    me = member(1, 2, secret=secret, **changes)
    return Connector(me, 0, os.urandom(NONCE_BYTES)).knock


STRANGERS: dict[str, Callable[[socket.socket], Any]] = {
    "silent": lambda s: None,
    "gloo": lambda s: s.sendall((1).to_bytes(8, "little")),
    "garbage": lambda s: s.sendall(os.urandom(4096)),
    "slow": lambda s: s.sendall(knock()[:1]),
    "half a handshake": lambda s: s.sendall(knock()[:-1]),
    "another secret": lambda s: s.sendall(knock()),
    "another generation": lambda s: s.sendall(knock(b"s" * 32, generation=2)),
    "http": lambda s: s.sendall(b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n"),
    "gone": lambda s: s.close(),
}


def test_a_group_forms_in_a_crowd_of_strangers_and_tells_them_nothing() -> None:
    values = Values()
    crowd = Crowd(values, STRANGERS)
    crowding = threading.Thread(target=crowd.run, daemon=True)
    crowding.start()
    groups = [group(member(rank, 2)) for rank in range(2)]
    used: list[int] = []

    def late() -> None:
        until(lambda: crowd.made > 500)
        used.append(descriptors() - len(crowd.held))
        groups[1].connect(values, SECONDS)

    before = descriptors()
    ends = in_threads(lambda: groups[0].connect(values, SECONDS), late)
    crowd.over.set()
    crowding.join(SECONDS)
    assert ends == [None, None]
    assert crowd.heard == {}
    assert used[0] - before <= PENDING + 8, "strangers cost more than what is set aside"
    got = torch.zeros(1)
    groups[1].send(torch.ones(1), 0, 0).wait()
    groups[0].receive(got, 1, 0).wait()
    assert float(got) == 1.0
    for each in groups:
        each.close()


def test_nobody_listens_once_the_group_is_formed() -> None:
    values = Values()
    groups = [group(member(rank, 2)) for rank in range(2)]
    assert in_threads(*(lambda g=g: g.connect(values, SECONDS) for g in groups)) == [None, None]
    port = int(values.wait_value(1, "address/0", 0).split()[1])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5.0)
    for each in groups:
        each.close()


def test_a_replayed_knock_is_answered_but_goes_no_further() -> None:
    """Somebody who can listen on the wire repeats what a member has said."""
    values = Values()
    recorded = knock(b"s" * 32)
    answers: list[bytes] = []

    def replay() -> None:
        port = int(values.wait_value(1, "address/0", SECONDS).split()[1])
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as stranger:
            stranger.sendall(recorded)
            answers.append(stranger.recv(1000))
            stranger.sendall(answers[0][-32:])  # what it could try: the answer's own MAC
            answers.append(stranger.recv(1000))
        groups[1].connect(values, SECONDS)

    groups = [group(member(rank, 2)) for rank in range(2)]
    ends = in_threads(lambda: groups[0].connect(values, SECONDS), replay)
    assert ends == [None, None]
    assert len(answers[0]) == 64
    assert answers[1] == b"", "it was cut off"
    for each in groups:
        each.close()


def test_a_stranger_in_a_member_s_place_is_not_believed() -> None:
    """Who listens where a peer should be cannot answer, and is told nothing but the knock."""
    values, heard = Values(), []
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        told = f"127.0.0.1 {stranger.getsockname()[1]}".encode()
        values._values[1, "address/0"] = told

        def answer() -> None:
            connection, _ = stranger.accept()
            with connection:
                heard.append(connection.recv(1000))
                connection.sendall(os.urandom(64))
                heard.append(connection.recv(1000))

        mine = group(member(1, 2))
        ends = in_threads(lambda: mine.connect(values, 1.0), answer)
        assert "the answer is not of this generation" in str(ends[0])
        assert len(heard[0]) == len(knock())
        assert heard[1] == b""
        mine.close()


def test_strangers_take_no_descriptor_that_members_need(tmp_path) -> None:
    """More of them, silent, than this process has descriptors for."""
    mine = group(member(0, 2))
    child = os.fork()
    if child == 0:
        try:
            values = FileValues(tmp_path)
            port = int(values.wait_value(1, "address/0", SECONDS).split()[1])
            held = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
            theirs = group(member(1, 2))
            theirs.connect(values, SECONDS)
            theirs.send(torch.ones(len(held)), 0, 0).wait()
        finally:
            signal.pause()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, limits[1]))
        mine.connect(FileValues(tmp_path), SECONDS)
        got = torch.zeros(200)
        mine.receive(got, 1, 0).wait()
        assert bool((got == 1).all())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        mine.close()
