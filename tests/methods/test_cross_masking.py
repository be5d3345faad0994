"""HA-CM's masking: criteria against loops, direction, groups, and joints that are pruned."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from methods.hyperbolic import exp0
from methods.masking import MaskContext, MaskingConfig, strategy
from methods.masking.cross import attention_scores, hierarchy_scores
from methods.masking.tokens import visible_tokens
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.topology import KINECT_V2

THREE = ("hierarchy", "attention", "cross")


def context_of(embeddings: torch.Tensor, hidden: int, observed: torch.Tensor | None = None) -> MaskContext:
    """Context of sequences whose tokens have these embeddings, on Kinect v2's joints."""
    shape = embeddings.shape[:3]
    seen = torch.ones(shape, dtype=torch.bool) if observed is None else observed
    count = torch.full((shape[0],), hidden)
    joints = torch.zeros(*shape, 3)
    return MaskContext(joints, seen, 1, KINECT_V2, (1, shape[0], 1), count, lambda _: embeddings)


def mask_of(name: str, context: MaskContext, **config) -> torch.Tensor:
    return strategy(name, MaskingConfig(**config))(context, Draws(0, 0, "mask"))


def plain_hierarchy(e, observed, inner, weight, factor):
    def distance(u, v):
        apart = sum((a - b) ** 2 for a, b in zip(u, v))
        room = (1 - sum(a * a for a in u)) * (1 - sum(b * b for b in v))
        return math.acosh(1 + factor * apart / room)

    found = torch.zeros(e.shape[:3], dtype=e.dtype)
    for s, t in [(s, t) for s in range(e.shape[0]) for t in range(e.shape[1])]:
        points = exp0(e[s, t]).tolist()
        middle = [sum(points[j][i] for j in inner) / len(inner) for i in range(e.shape[3])]
        seen = observed[s, t].nonzero().flatten().tolist()
        for v in seen:
            total = sum(distance(points[v], points[u]) for u in seen if u != v)
            found[s, t, v] = total + weight * distance(points[v], middle)
    return found


def plain_attention(e, observed, query, key, sharp):
    sequences, times, joints, width = e.shape
    found = torch.zeros(e.shape[:3], dtype=e.dtype)
    for s in range(sequences):
        for t in range(times):
            for u in range(times):
                seen = [v for v in range(joints) if observed[s, t, v] and observed[s, u, v]]
                logits = [float((query @ e[s, t, v]) @ (key @ e[s, u, v])) for v in seen]
                powers = [math.exp(x * math.sqrt(width) if sharp else x / math.sqrt(width)) for x in logits]
                for v, power in zip(seen, powers):
                    found[s, u, v] += power / sum(powers)
    return found


@pytest.mark.parametrize("factor", [2.0, 4.0])
def test_hierarchy_by_formula(factor):
    e, observed = torch.randn(2, 3, 25, 6, dtype=torch.float64), torch.rand(2, 3, 25) > 0.2
    config = MaskingConfig(inner_weight=0.3, distance_factor=factor)
    found = hierarchy_scores(e, observed, KINECT_V2.inner, config)
    expected = plain_hierarchy(e, observed, KINECT_V2.inner, 0.3, factor)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    config.inner_weight = 0.0
    torch.testing.assert_close(hierarchy_scores(e, observed, (), config), hierarchy_scores(e, observed, (3,), config))


@pytest.mark.parametrize("sharp", [True, False])
def test_global_attention_by_formula(sharp):
    e, observed = torch.randn(2, 3, 25, 6, dtype=torch.float64), torch.rand(2, 3, 25) > 0.2
    query, key = torch.randn(2, 6, 6, dtype=torch.float64) / 3
    found = attention_scores(e, observed, query, key, sharp)
    torch.testing.assert_close(found, plain_attention(e, observed, query, key, sharp), rtol=1e-9, atol=1e-12)
    everything = attention_scores(e, torch.ones_like(observed), query, key, sharp)
    torch.testing.assert_close(everything.sum(2), torch.full((2, 3), 3.0, dtype=torch.float64))  # joints compete


def test_the_random_maps_are_xavier_and_the_same_in_all_runs():
    one, two = (strategy("attention", MaskingConfig()).maps(torch.zeros(1, 64)) for _ in range(2))
    for a, b in zip(one, two):
        assert torch.equal(a, b) and a.abs().max() <= math.sqrt(6 / 128)
        assert float(a.var()) == pytest.approx(1 / 64, rel=0.1)
    assert not torch.equal(*one)


def outlier(name: str) -> torch.Tensor:
    """Embeddings where joint 7 scores high: it lies away from the others, or its times attend to each other."""
    e = 0.1 * torch.randn(400, 4, 25, 8, generator=torch.Generator().manual_seed(0))
    if name == "hierarchy":
        e[:, :, 7] += 3
        return e
    q, k = strategy("attention", MaskingConfig()).maps(e)
    e[:, :, 7] += torch.linalg.svd(q.T @ k)[0][:, 0] * 3  # one end of the products' singular values
    return e if float((e[0, 0, 7] @ q.T) @ (k @ e[0, 1, 7])) > 0 else -e


