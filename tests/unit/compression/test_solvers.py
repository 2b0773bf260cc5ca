"""The statistics and the solvers against their definitions and against torch."""

from __future__ import annotations

import pytest
import torch
from small import copied, finished, make_task, pipeline, trained
from threads import together
from torch import nn

from shardwise.compression.grid import fit_grid
from shardwise.compression.hessians import gather_hessians
from shardwise.compression.layers import caught_inputs, find_weights
from shardwise.compression.reduction import Samples, extremes, gather_rows, reduce_shards
from shardwise.compression.scores import gradient_scores
from shardwise.compression.select import cubic, masks_of
from shardwise.compression.solve import (
    lowest,
    prune_with_hessian,
    quantize_with_hessian,
    two_of_four,
)
from shardwise.compression.structured import EDIT
from shardwise.engine.group import Alone


def samples(task, count=50, batch_size=8):
    return Samples.drawn(task.train, count, batch_size=batch_size, shards=4, seed=1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_sample_is_dealt_once():
    for count, size in ((50, 8), (3, 8), (300, 1)):
        dealt = samples(make_task(), count, size)
        rows = [row for shard in range(4) for row in range(count)[dealt.rows(shard)]]
        assert rows == list(range(count))
        places = [place for shard in range(4) for place, _ in dealt.batches(shard)]
        assert all(place.start % size == 0 for place in places)


def test_reductions_over_threads():
    def work(group):
        total = reduce_shards(group, 5, 3, torch.int64, lambda shard: torch.full((3,), shard))
        least, most = extremes(
            group, 5, 2, lambda s: (torch.tensor([-1.0 * s, 0.0]), torch.tensor([0.0, 7.0 * s]))
        )
        rows = gather_rows(group, samples(make_task(), 50), lambda batch: batch[0])
        return total.tolist(), least.tolist(), most.tolist(), rows

    dealt = samples(make_task(), 50)
    expected = dealt.dataset.batch(dealt.indices)[0]
    for workers in (1, 2, 4):
        for total, least, most, rows in together(workers, work):
            assert (total, least, most) == ([10, 10, 10], [-4.0, 0.0], [0.0, 28.0])
            assert torch.equal(rows, expected)


def test_hessians_are_the_inputs_products():
    task = make_task()
    dealt = samples(task)
    weights = find_weights(task.model)
    found = gather_hessians(Alone(), task, dealt, weights, ["0.weight", "2.weight"])
    x = dealt.dataset.batch(dealt.indices)[0].double()
    torch.testing.assert_close(found["0.weight"], x.T @ x / 50)
    hidden = task.model[:2](x.float()).double()
    torch.testing.assert_close(found["2.weight"], hidden.T @ hidden / 50, rtol=1e-6, atol=1e-9)


def test_a_convolutions_inputs_are_its_patches():
    model = nn.Conv2d(3, 5, 3, padding=1, stride=2)
    x = torch.randn(2, 3, 8, 8, generator=generator())
    rows = []
    with caught_inputs(find_weights(model), lambda name, found: rows.append(found)):
        out = model(x)
    weight = model.weight.detach().view(5, -1)
    products = (rows[0] @ weight.T + model.bias.detach()).view(2, 4, 4, 5).permute(0, 3, 1, 2)
    torch.testing.assert_close(products, out)


def test_attentions_weights_are_found_and_see_their_inputs():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0).eval()
    weights = find_weights(layer)
    assert list(weights) == [
        "self_attn.in_proj_weight",
        "self_attn.out_proj.weight",
        "linear1.weight",
        "linear2.weight",
    ]
    seen = {}
    x = torch.randn(3, 5, 8, generator=generator())
    with caught_inputs(weights, lambda name, rows: seen.setdefault(name, rows)):
        layer(x)
    assert {name: rows.shape[1] for name, rows in seen.items()} == {
        name: weight.matrix().shape[1] for name, weight in weights.items()
    }
    torch.testing.assert_close(
        seen["self_attn.in_proj_weight"].reshape(-1).sort().values, x.view(-1).sort().values
    )


