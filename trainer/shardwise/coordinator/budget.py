"""How much one worker, and all workers of one job, may say: messages and bytes.

What is over the budget is not lost but read later: its sender waits, nobody else does. Who goes on
like that is cut off, and its job ends with the reason. Pure: times are given, none is read.

A worker of ours says less than ten messages a second: answers to probes, of which there are at most
ten a second and which cost nothing, a report every other second, checkpoints, and a few for each
generation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

WORKER_MESSAGES = (100.0, 1000.0)
"""A second, and at once after a pause."""
WORKER_BYTES = (256 * 1024.0, 8.0 * (1 << 20))
JOB_MESSAGES = (250.0, 4000.0)
JOB_MESSAGES_EACH = (2.0, 20.0)
"""That many more for each of its workers."""
JOB_BYTES = (1024 * 1024.0, 32.0 * (1 << 20))
HELLO_MESSAGES = 20.0
"""What a new connection of a worker counts as: TLS, and a group that looks what it means."""
HELD_BYTES = 16 << 20
"""Of lines that have no end yet, for all workers of a job."""
ANSWERS = 32
CALM = 0.5
"""The part of the burst that is used by one that is not over its budget any more."""
FLOOD_SECONDS = 30.0
"""Over its budget all the time for so long: not a burst but a flood."""


@dataclass(slots=True)
class Meter:
    """A rate that may be exceeded by a burst, as the time from which on nothing is owed."""

    rate: float
    burst: float
    clear_at: float = float("-inf")

    def charge(self, amount: float, now: float) -> float:
        """Count an amount, or give one back; the seconds until it is within the rate."""
        self.clear_at = max(self.clear_at, now) + amount / self.rate
        return max(0.0, self.clear_at - now - self.burst / self.rate)

    def used(self, now: float) -> float:
        """The part of the burst that is used up; more than 1 where something is owed."""
        return max(0.0, (self.clear_at - now) * self.rate / self.burst)


@dataclass(slots=True)
class JobBudget:
    """What the workers of one job have in common, and each of theirs by name."""

    messages: Meter = field(default_factory=lambda: Meter(*JOB_MESSAGES))
    size: Meter = field(default_factory=lambda: Meter(*JOB_BYTES))
    held: int = 0
    """Bytes of unfinished lines."""
    workers: dict[str, Budget] = field(default_factory=dict)

    def of(self, worker: str) -> Budget:
        """A worker's budget, the same for all its connections."""
        if worker not in self.workers:
            self.workers[worker] = Budget(self)
        return self.workers[worker]

    def sized(self, workers: int) -> None:
        """The job is to have so many workers."""
        rate, burst = JOB_MESSAGES_EACH
        self.messages.rate = JOB_MESSAGES[0] + rate * workers
        self.messages.burst = JOB_MESSAGES[1] + burst * workers


@dataclass(slots=True)
class Budget:
    """What one worker may say."""

    job: JobBudget
    messages: Meter = field(default_factory=lambda: Meter(*WORKER_MESSAGES))
    size: Meter = field(default_factory=lambda: Meter(*WORKER_BYTES))
    asked: int = 0
    """Answers that are due and cost nothing."""
    said: int = 0
    """Messages since it has been over its budget."""
    over_since: float | None = None

    def charge(self, size: int, now: float, messages: float = 1.0) -> float:
        """Count a message; the seconds until the next one is to be read."""
        if self.asked and messages == 1.0:
            self.asked -= 1
            messages = 0.0
        wait = max(
            self.messages.charge(messages, now),
            self.size.charge(size, now),
            # A job's other workers may have spent it all; this one waits, but does not flood.
            0.0 if not messages else min(1.0, self.job.messages.charge(messages, now)),
            min(1.0, self.job.size.charge(size, now)),
        )
        used = max(self.messages.used(now), self.size.used(now))
        if used > 1 and self.over_since is None:
            self.over_since, self.said = now, 0
        elif used < CALM:  # Waiting what is owed, and no more, is not calm.
            self.over_since = None
        self.said += 1
        return wait

    def ask(self) -> None:
        """An answer is due, and costs nothing."""
        self.asked = min(self.asked + 1, ANSWERS)

    def told(self, now: float) -> str:
        """What is held against it, in words."""
        seconds = now - (self.over_since or now)
        return (
            f"the worker has sent more than {WORKER_MESSAGES[0]:g} messages or "
            f"{WORKER_BYTES[0] / 1024:g} KiB a second for {seconds:.0f} s ({self.said} messages "
            "that were read): use the images of one release, and leave the worker's connection to "
            "the coordinator alone"
        )

    def floods(self, now: float) -> bool:
        """Whether it has been over its budget for too long."""
        return self.over_since is not None and now - self.over_since > FLOOD_SECONDS
