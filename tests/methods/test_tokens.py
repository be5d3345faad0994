"""Tokens that a mask leaves: exactly so many, those observed first, as lists for encoders that gather them."""

from __future__ import annotations

import itertools

import pytest
import torch

from methods.masking import observed_patches, visible_count
from methods.masking.tokens import hidden_index, visible_tokens
from skeletons.randomness import Draws
from tests.methods.masked import EXACT, MASKED, context_of, masks

# --- counts


@pytest.mark.parametrize(("ratio", "tokens", "count"), [(0.9, 750, 74), (0.5, 200, 100), (0.75, 10, 2), (0.99, 10, 1)])
def test_visible_tokens_are_counted_as_mamp_does(ratio, tokens, count):
    assert visible_count(tokens, ratio) == count


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("ratio", [(0.9, 0.9), (0.5, 0.9)])
def test_exact_strategies_hide_exactly_what_is_asked(name, ratio):
    context = context_of(torch.randn(40, 30, 25, 3), ratio)
    mask = masks(name, context)
    assert torch.equal(mask.sum((1, 2)), context.hidden)
    if ratio == (0.9, 0.9):
        assert set(context.hidden.tolist()) == {676}


@pytest.mark.parametrize("name", EXACT)
def test_unobserved_tokens_are_hidden_first(name):
    context = context_of(torch.randn(20, 8, 25, 3), (0.5, 0.9))
    context.observed = torch.rand(20, 8, 25) > 0.4
    mask = masks(name, context)
    assert mask[~context.observed].all()
    assert torch.equal(mask.sum((1, 2)), context.hidden)


def test_half_of_a_patch_must_be_observed():
    seen = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)[:, :, None]
    assert observed_patches(seen, 4).flatten().tolist() == [True, False]


# --- for encoders that gather


@pytest.mark.parametrize("name", MASKED)
def test_exactly_so_many_tokens_are_visible_in_ascending_order(name):
    context = context_of(torch.randn(30, 8, 25, 3), (0.8, 0.8))
    mask = masks(name, context)
    count = visible_count(200, 0.8)
    visible, changed = visible_tokens(mask, count, context, Draws(0, 0, "complete"))
    assert visible.shape == (30, count) and (visible.diff() > 0).all()
    chosen = torch.ones(30, 200, dtype=torch.bool).scatter(1, visible, False)
    assert float(changed) == pytest.approx(float((chosen != mask.flatten(1)).float().mean()))
    assert not (mask.flatten(1) & ~chosen).any()  # nothing that was hidden is shown
    assert float(changed) == pytest.approx(float((context.hidden - mask.sum((1, 2))).sum() / mask.numel()))
    assert (float(changed) == 0) == (name in EXACT)


@pytest.mark.parametrize("observed", [0.5, 0.05, 0.0])
def test_an_exact_mask_is_shown_as_it_is_whatever_was_observed(observed):
    context = context_of(torch.randn(30, 8, 25, 3), (0.8, 0.8))
    context.observed = torch.rand(30, 8, 25) < observed
    visible, changed = visible_tokens(masks("random", context), 39, context, Draws(0, 0, "complete"))
    assert float(changed) == 0
    shown = context.observed.flatten(1).gather(1, visible)
    assert torch.equal(shown.sum(1), context.observed.sum((1, 2)).clamp(max=39))


def test_too_large_a_mask_gives_random_tokens_back():
    context = context_of(torch.randn(2000, 2, 25, 3))
    mask = torch.ones(2000, 2, 25, dtype=torch.bool)
    mask[:, 0, :5] = False
    visible, changed = visible_tokens(mask, 10, context, Draws(0, 0))
    share = torch.zeros(2000, 50).scatter(1, visible, 1.0).mean(0)
    assert (share[:5] == 1).all() and float(changed) == pytest.approx(0.1)
    assert (share[5:] - 5 / 45).abs().max() < 0.04


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_hidden_tokens_are_numbered_in_time_major_order_and_filled_to_few_lengths(share):
    mask = torch.rand(3, 4, 5) < share
    expected = [s * 20 + t * 5 + j for s, t, j in itertools.product(range(3), range(4), range(5)) if mask[s, t, j]]
    filled, real = hidden_index(mask, (0.5, 0.9))
    assert filled[real].tolist() == expected and not filled[~real].any()
    assert len(filled) == len(real) and len(filled) % 4 == 0 and len(filled) < len(expected) + 4  # 60 tokens / 16