def test_taylor_and_fisher_are_what_they_say():
    task = make_task()
    dealt = samples(task)
    weights = find_weights(task.model)
    total, squares = 0.0, 0.0
    for shard in range(4):
        for _, batch in dealt.batches(shard):
            loss = task.loss(task.model, batch)
            (gradient,) = torch.autograd.grad(loss.sum(), [weights["0.weight"].parameter])
            total += gradient.double()
            squares += (gradient.double() / len(loss)).square()
    w = weights["0.weight"].matrix().double()
    taylor = gradient_scores(Alone(), task, dealt, weights, "taylor")["0.weight"]
    fisher = gradient_scores(Alone(), task, dealt, weights, "fisher")["0.weight"]
    torch.testing.assert_close(taylor, (w * total).abs())
    torch.testing.assert_close(fisher, w.square() * squares)


def test_unstructured_masks_equal_torchs():
    from torch.nn.utils import prune

    model = make_task().model
    layers = [model[0], model[2], model[4]]
    scores = {str(i): m.weight.detach().double().abs() for i, m in enumerate(layers)}
    mine = masks_of(scores, 0.7, scope="global", layers={})
    prune.global_unstructured(
        [(m, "weight") for m in layers], pruning_method=prune.L1Unstructured, amount=0.7
    )
    for number, layer in enumerate(layers):
        assert torch.equal(mine[str(number)], layer.weight_mask.bool())


def test_masks_by_layer_and_ties():
    scores = {"a": torch.zeros(2, 5), "b": torch.arange(10.0).view(2, 5)}
    found = masks_of(scores, 0.5, scope="uniform", layers={"a": 0.2})
    assert found["a"].view(-1).tolist() == [False] * 2 + [True] * 8  # ties go by place
    assert found["b"].view(-1).tolist() == [False] * 5 + [True] * 5


def test_two_of_four():
    kept = two_of_four(torch.tensor([[1.0, 4.0, 3.0, 2.0, 5.0, 5.0, 5.0, 5.0, 9.0]]))
    assert kept.tolist() == [[False, True, True, False, False, False, True, True, True]]


def test_the_cubic_schedule():
    assert cubic(0, 10, 0.8) == pytest.approx(0.0)
    assert cubic(5, 10, 0.8) == pytest.approx(0.8 * (1 - 0.125))
    assert cubic(10, 10, 0.8) == cubic(99, 10, 0.8) == pytest.approx(0.8)


def test_obs_is_the_least_squares_answer_for_one_column():
    """With one weight of each row gone, those that stay are the regression on what it gave."""
    x = torch.randn(200, 6, generator=generator(1), dtype=torch.float64)
    x[:, 3] += x[:, 0]
    weight = torch.randn(4, 6, generator=generator(2), dtype=torch.float64)
    hessian = x.T @ x / 200

    def choose(saliency):
        kept = torch.ones_like(saliency, dtype=torch.bool)
        kept[:, 0] = False
        return kept

    found, kept = prune_with_hessian(weight, hessian, choose, "w")
    assert not kept[:, 0].any()
    assert kept[:, 1:].all()
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(6)
    change = -weight[:, :1] * (torch.linalg.inv(damped)[:1] / torch.linalg.inv(damped)[0, 0])
    torch.testing.assert_close(found, (weight + change) * kept)


