"""The smallest view of a group of workers that the engine needs: who I am, send, receive.

gloo, NCCL or a test's threads stand behind it; the sums are the engine's own.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Work(Protocol):
    """A transfer under way."""

    def wait(self) -> None:
        """Return when the transfer is complete.

        Raises:
            GroupError: a peer is gone, or the transfer is overdue.
        """
        ...


class Group(Protocol):
    """The workers now on one task. Tensors that travel are contiguous."""

    rank: int
    size: int

    def send(self, tensor: Tensor, to: int, tag: int) -> Work: ...

    def receive(self, tensor: Tensor, source: int, tag: int) -> Work: ...


class GroupError(Exception):
    """The group is broken: a peer is gone or a transfer is overdue. The step has not happened."""


class Alone:
    """A group of one: nothing is ever sent."""

    rank = 0
    size = 1

    def send(self, tensor: Tensor, to: int, tag: int) -> Work:
        raise AssertionError("a worker that is alone has nobody to send to")

    def receive(self, tensor: Tensor, source: int, tag: int) -> Work:
        raise AssertionError("a worker that is alone has nobody to receive from")
