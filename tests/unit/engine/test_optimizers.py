"""The optimizers and schedules against torch.optim, and on parts of the vector."""

from __future__ import annotations

import pytest
import torch

from shardwise import SGD, Adam, AdamW, Constant, WarmupCosine
from shardwise.engine.clip import block_squares, clip_factor
from shardwise.engine.flat import BLOCK, cuts
from shardwise.engine.optimizers import zero_state

CASES = {
    "sgd": (SGD(learning_rate=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "sgd, weight decay": (
        SGD(learning_rate=0.1, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01),
    ),
    "momentum": (
        SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-3),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3),
    ),
    "nesterov": (
        SGD(learning_rate=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    ),
    "adam": (
        Adam(learning_rate=0.01, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, foreach=False),
    ),
    "adamw": (
        AdamW(learning_rate=0.01, betas=(0.8, 0.95)),
        lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.95), foreach=False),
    ),
}


def gradients(count, length):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, length, generator=generator)


@pytest.mark.parametrize("case", CASES)
def test_equals_torch_optim_over_100_steps(case):
    ours, make_theirs = CASES[case]
    start = torch.randn(3 * BLOCK, generator=torch.Generator().manual_seed(0))
    parameter = torch.nn.Parameter(start.clone())
    theirs = make_theirs([parameter])
    parameters, state = start, zero_state(ours, start)
    for step, gradient in enumerate(gradients(100, len(start))):
        parameter.grad = gradient.clone()
        theirs.step()
        parameters, state = ours.update(parameters, gradient, state, step, ours.learning_rate)
    torch.testing.assert_close(parameters, parameter.detach(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_have_the_bits_of_the_whole(case, parts):
    optimizer, _ = CASES[case]
    whole = torch.randn(7 * BLOCK, generator=torch.Generator().manual_seed(0))
    edges = cuts(len(whole), parts)
    pieces = [whole[cut].clone() for cut in edges]
    states = [zero_state(optimizer, piece) for piece in pieces]
    state = zero_state(optimizer, whole)
    for step, gradient in enumerate(gradients(10, len(whole))):
        whole, state = optimizer.update(whole, gradient, state, step, 0.05)
        for part, cut in enumerate(edges):
            pieces[part], states[part] = optimizer.update(
                pieces[part], gradient[cut], states[part], step, 0.05
            )
    assert torch.equal(torch.cat(pieces), whole)
    for slot in optimizer.slots:
        assert torch.equal(torch.cat([part[slot] for part in states]), state[slot])


def test_an_update_changes_nothing_before_it_is_committed():
    optimizer = AdamW(learning_rate=0.1)
    parameters, gradient = torch.ones(BLOCK), torch.full((BLOCK,), 2.0)
    state = zero_state(optimizer, parameters)
    optimizer.update(parameters, gradient, state, 0, 0.1)
    assert torch.equal(parameters, torch.ones(BLOCK))
    assert torch.equal(gradient, torch.full((BLOCK,), 2.0))
    assert all(not vector.any() for vector in state.values())


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clipping_equals_torch(limit):
    gradient = torch.randn(5 * BLOCK, generator=torch.Generator().manual_seed(3))
    parameter = torch.nn.Parameter(torch.zeros_like(gradient))
    parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_([parameter], limit)
    ours = gradient * clip_factor(block_squares(gradient), limit)
    torch.testing.assert_close(ours, parameter.grad)


def test_block_squares_do_not_depend_on_the_part():
    gradient = torch.randn(9 * BLOCK, generator=torch.Generator().manual_seed(4))
    whole = block_squares(gradient)
    for parts in range(1, 10):
        pieces = [block_squares(gradient[cut]) for cut in cuts(len(gradient), parts)]
        assert torch.equal(torch.cat(pieces), whole)


def test_schedules():
    assert Constant().factor(7, 10) == 1.0
    schedule = WarmupCosine(warmup_steps=4, final_factor=0.1)
    assert [schedule.factor(step, 104) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert schedule.factor(4, 104) == 1.0
    assert schedule.factor(54, 104) == pytest.approx(0.55)
    assert schedule.factor(104, 104) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(learning_rate=0.0), "learning_rate must be positive"),
        (lambda: SGD(learning_rate=0.1, momentum=1.0), r"momentum must be in \[0, 1\)"),
        (lambda: SGD(learning_rate=0.1, nesterov=True), "nesterov needs a momentum"),
        (lambda: Adam(learning_rate=0.1, betas=(0.9, 1.0)), "betas"),
        (lambda: AdamW(learning_rate=0.1, weight_decay=-1.0), "weight_decay"),
        (lambda: WarmupCosine(warmup_steps=-1), "warmup_steps"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
