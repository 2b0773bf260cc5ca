"""The training loop's body: one step, one evaluation, on whatever group there is.

A step: for each shard of the own share, seed, forward, gradient, push into the tree; finish the
sum; clip; update; gather. Nothing of the state changes before the step's last exchange is
complete, so a step that a lost peer interrupts is done again by the next group, which keeps what
its members had summed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from shardwise.engine import layout
from shardwise.engine.activity import Activity, Beat, silent
from shardwise.engine.deal import Share, deal, fresh
from shardwise.engine.digest import digest
from shardwise.engine.evaluation import Evaluation
from shardwise.engine.exchange import TreeSum
from shardwise.engine.finite import check
from shardwise.engine.flat import FlatModel
from shardwise.engine.group import Alone, Group
from shardwise.engine.healing import Range
from shardwise.engine.history import History
from shardwise.engine.parts import Part, Parts
from shardwise.engine.plan import Plan
from shardwise.engine.shards import Shards
from shardwise.engine.snapshot import Snapshot
from shardwise.engine.state import State, heal
from shardwise.engine.task import Task
from shardwise.engine.traffic import Traffic
from shardwise.engine.tree import Node
from shardwise.engine.update import Update
from shardwise.engine.usercode import user_code

_STEP, _EVALUATION = "step ", "evaluation "
_ASKED = 4096.0
"""What `ask` adds to the sum of the flags: more than all members' flags, and exact in float32."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step tells: the mean loss of its batch, its samples, the rate it used."""

    loss: float
    samples: int
    learning_rate: float
    flag: bool
    """Whether some member of the group called `step(flag=True)`; all members agree."""
    asked: bool
    """Likewise for `step(ask=True)`."""
    computed_shards: int
    """The shards that this worker computed in this call; the others were kept from before."""


@dataclass(frozen=True)
class _Round:
    """A sum under way."""

    name: str
    exchange: TreeSum
    shares: tuple[Share, ...] | None
    """Who computes what, where that is not the group's usual deal."""