@pytest.mark.parametrize("name", ["hierarchy", "attention"])
def test_high_scores_are_hidden_or_kept_as_the_direction_says(name):
    e = outlier(name)
    query, key = strategy("attention", MaskingConfig()).maps(e)
    seen = torch.ones(e.shape[:3], dtype=torch.bool)
    by_attention = attention_scores(e, seen, query, key, True)
    score = hierarchy_scores(e, seen, KINECT_V2.inner, MaskingConfig()) if name == "hierarchy" else by_attention
    top = score > score.flatten(1).quantile(0.9, dim=1)[:, None, None]
    rates = {}
    for keep_high in (False, True):
        mask = mask_of(name, context_of(e, 50), tau=0.2, keep_high=keep_high)
        assert (mask.sum((1, 2)) == 50).all()
        rates[keep_high] = float(mask[top].float().mean())
    assert rates[False] > 0.6 and rates[True] < 0.4


def test_no_temperature_is_uniform():
    for name in THREE:
        mask = mask_of(name, context_of(outlier("hierarchy"), 50), tau=0.0)
        assert float(mask.float().mean((0, 1)).sub(0.5).abs().max()) < 0.09


def test_even_patches_are_attentions_and_odd_ones_hierarchys():
    e, other = torch.randn(200, 5, 25, 8), torch.randn(200, 5, 25, 8)
    one = mask_of("cross", context_of(e, 100))
    for moved, fixed in ((0, 1), (1, 0)):
        changed = e.clone()
        changed[:, moved::2] = other[:, moved::2]
        two = mask_of("cross", context_of(changed, 100))
        assert torch.equal(one[:, fixed::2], two[:, fixed::2])  # no group looks at the other's tokens
        assert not torch.equal(one[:, moved::2], two[:, moved::2])


@pytest.mark.parametrize(("times", "hidden", "even", "odd"), [(8, 180, 10, 10), (24, 540, 30, 30), (5, 113, 8, 4)])
def test_each_group_keeps_its_share(times, hidden, even, odd):
    mask = mask_of("cross", context_of(torch.randn(50, times, 25, 8), hidden))
    assert ((~mask[:, 0::2]).sum((1, 2)) == even).all()
    assert ((~mask[:, 1::2]).sum((1, 2)) == odd).all()


def test_shares_are_of_observed_tokens():
    observed = torch.ones(50, 8, 25, dtype=torch.bool)
    observed[:, 1::2, 5:] = False  # 100 and 20 tokens
    mask = mask_of("cross", context_of(torch.randn(50, 8, 25, 8), 176, observed))
    assert ((~mask[:, 0::2]).sum((1, 2)) == 20).all() and ((~mask[:, 1::2]).sum((1, 2)) == 4).all()
    nearly_none = torch.zeros_like(observed)
    nearly_none[:, 1, 3] = True
    assert not mask_of("cross", context_of(torch.randn(50, 8, 25, 8), 176, nearly_none))[:, 1, 3].any()


def test_the_number_of_hidden_tokens_may_differ_between_sequences():
    context = context_of(torch.randn(50, 8, 25, 8), 0)
    context.hidden = torch.arange(50) * 4
    for name in THREE:
        assert torch.equal(mask_of(name, context).sum((1, 2)), context.hidden)


@pytest.mark.parametrize("name", THREE)
def test_one_time_patch_is_enough(name):
    mask = mask_of(name, context_of(torch.randn(50, 1, 25, 8), 20))
    assert (mask.sum((1, 2)) == 20).all() and len(mask.flatten(1).unique(dim=0)) > 40


def test_crossing_one_time_patch_is_attention():
    context = context_of(torch.randn(50, 1, 25, 8), 20)
    assert torch.equal(mask_of("cross", context), mask_of("attention", context))


def test_the_releases_order_moves_the_odd_groups_scores():
    context = context_of(torch.randn(200, 8, 25, 8), 100)
    right, wrong = (mask_of("cross", context, release_order=flag, tau=0.2) for flag in (False, True))
    assert torch.equal(right[:, 0::2], wrong[:, 0::2]) and not torch.equal(right, wrong)


@pytest.mark.parametrize("name", THREE)
def test_in_half_precision_scores_are_computed_in_full(name):
    e = torch.randn(10, 4, 25, 8).bfloat16()
    expected = mask_of(name, context_of(e.float(), 50))
    assert torch.equal(mask_of(name, context_of(e, 50)), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mask_of(name, context_of(e.float(), 50)), expected)


@pytest.mark.parametrize("field", ["curvature", "distance_factor"])
def test_what_is_no_ball_is_refused(field):
    with pytest.raises(BadInput, match=f"masking.{field}=0.0 must be positive"):
        strategy("cross", MaskingConfig(**{field: 0.0}))


def test_removed_joints_are_never_shown_even_where_little_was_observed():
    observed = torch.rand(50, 8, 25) < 0.02
    context = replace(context_of(torch.randn(50, 8, 25, 8), 180, observed), removed=(0, 1, 4))
    context.observed = context.observed & context.kept
    visible, _ = visible_tokens(mask_of("cross", context), 20, context, Draws(0, 0))
    assert not sum((visible % 25 == j).sum() for j in (0, 1, 4))
    assert torch.equal(
        context.observed.flatten(1).gather(1, visible).sum(1), context.observed.sum((1, 2)).clamp(max=20)
    )
