"""Shutting a group's sockets down: what is blocked returns, and a listener is left alone."""

from __future__ import annotations

import socket
import threading

from shardwise.worker.sockets import open_sockets, shut_down


def test_a_blocked_receiver_returns_and_the_listener_lives_on() -> None:
    before = open_sockets()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address) as mine, server.accept()[0] as peer:
            received: list[bytes] = []
            reader = threading.Thread(target=lambda: received.append(mine.recv(1)))
            reader.start()
            assert shut_down(open_sockets() - before) == 2, "the two ends, not the listener"
            reader.join(timeout=30)
            assert received == [b""]
            assert peer.recv(1) == b""
        with socket.create_connection(address), server.accept()[0]:
            pass


def test_a_descriptor_that_was_used_again_is_not_touched() -> None:
    before = open_sockets()
    left, right = socket.socketpair()
    old = open_sockets() - before
    numbers = {left.fileno(), right.fileno()}
    left.close()
    right.close()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address) as mine, server.accept()[0] as peer:
            assert {server.fileno(), mine.fileno(), peer.fileno()} & numbers
            assert shut_down(old) == 0
            peer.sendall(b"x")
            assert mine.recv(1) == b"x"
