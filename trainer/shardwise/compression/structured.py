"""Taking whole channels and neurons away: a smaller dense model, through torch-pruning.

Its dependency graph finds which rows and columns of which layers go together. Importances are the
2-norms of the weights, so nothing is summed over shards; the fine-tuning that follows is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shardwise.compression.errors import CompressionError
from shardwise.compression.examples import example_inputs
from shardwise.compression.layers import choose_weights
from shardwise.compression.settings import Prune
from shardwise.compression.stages import Rounds, Surroundings
from shardwise.compression.subject import Subject
from shardwise.engine.group import Group

EDIT = "channels"


def prune_channels(subject: Subject, settings: Prune, around: Surroundings) -> Rounds:
    """The stage that removes the part `settings.sparsity` of each layer's outputs.

    Advancing it raises CompressionError where nothing can be removed, or the rest does not run.
    """

    def cut(group: Group, number: int) -> None:
        del group, number
        around.beat("loading")
        before = sum(p.numel() for p in subject.model.parameters())
        trial = subject.copy()
        history = _cut(trial, settings)
        after = sum(p.numel() for p in trial.model.parameters())
        if after == before:
            raise CompressionError(
                "prune.pattern: Channels: nothing could be removed: every layer is ignored, is the "
                "last one, or is tied to a shape that must stay"
            )
        _check_runs(trial)
        replay(subject, history)
        subject.edits.append(history)

    return Rounds(1, cut)


def replay(subject: Subject, edit: str) -> None:
    """Cut the model as `edit` tells; its weights are a part of the ones before."""
    graph = _graph(subject.model, example_inputs(subject.task))
    history = json.loads(edit.removeprefix(f"{EDIT} "))
    graph.load_pruning_history([(name, bool(out), list(places)) for name, out, places in history])
    subject.masks.clear()  # their shapes are gone, and a channel's norm ignored them already


def _library() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise CompressionError(
            "prune.pattern: Channels needs the package torch-pruning; install "
            "shardwise[compression]"
        ) from error
    return torch_pruning


def _graph(model: nn.Module, inputs: Sequence[Tensor]) -> Any:
    model.eval()
    return _library().DependencyGraph().build_dependency(model, example_inputs=tuple(inputs))


def _cut(subject: Subject, settings: Prune) -> str:
    library, model = _library(), subject.model
    inputs = example_inputs(subject.task)
    weights = choose_weights(model, (), "prune")
    ignored = _kept_whole(model, settings, list(weights))
    pruner = library.pruner.BasePruner(
        model.eval(),
        tuple(inputs),
        importance=library.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=settings.sparsity,
        ignored_layers=ignored,
        global_pruning=False,
    )
    pruner.step()
    return f"{EDIT} {json.dumps(pruner.pruning_history())}"


def _kept_whole(model: nn.Module, settings: Prune, names: list[str]) -> list[nn.Module]:
    """Layers that keep their outputs: the last one, what `ignore` names, and attention's.

    The heads of an attention share its width with everything beside it; torch-pruning breaks it or
    silently prunes nothing, so only the widths of a transformer's feed-forward parts are cut.
    """
    kept: list[nn.Module] = []
    modules = dict(model.named_modules())
    for name in settings.ignore:
        if name not in modules:
            raise CompressionError(
                f"prune.ignore: the model has no layer {name!r}; it has "
                f"{', '.join(found.rpartition('.')[0] for found in names)}"
            )
        kept.append(modules[name])
    last = names[-1].rpartition(".")[0]
    kept.append(modules.get(last, model))
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention | nn.Embedding | nn.LayerNorm):
            kept.append(module)
        if isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
            kept.append(module.linear2)
    return kept


def _check_runs(subject: Subject) -> None:
    inputs = example_inputs(subject.task)
    try:
        with torch.no_grad():
            subject.model.eval()(*inputs)
    except RuntimeError as error:
        raise CompressionError(
            "prune.pattern: Channels: the model does not run without the channels "
            f"({error}); name the layers that must keep their width in prune.ignore"
        ) from error