def test_solving_beats_rounding_and_zeroing_on_the_data():
    x = torch.randn(500, 32, generator=generator(1), dtype=torch.float64)
    x = x @ torch.randn(32, 32, generator=generator(2), dtype=torch.float64)
    weight = torch.randn(16, 32, generator=generator(3), dtype=torch.float64)
    hessian = x.T @ x / 500

    def error(other):
        return float((x @ (weight - other.double()).T).square().mean())

    grid = fit_grid(weight, bits=3, group_size=None, symmetric=False)
    levels, solved = quantize_with_hessian(
        weight, hessian, bits=3, group_size=None, symmetric=False, kept=None, name="w"
    )
    assert error(solved.values(levels)) < 0.6 * error(grid.values(grid.levels(weight)))
    obs, kept = prune_with_hessian(weight, hessian, lowest(0.5), "w")
    assert kept.float().mean() == 0.5
    assert error(obs) < error(weight * lowest(0.5)(weight.abs()))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [None, 8, 5])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_grid_keeps_zeros_and_rounds_to_nearest(bits, group_size, symmetric):
    weight = torch.randn(6, 24, generator=generator(bits))
    weight[:, ::3] = 0.0
    weight[2] = 0.0
    grid = fit_grid(weight, bits=bits, group_size=group_size, symmetric=symmetric)
    levels = grid.levels(weight)
    values = grid.values(levels)
    assert int(levels.max()) < 2**bits
    assert not values[weight == 0].any()
    steps = grid.scale.float().repeat_interleave(grid.group_size, 1)[:, :24]
    # Half a step, and where zero's own level shifts the grid, up to a whole one at its ends.
    assert bool(((values - weight).abs() <= steps * (0.51 if symmetric else 1.01)).all())
    assert torch.equal(grid.levels(values), levels)


def test_gptq_keeps_pruned_weights_at_zero():
    task = trained()
    steps = [{"prune": {"sparsity": "0.6"}}, {"quantize": {"method": "GPTQ", "bits": 4}}]
    machine = finished(pipeline(task, {"steps": steps}))
    for name, mask in machine.subject.masks.items():
        values = machine.subject.parameters()[name].view_as(mask)
        assert not values[~mask].any()


def test_masks_survive_fine_tuning():
    task = trained()
    tune = {"steps": 20, "learningRate": "0.1"}
    machine = finished(
        pipeline(task, {"steps": [{"prune": {"sparsity": "0.9"}, "fineTune": tune}]})
    )
    zeroed = finished(pipeline(task, {"steps": [{"prune": {"sparsity": "0.9"}}]}))
    moved = 0
    for name, mask in machine.subject.masks.items():
        values = machine.subject.parameters()[name].view_as(mask)
        assert not values[~mask].any()
        moved += int((values[mask] != zeroed.subject.parameters()[name].view_as(mask)[mask]).sum())
    assert moved > 0
    kept = sum(int(mask.sum()) for mask in machine.subject.masks.values())
    total = sum(mask.numel() for mask in machine.subject.masks.values())
    assert kept == total - round(0.9 * total)


def test_channels_make_a_smaller_dense_model():
    task = trained(convolution=True, width=16)
    spec = {"steps": [{"prune": {"pattern": "Channels", "sparsity": "0.5"}}]}
    machine = finished(pipeline(copied(task), spec))
    before, after = machine.rows
    assert after.macs < 0.4 * before.macs
    assert after.parameters < 0.45 * before.parameters
    assert machine.subject.model[1].out_channels == 8
    assert machine.subject.model[8].out_features == 4
    assert machine.subject.edits[0].startswith(EDIT)


def test_the_distillation_loss_is_hintons():
    from shardwise.compression.distilling import _Distilling, _Outputs
    from shardwise.compression.settings import Distill, FineTune
    from shardwise.compression.stages import Surroundings
    from shardwise.compression.subject import Subject
    from shardwise.engine.activity import silent

    task, teacher = make_task(), make_task(width=9).model
    around = Surroundings(
        shards=4,
        seed=1,
        batch_size=8,
        calibration_samples=8,
        calibration_batch_size=8,
        beat=silent,
    )
    settings = Distill(temperature=3.0, alpha=0.7)
    box = {}
    subject = Subject(task=task)
    _Outputs(subject, settings, around, teacher, box).advance(Alone())
    stage = _Distilling(subject, settings, FineTune(steps=1), around, teacher, box)
    places = torch.tensor([5, 0, 17])
    x, y = task.train.batch(places)
    found = stage._loss(task.model, (places, (x, y)))
    divergence = nn.functional.kl_div(
        (task.model(x) / 3).log_softmax(1), (teacher(x) / 3).softmax(1), reduction="none"
    ).sum(1)
    hard = nn.functional.cross_entropy(task.model(x), y, reduction="none")
    torch.testing.assert_close(found, 0.7 * 9 * divergence + 0.3 * hard)
