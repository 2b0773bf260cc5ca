"""Who of a group does not answer, who stands still, and whether its exchange is dead.

Nothing is sent while nothing is suspected: a watch begins with a worker that waits for too long in
an exchange, or with an ack that is overdue. Rounds of probes then go out until it is known what is
wrong, or that nothing is. Pure: times are given, none is read.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from shardwise.coordinator.protocol import Pulse

STUCK_SECONDS = 1.0
STUCK_FACTOR = 10.0
STUCK_UNKNOWN_SECONDS = 60.0
"""For a main thread of which no usual time is known: in its first step, and while it loads. Not in
a transfer whose group was broken off: that ends at once."""
WEDGED_ROUNDS = 2
WEDGED_LIMIT_SECONDS = 60.0
SOONEST_SECONDS = 0.1
LATEST_SECONDS = 1.0
"""Between two rounds: the first ones follow each other closely, as whoever answered one may be cut
off a moment later. Workers take a coordinator that is silent for 2 s after a suspicion for dead,
and connect anew."""
STARVED_PART = 0.25
"""Where even those that live take this part of the limit to answer, the machines are overloaded:
the silent ones get more time, EXTENSIONS times the limit."""
EXTENSIONS = 4
LATE_SECONDS = 0.1
"""A round that is judged later than this after its end shows that this process was held up: the
answers may lie unread, so nobody is out on its account."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a round of probes has shown."""

    silent: tuple[str, ...] = ()
    """They did not answer in time."""
    stuck: tuple[str, ...] = ()
    """Their main thread stands still."""
    broken: bool = False
    """All live, but nothing arrives any more, or somebody is not in the group it ought to be in."""


@dataclass(slots=True)
class _Probes:
    nonce: int
    asked: frozenset[str]
    began: float
    until: float
    answers: dict[str, Pulse] = field(default_factory=dict)
    slowest: float = 0.0
    """Seconds that the slowest answer so far has taken."""
    extensions: int = 0


