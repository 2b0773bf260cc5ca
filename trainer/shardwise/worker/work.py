"""What the workers of a job do, in order: train the model, then compress it where the job says so.

One position counts through both, so that members of a group can tell who is furthest: the steps
of the training, then what the compression has done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from shardwise.engine.activity import Beat
from shardwise.engine.group import Group
from shardwise.engine.plan import Plan
from shardwise.engine.task import Task
from shardwise.engine.training import Training

if TYPE_CHECKING:
    from shardwise.compression.pipeline import Pipeline
    from shardwise.compression.sharing import Shared

LoadEntrypoint = Callable[[str, Mapping[str, int | str], int], Task]


class Work:
    """One job's training and compression.

    Args:
        trainer: spec.trainer in its JSON form.
        compression: spec.compression likewise, or None.
        load: makes a task of an entrypoint, its parameters and a seed.
        beat: called between shards and around exchanges.
        until: where to pause, in epochs or steps as the trainer has its length; None: nowhere.
        shared: where the compression's statistics are kept for other tasks; None: nowhere.

    Raises:
        UserCodeError: the task cannot be had, or its compression cannot be done.
    """

    def __init__(
        self,
        trainer: Mapping[str, Any],
        compression: Mapping[str, Any] | None,
        load: LoadEntrypoint,
        beat: Beat,
        until: int | None = None,
        shared: Shared | None = None,
    ) -> None:
        self._shared = shared
        self._trainer, self._compression, self._load, self._beat = trainer, compression, load, beat
        plan = Plan.from_spec(trainer)
        task = load(trainer["entrypoint"], trainer.get("parameters") or {}, plan.seed)
        self.training = Training(task, plan)
        self.training.beat = beat
        if until is not None:
            unit = 1 if plan.epochs is None else self.training.order.steps_per_epoch
            self.training.pause_at = min(until * unit, self.training.total_steps)
        self.pipeline: Pipeline | None = None
        if compression is not None:
            # On loading as well: what cannot be done shows before the training, not after it.
            self._begin().check()
            if self.trains:
                self.pipeline = None

    @property
    def trains(self) -> bool:
        """Whether the job trains its model; otherwise it only compresses one that there is."""
        return not (self._compression or {}).get("source")

    @property
    def trained(self) -> bool:
        return not self.trains or self.training.done

    @property
    def paused(self) -> bool:
        """Whether it has come to where it is to pause."""
        pause_at = self.training.pause_at
        return pause_at is not None and self.training.steps_done >= pause_at

    @property
    def done(self) -> bool:
        compressed = self._compression is None or (self.pipeline is not None and self.pipeline.done)
        return self.trained and compressed

    @property
    def position(self) -> int:
        """Grows with everything that the group commits."""
        if self.pipeline is None:
            return self.training.steps_done
        return self.training.total_steps + 1 + self.pipeline.position

    @property
    def kept(self) -> tuple[str, ...]:
        """The models that a failure from now on leaves behind, oldest first."""
        if self.pipeline is None or self.pipeline.done:
            return ()
        return ("trained" if self.trains else "source", *self.pipeline.finished)

    @property
    def stage(self) -> str:
        """What is under way besides training, for people; empty while it trains."""
        if self._compression is None or not self.trained:
            return ""
        from shardwise.compression.pipeline import BASELINE

        if self.pipeline is None:
            return f"compression: {BASELINE}"
        return f"compression: {'export' if self.pipeline.done else self.pipeline.step_name}"

    def join(self, group: Group, furthest: int) -> None:
        """Take part in a group whose furthest member is at that position.

        Raises:
            GroupError: the group broke; join the next one.
            StateLost: a part of the optimizer's state is held by no member.
        """
        self.training.join(group)
        if furthest > self.training.total_steps:
            if self.pipeline is None:
                self._beat("loading")
                self._begin()
            assert self.pipeline is not None
            self.pipeline.join(group)

    def compress(self) -> None:
        """Do the next bit of the compression with the group.

        Raises:
            GroupError: a peer is gone; join the next group and go on.
            UserCodeError: it cannot be done, or costs more accuracy than the guard allows.
        """
        if self.pipeline is None:
            self._beat("loading")
            self._begin()
            assert self.pipeline is not None
            self.pipeline.join(self.training.group)
        else:
            self.pipeline.advance()

    def digest(self) -> str:
        """A hash of the state; members of a group at the same position have the same."""
        if self.pipeline is None:
            return self.training.digest()
        return f"{self.training.digest()}/{self.pipeline.step_name}"

    def _begin(self) -> Pipeline:
        # Loaded here: most jobs compress nothing, and its libraries take a second.
        from shardwise.compression import job

        assert self._compression is not None
        self.pipeline = job.begin(
            self.training.task,
            self._compression,
            self._trainer,
            load=self._load,
            beat=self._beat,
            shared=self._shared,
        )
        return self.pipeline