class Training:
    """One task under optimization, and its state: step, parameters, buffers, optimizer state.

    Call `join` with a group, then `step` until `done`, and `evaluate` whenever that is due. All
    workers of a group make the same calls. After a GroupError out of any of them, `join` the next
    group and go on: with the same call, or with whatever is due where that group stands.

    Attributes:
        beat: called between shards and around exchanges; it may raise Interrupted.
    """

    def __init__(self, task: Task, plan: Plan) -> None:
        self.task, self.plan = task, plan
        with user_code("the model"):
            self.model = FlatModel(task.model)
        with user_code("len(train)"):
            self.order = plan.order(len(task.train))
        self.total_steps = plan.total_steps(self.order)
        self.beat: Beat = silent
        self._shards = Shards(task, plan, self.model)
        self._evaluation = None if task.evaluation is None else Evaluation(task, plan)
        self._state = State(
            self.model,
            Parts(task.optimizer.slots, self.model.dtype),
            History(self.order.steps_per_epoch),
        )
        self._round: _Round | None = None
        self.pause_at: int | None = None
        """A step after which there is an evaluation, whatever the plan says of it."""
        self.join(Alone())

    @property
    def steps_done(self) -> int:
        return self._state.step

    @property
    def evaluated(self) -> int:
        """The step of the last evaluation; 0 before the first."""
        return self._state.evaluated

    @property
    def history(self) -> History:
        """The losses and metrics up to this step; every member has them."""
        return self._state.history

    @property
    def done(self) -> bool:
        return self.steps_done >= self.total_steps

    @property
    def evaluation_due(self) -> bool:
        """Whether an evaluation follows the step that was just done, and has not been made."""
        return (
            self.task.evaluation is not None
            and self.evaluated < self.steps_done
            and (
                self.steps_done == self.pause_at
                or self.plan.evaluates_after(self.steps_done, self.order, self.total_steps)
            )
        )

    def join(self, group: Group) -> None:
        """Take part in a group, and come to the step at which it goes on.

        Members that are behind copy the state from one that is not; what the members had summed of
        the step under way is kept, and only the rest is dealt among them.

        Raises:
            ValueError: the group has more members than the plan has shards.
            GroupError: the group broke; join the next one. What this member held it holds still.
            StateLost: a part of the optimizer's state is held by no member. All members are told.
        """
        shards, length, width = self.plan.shards, self._shards.length, self.model.parameter_length
        usual = fresh(shards, group.size)
        traffic = Traffic(group, self._beat)
        self._traffic = traffic
        exchange = TreeSum(traffic, shards, length, self.model.dtype, shares=usual)
        stateful = bool(self.task.optimizer.slots)
        partitioned = self.plan.partition == "parameters"
        if partitioned:
            cut = layout.partitioned(width, exchange.parts, stateful=stateful)
        else:
            cut = layout.whole(width, group.size, stateful=stateful)
        name, nodes = self._kept()
        holdings = heal(traffic, self._state, cut.needs, name, nodes)

        state = self._state
        self.group, self.exchange = group, exchange
        self._total = torch.zeros(length, dtype=self.model.dtype)
        self._update = Update(self.task, state, traffic, cut, partitioned=partitioned)
        self._round = None
        under_way = max((h.round for h in holdings if h.position == state.position), default="")
        shares = deal(shards, [h.nodes if h.round == under_way else () for h in holdings])
        if shares != usual:
            mine = {node: nodes[node].clone() for node in shares[group.rank].kept}
            self._round = _Round(under_way, self._sum(under_way, shares, mine), shares)

    @property
    def data_seconds(self) -> float:
        """How long the training data were waited for, so far."""
        return self._shards.data_seconds

    def _beat(self, activity: Activity) -> None:
        self.beat(activity)

    def _kept(self) -> tuple[str, Mapping[Node, Tensor]]:
        if self._round is None:
            return "", {}
        return self._round.name, self._round.exchange.nodes

    def _sum(
        self,
        name: str,
        shares: tuple[Share, ...] | None = None,
        kept: Mapping[Node, Tensor] | None = None,
    ) -> TreeSum:
        """A sum for one kind of round."""
        traffic, shards = self._traffic, self.plan.shards
        if name.startswith(_EVALUATION):
            length, dtype = Evaluation.LENGTH, torch.float64
        elif shares is None:
            return self.exchange
        else:
            length, dtype = self._shards.length, self.model.dtype
        return TreeSum(traffic, shards, length, dtype, shares=shares, kept=kept)

    def _begin(self, kind: str) -> TreeSum:
        """The sum of a round at this step: the one that was begun, or a new one."""
        name = f"{kind}{self.steps_done}"
        if self._round is None or self._round.name != name:
            if self._round is not None:
                self._round.exchange.reset()
            self._round = _Round(name, self._sum(name), None)
        return self._round.exchange

    def _end(self) -> None:
        assert self._round is not None
        self._round.exchange.reset()
        self._round = None

    def step(self, *, flag: bool = False, ask: bool = False) -> StepResult:
        """Do one step with the group.

        Args:
            flag: a sign to all members, which see it in the result of this very step. A member
                that has nothing to contribute to the step, because others kept all of it, cannot
                give it: raise it again at the next one.
            ask: a second sign of the same kind.

        Raises:
            UserCodeError: the user's code raised.
            NotFiniteError: the loss, or a parameter after the step, is NaN or infinite. The step
                has not happened, on any member.
            GroupError: a peer is gone, or the beat said so; the step has not happened.
        """
        state, model, shards, total = self._state, self.model, self._shards, self._total
        step, width = state.step, model.parameter_length
        exchange = self._begin(_STEP)
        todo = exchange.todo
        saved = model.saved_buffers()
        model.model.train()
        try:
            for shard in todo:
                self.beat("computing")
                vector = exchange.leaf()
                shards.compute(step, shard, saved, vector)
                exchange.push(vector)
        finally:
            model.restore_buffers(saved)
        exchange.mark(shards.flag, float(flag) + _ASKED * ask)
        exchange.reduce(total)
        self.beat("computing")
        rate = self.task.optimizer.learning_rate * self.task.schedule.factor(step, self.total_steps)
        updated = self._update.run(exchange, total, rate)

        loss, samples = float(total[shards.sums]), len(shards.indices(step))
        check(step + 1, loss, updated.parameters, model.entries)

        # No exchange is left that could fail: now the step happens.
        signs = float(total[shards.flag])
        model.parameters.copy_(updated.parameters)
        model.apply_buffer_changes(saved, total[width : shards.sums])
        state.step += 1
        state.history.add_step(loss, rate)
        self._update.commit(updated)
        self._end()
        return StepResult(
            loss=loss,
            samples=samples,
            learning_rate=rate,
            flag=signs % _ASKED > 0,
            asked=signs >= _ASKED,
            computed_shards=len(todo),
        )

    def evaluate(self) -> dict[str, float]:
        """The mean loss and metrics over the evaluation samples, and a line in the history.

        Raises:
            UserCodeError: the user's code raised, or a metric has the wrong shape.
            GroupError: a peer is gone, or the beat said so; the evaluation has not happened.
        """
        assert self._evaluation is not None, "the task has no evaluation samples"
        metrics = self._evaluation.run(self._begin(_EVALUATION), self.steps_done, self.beat)
        self._state.evaluated = self.steps_done
        self._state.history.add_evaluation(self.steps_done, metrics)
        self._end()
        return metrics

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimizer's state vectors, whole, gathered from the parts where there are any.

        Raises:
            GroupError: a peer is gone; join the next group and ask again.
        """
        return self._update.gathered(self.exchange)

    def snapshot(self) -> Snapshot:
        """A copy of this member's part of the state; those of all members make up the whole."""
        state, width = self._state, self.model.parameter_length
        part = self.exchange.own
        start, stop = min(part.start, width), min(part.stop, width)
        vectors = {"parameters": self.model.parameters[start:stop].clone()}
        for slot, tensor in self._update.own.cut(start, stop).items():
            vectors[f"optimizer/{slot}"] = tensor.clone()
        return Snapshot(
            step=state.step,
            evaluated=state.evaluated,
            length=width,
            part=slice(start, stop),
            vectors=vectors,
            tensors=self.model.saved_buffers(),
            history=state.history.to_bytes(),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a whole snapshot. Join a group afterwards; until then this worker is alone.

        Raises:
            ValueError: the snapshot is a part only, or of another model or optimizer.
        """
        width, slots = self.model.parameter_length, self.task.optimizer.slots
        names = {"parameters", *(f"optimizer/{slot}" for slot in slots)}
        if not snapshot.whole or snapshot.length != width:
            raise ValueError(
                f"the snapshot holds elements {snapshot.part.start} to {snapshot.part.stop} of "
                f"{snapshot.length}; this model has {width}: give a whole snapshot of this task"
            )
        for what, theirs, ours in (
            ("vectors", snapshot.vectors.keys(), names),
            ("buffers", snapshot.tensors.keys(), self.model.buffers.keys()),
        ):
            if theirs != ours:
                raise ValueError(
                    f"the snapshot has the {what} {sorted(theirs)}, this task {sorted(ours)}: "
                    "give a snapshot of this task"
                )
        history = History(self.order.steps_per_epoch)
        history.extend(snapshot.history)
        if len(history) != snapshot.step:
            raise ValueError(
                f"the snapshot of step {snapshot.step} has a history of {len(history)} steps"
            )
        self.model.parameters.copy_(snapshot.vectors["parameters"])
        self.model.restore_buffers(snapshot.tensors)
        parts = Parts(slots, self.model.dtype)
        optimizer = {slot: snapshot.vectors[f"optimizer/{slot}"].clone() for slot in slots}
        parts.add(Part(snapshot.step, Range(0, width), optimizer))
        self._state = State(self.model, parts, history, snapshot.step, snapshot.evaluated)
        self._round = None
        self.join(Alone())

    def figures(self) -> tuple[str, ...]:
        """The names of what an evaluation gives; none where the task has no evaluation.

        Ask before the first step: it tries one sample.

        Raises:
            UserCodeError: the user's code raised.
        """
        return () if self._evaluation is None else self._evaluation.names()

    def gradient_fingerprint(self) -> str:
        """A hash of shard 0's vector at the first step: equal on workers that compute alike.

        Ask before the first step; the state stays as it is.

        Raises:
            UserCodeError: the user's code raised.
        """
        assert self.steps_done == 0, "the fingerprint is taken at the initial parameters"
        saved = self.model.saved_buffers()
        self.model.model.train()
        vector = torch.empty(self._shards.length, dtype=self.model.dtype)
        try:
            self._shards.compute(0, 0, saved, vector)
        finally:
            self.model.restore_buffers(saved)
        return digest("gradient", [("shard 0", vector)])

    def digest(self) -> str:
        """A hash of the state at this step; members of a group at the same step have the same."""
        title = f"{self.steps_done}/{self.total_steps}/{self.order.samples}"
        trained = {entry.name for entry in self.model.entries}
        rest = (
            (name, tensor)
            for name, tensor in self.model.model.state_dict().items()
            if name not in trained
        )
        return digest(title, [("parameters", self.model.parameters), *rest])
