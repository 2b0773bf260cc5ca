"""Which sockets a process has."""

from __future__ import annotations

import socket

from shardwise.worker.sockets import open_sockets


def test_a_descriptor_that_was_used_again_is_another_socket() -> None:
    before = open_sockets()
    left, right = socket.socketpair()
    old = open_sockets() - before
    assert {key[0] for key in old} == {left.fileno(), right.fileno()}
    left.close()
    right.close()
    with socket.create_server(("127.0.0.1", 0)) as server:
        new = open_sockets() - before
        assert {key[0] for key in new} == {server.fileno()}
        assert not new & old