class Watch:
    """The suspicions against the members of one group.

    Args:
        detection_seconds: how long a probe's answer may take.
    """

    def __init__(self, detection_seconds: float) -> None:
        self._detection = detection_seconds
        self._nonce = 0
        self._probes: _Probes | None = None
        self._next_at = 0.0
        self._suspects: dict[str, int] = {}
        self._rounds = 0
        self._wedged = 0
        self._astray = 0
        self._counted_at = -math.inf
        """When the last round ended that counts for the two: rounds in quick succession do not."""

    @property
    def suspicious(self) -> bool:
        """Some member waits in an exchange for too long, as far as is known."""
        return bool(self._suspects)

    @property
    def asking(self) -> bool:
        return self._probes is not None

    def drop(self) -> None:
        """End the round under way without a verdict."""
        self._probes = None

    def reset(self) -> None:
        """Another generation: what was suspected of the last one means nothing any more."""
        self._probes = None
        self._next_at = 0.0
        self._suspects.clear()
        self._rounds = self._wedged = self._astray = 0
        self._counted_at = -math.inf

    def suspect(self, worker: str, step: int, now: float) -> None:
        """A worker waits in the exchange of this step for longer than usual."""
        if self._suspects.get(worker) != step:
            self._next_at = min(self._next_at, now)
        self._suspects[worker] = step

    def forget(self, worker: str) -> None:
        """A worker is gone: nothing is to be found out about it."""
        self._suspects.pop(worker, None)
        if self._probes is not None:
            self._probes.asked -= {worker}

    def due(self, now: float) -> bool:
        """Whether a round may begin."""
        return self._probes is None and now >= self._next_at

    def deadline(self, since: float | None) -> float | None:
        """When something is to be done.

        Args:
            since: from when on members are in doubt; None if none are.
        """
        if self._probes is not None:
            return self._probes.until
        return None if since is None else max(since, self._next_at)

    def ask(self, workers: Collection[str], now: float) -> int:
        """Begin a round; its nonce, to send to these workers."""
        self._nonce += 1
        self._rounds += 1
        self._probes = _Probes(self._nonce, frozenset(workers), now, now + self._detection)
        return self._nonce

    def answer(self, worker: str, pulse: Pulse, now: float) -> None:
        probes = self._probes
        if probes is not None and pulse.nonce == probes.nonce and worker in probes.asked:
            probes.answers[worker] = pulse
            probes.slowest = max(probes.slowest, now - probes.began)

    def judge(self, generation: int, forming: bool, attempts: int, now: float) -> Verdict | None:
        """What the round under way has shown; None while it goes on, or if there is none.

        Args:
            generation: the one that the members are, or ought to be, in.
            forming: whether their acks of it are awaited, not an exchange's end.
            attempts: generations that broke in a row: an exchange may take the longer for each,
                so that one that is slow from the start passes in the end.
        """
        probes = self._probes
        if probes is None:
            return None
        open_ = probes.asked - probes.answers.keys()
        starved = probes.slowest > STARVED_PART * self._detection
        if open_ and now >= probes.until and starved and probes.extensions < EXTENSIONS:
            probes.extensions += 1
            probes.until = now + self._detection
        if open_ and now < probes.until:
            return None
        self._probes = None
        if open_ and now > probes.until + LATE_SECONDS:
            self._next_at = now
            return Verdict()
        if not forming:
            self._clear_up(probes.answers, generation)
            if not self._suspects:
                self._rounds = 0
        self._next_at = now + self._pause(probes.answers)
        astray = any(pulse.generation < generation for pulse in probes.answers.values())
        spaced = now - self._counted_at >= self._detection / 2
        patience = min(self._detection * 2.0 ** min(attempts, 30), WEDGED_LIMIT_SECONDS)
        wedged = not open_ and not forming and _all_wait(probes.answers, patience)
        self._astray = self._astray + spaced if astray and not forming else 0
        self._wedged = self._wedged + spaced if wedged else 0
        self._counted_at = now if spaced else self._counted_at
        return Verdict(
            silent=tuple(sorted(open_)),
            stuck=tuple(sorted(n for n, pulse in probes.answers.items() if _stuck(pulse, forming))),
            broken=max(self._wedged, self._astray) >= WEDGED_ROUNDS,
        )

    def _clear_up(self, answers: Mapping[str, Pulse], generation: int) -> None:
        """Drop the suspicions of those that have gone on."""
        steps = [pulse.step for pulse in answers.values() if pulse.generation == generation]
        for worker, step in list(self._suspects.items()):
            pulse = answers.get(worker)
            waits = pulse is None or pulse.activity == "exchanging"
            if not waits or max(steps, default=0) > step:
                del self._suspects[worker]

    def _pause(self, answers: Mapping[str, Pulse]) -> float:
        """Seconds to the next round: until one more could be known to be stuck; less at first."""
        left = [
            _limit(pulse) - pulse.age_seconds
            for pulse in answers.values()
            if pulse.activity in ("loading", "computing")
        ]
        soonest = min(left, default=self._detection / 2) + 0.02
        soonest = min(soonest, SOONEST_SECONDS * 2.0 ** max(0, min(self._rounds, 30) - 1))
        return max(SOONEST_SECONDS, min(soonest, LATEST_SECONDS))


def _limit(pulse: Pulse) -> float:
    """How long a main thread may be at one thing."""
    unknown = pulse.usual_seconds <= 0 and pulse.activity != "exchanging"
    if unknown or pulse.activity == "loading":
        return STUCK_UNKNOWN_SECONDS
    return max(STUCK_SECONDS, STUCK_FACTOR * pulse.usual_seconds)


def _stuck(pulse: Pulse, forming: bool) -> bool:
    """Whether a main thread stands still; one that waits for others does not.

    While its ack is awaited nothing is left to wait for: its old group has been broken off. The
    writing of the result takes as long as it takes.
    """
    alone = forming and pulse.activity != "finishing"
    return (alone or pulse.activity in ("loading", "computing")) and pulse.age_seconds > _limit(
        pulse
    )


def _all_wait(answers: Mapping[str, Pulse], patience: float) -> bool:
    """Whether all wait for each other: nothing arrives any more."""
    return bool(answers) and all(
        pulse.activity == "exchanging" and pulse.age_seconds > patience
        for pulse in answers.values()
    )
