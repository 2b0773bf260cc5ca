"""The smallest view of a group of workers that the engine needs: who I am, send, receive.

The worker's own connections, a process group of torch.distributed or a test's threads stand behind
it; the sums are the engine's own.
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
    """The workers now on one task. Tensors that travel are contiguous.

    One that is broken touches no tensor any more by the time that the next one is joined.
    """

    rank: int
    size: int

    def send(self, tensor: Tensor, to: int, tag: int) -> Work: ...

    def receive(self, tensor: Tensor, source: int, tag: int) -> Work: ...


class GroupError(Exception):
    """The group is broken: a peer is gone or a transfer is overdue. The step has not happened.

    Attributes:
        peer: the rank that could not be reached or cut this worker off, where that is known.
    """

    def __init__(self, message: str, peer: int | None = None) -> None:
        super().__init__(message)
        self.peer = peer


class Interrupted(GroupError):  # noqa: N818 - an event, raised by `beat`
    """The group is given up before its sockets say so: a newer generation has been announced."""


class StateLost(Exception):  # noqa: N818 - an event
    """A part of the optimizer's state is held by no member: go back to a checkpoint.

    Every member of the group is told so by the same `join`.
    """


class Alone:
    """A group of one: nothing is ever sent."""

    rank = 0
    size = 1

    def send(self, tensor: Tensor, to: int, tag: int) -> Work:
        raise AssertionError("a worker that is alone has nobody to send to")

    def receive(self, tensor: Tensor, source: int, tag: int) -> Work:
        raise AssertionError("a worker that is alone has nobody to receive from")
