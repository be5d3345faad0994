"""Masking strategies: counts, statistics, what they look at, and which methods they serve."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from methods.base import all_methods, build, refuses, support_matrix
from methods.encoder import patchify
from methods.masking import (
    MaskContext,
    MaskingConfig,
    all_strategies,
    mask_context,
    observed_patches,
    strategy,
    visible_count,
)
from methods.masking.tokens import hidden_index, visible_tokens
from methods.masking.views import ViewMasking
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch
from skeletons.topology import KINECT_V1, KINECT_V2, OPENNI

STRATEGIES = all_strategies()
MASKED = [name for name in STRATEGIES if name != "none"]
EXACT = [name for name in MASKED if STRATEGIES[name].exact]


def context_of(
    joints: torch.Tensor, ratio=(0.9, 0.9), patch=1, topology=KINECT_V2, views=1, persons=1, draws=None
) -> MaskContext:
    """Context of sequences (view x clip x person, time, joint, 3), everything observed; embeddings by a linear map."""
    x = joints.unflatten(0, (-1, persons))
    seen = torch.ones(x.shape[:-1], dtype=torch.bool)
    batch = Batch(x, seen, torch.ones(x.shape[:2], dtype=torch.bool), views)
    embedding = Draws("embedding").normal(3 * patch, 8) / 4

    def embed(found: torch.Tensor) -> torch.Tensor:
        return patchify(found, patch) @ embedding.to(found.dtype)

    return mask_context(batch, patch, topology, ratio, draws or Draws(0, 0), embed)


def masks(name: str, context: MaskContext, step: int = 0, **config) -> torch.Tensor:
    return strategy(name, MaskingConfig(**config))(context, Draws(0, step, "mask"))


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


def test_drawn_ratios_are_uniform_on_their_interval():
    context = context_of(torch.zeros(8000, 8, 25, 3), (0.5, 0.9))
    share = context.hidden / 200
    assert share.min() >= 0.5 and share.max() < 0.9
    counts = torch.histc(share, 8, 0.5, 0.9)
    assert ((counts - 1000).abs() < 5 * 1000**0.5).all()  # five standard deviations


@pytest.mark.parametrize("name", STRATEGIES)
def test_draws_depend_on_their_key_only(name):
    context = context_of(torch.randn(6, 8, 25, 3), (0.5, 0.9))
    first = masks(name, context)
    torch.manual_seed(7)
    assert torch.equal(masks(name, context), first)
    assert torch.equal(masks(name, context, step=1), first) == (name == "none")
    assert len({tuple(m.flatten().tolist()) for m in first}) == (1 if name == "none" else 6)


@pytest.mark.parametrize("name", MASKED)
def test_ranks_draw_slices_of_one_mask(name):
    joints = torch.randn(3, 4, 2, 8, 25, 3)  # view, clip, person

    def mask(part: torch.Tensor, **rank) -> torch.Tensor:
        draws = Draws(0, 5, **rank)
        context = context_of(part.flatten(0, 2), (0.5, 0.9), views=3, persons=2, draws=draws)
        found = strategy(name, MaskingConfig())(context, draws.fork("mask"))
        return found.unflatten(0, part.shape[:3])

    whole = mask(joints)
    for rank in range(2):
        clips = slice(2 * rank, 2 * rank + 2)
        assert torch.equal(mask(joints[:, clips], rank=rank, world=2), whole[:, clips])


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


def test_none_hides_nothing():
    assert not masks("none", context_of(torch.randn(3, 8, 25, 3))).any()


# --- groups of tokens


@pytest.mark.parametrize(("name", "across"), [("frame", 2), ("joint", 1)])
def test_whole_frames_and_joints_are_hidden_all_but_one(name, across):
    context = context_of(torch.zeros(400, 8, 25, 3), (0.5, 0.9))
    mask = masks(name, context)
    along = mask.float().mean(across)
    broken = ((along > 0) & (along < 1)).sum(1)
    assert broken.max() == 1 and torch.equal(mask.sum((1, 2)), context.hidden)
    often = mask.float().mean(0)
    assert (often - often.mean()).abs().max() < 5 * 0.5 / 400**0.5  # every token equally often


def test_whole_parts_are_hidden_all_but_one():
    context = context_of(torch.zeros(400, 8, 25, 3), (0.5, 0.9))
    mask = masks("part", context)
    share = torch.stack([mask[:, :, list(m)].float().mean((1, 2)) for m in KINECT_V2.parts.values()], 1)
    assert (((share > 0) & (share < 1)).sum(1) <= 1).all()
    assert torch.equal(mask.sum((1, 2)), context.hidden)


def test_inverted_motion_masking_hides_what_rests():
    joints = torch.zeros(2000, 8, 25, 3)
    joints[:, :, :5] = 0.1 * torch.arange(8.0)[:, None, None]  # five joints move, the others rest
    rates = {}
    for name in ("motion", "motion_inverted"):
        often = masks(name, context_of(joints, (0.5, 0.5))).float().mean((0, 1))
        rates[name] = float(often[:5].mean() - often[5:].mean())
    assert rates["motion"] > 0.1 and rates["motion_inverted"] < -0.1


# --- tubes


def realised(topology=KINECT_V2, ratio=(0.9, 0.9), count=400, patches=8) -> tuple[torch.Tensor, MaskContext]:
    context = context_of(torch.zeros(count, patches, len(topology), 3), ratio, topology=topology)
    return masks("tube", context), context


@pytest.mark.parametrize("topology", [KINECT_V2, KINECT_V1, OPENNI], ids=lambda t: t.name)
@pytest.mark.parametrize("ratio", [(0.5, 0.5), (0.8, 0.8), (0.5, 0.9)])
def test_tubes_do_not_overshoot_and_rarely_fall_short(topology, ratio):
    mask, context = realised(topology, ratio)
    count = mask.sum((1, 2))
    assert (count <= context.hidden).all()
    tolerance = 0.004 if ratio[1] < 0.9 else 0.01
    assert mask.float().mean() == pytest.approx(float((context.hidden / mask[0].numel()).mean()), abs=tolerance)


def release_subsets() -> tuple[torch.Tensor, torch.Tensor]:
    """Subsets of SLiM's release: contiguous stretches of a list of joints, of uniform length."""
    groups = ((0, 1, 20, 2, 3), (4, 5, 6, 7, 21, 22), (8, 9, 10, 11, 23, 24), (12, 13, 14, 15), (16, 17, 18, 19))
    rows, chances = [], []
    for group in groups:
        for size in range(1, len(group) + 1):
            places = len(group) - size + 1
            rows += [[j in group[at : at + size] for j in range(25)] for at in range(places)]
            chances += [1 / len(groups) / len(group) / places] * places
    return torch.tensor(rows), torch.tensor(chances).cumsum(0)


def test_contiguous_subsets_are_the_releases():
    found, expected = strategy("tube", MaskingConfig(subsets="contiguous")).subsets(KINECT_V2), release_subsets()

    def chances(table: torch.Tensor, cumulative: torch.Tensor) -> dict[tuple, float]:
        each = torch.diff(cumulative, prepend=cumulative.new_zeros(1)).tolist()
        return {tuple(row.nonzero().flatten().tolist()): chance for row, chance in zip(table, each)}

    assert chances(*found) == pytest.approx(chances(*expected), abs=1e-6)


def test_any_subset_of_a_part_may_be_a_tube():
    table, cumulative = strategy("tube", MaskingConfig(subsets="any")).subsets(KINECT_V2)
    assert len(table) == sum(2 ** len(members) - 1 for members in KINECT_V2.parts.values())
    assert len({tuple(row.tolist()) for row in table}) == len(table)
    size = torch.diff(cumulative, prepend=cumulative.new_zeros(1))
    of_four = size[(table.sum(1) == 2) & table[:, list(KINECT_V2.parts["leg_left"])].any(1)]
    assert of_four.tolist() == pytest.approx([1 / 5 / 4 / 6] * 6, abs=1e-6)


def test_without_constant_volume_the_duration_does_not_depend_on_the_width():
    tube = strategy("tube", MaskingConfig(volume="free"))
    tube.rounds = 1
    context = context_of(torch.zeros(4000, 8, 25, 3), (0.5, 0.5))
    mask = tube(context, Draws(0, 0, "mask"))
    widths, durations = mask.any(1).sum(1), mask.any(2).sum(1)
    for width in (1, 3, 6):
        mine = durations[widths == width].float()
        assert set(mine.tolist()) == set(range(1, 9))
        assert float(mine.mean()) == pytest.approx(4.5, abs=5 * 2.3 / len(mine) ** 0.5)
    full = masks("tube", context, volume="free")
    assert (full.sum((1, 2)) <= 100).all() and float(full.float().mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"subsets": "conected"}, "did you mean 'connected'"),
        ({"volume": "constnt"}, "did you mean 'constant'"),
        ({"ratio_draw": "strata"}, "did you mean 'stratified'"),
        ({"global_probability": 1.5}, "masking.global_probability=1.5 must be a share"),
        ({"local_probability": -0.5}, "masking.local_probability=-0.5 must be a share"),
    ],
)
def test_wrong_masking_settings_are_refused(wrong, message):
    with pytest.raises(BadInput, match=message):
        strategy("tube", MaskingConfig(**wrong))


# --- which views of a group


def grouped(views: int, clips: int, persons: int = 1) -> Batch:
    joints = torch.randn(views * clips, persons, 8, 25, 3)
    seen = torch.ones(joints.shape[:-1], dtype=torch.bool)
    return Batch(joints, seen, torch.ones(views * clips, persons, dtype=torch.bool), views)


@pytest.fixture
def patchless(parts):
    """An encoder with patches of one frame."""
    return build(parts("slim", backbone={"patch": 1})).encoder


@pytest.mark.parametrize("shuffled", [True, False])
@pytest.mark.parametrize("probability", [1.0, 0.5])
def test_strata_cover_the_range_in_every_batch(shuffled, probability, patchless):
    config = MaskingConfig(strategy="random", ratio=[0.5, 0.9], ratio_draw="stratified")
    masking = ViewMasking(strategy("random", config), config, probability, shuffled)
    mask, context = masking(grouped(4, 10), patchless, Draws(0, 0, "global"))
    counts = mask.sum((1, 2))
    masked = counts > 0
    count = int(40 * probability)
    assert int(masked.sum()) == count
    edges = 200 * (0.5 + 0.4 * torch.arange(count + 1) / count)
    inside = counts[masked].sort().values if shuffled else counts[masked]
    assert (inside >= edges[:-1].floor()).all() and (inside <= edges[1:]).all()
    assert torch.equal(counts, context.hidden)
    if shuffled:
        assert not torch.equal(inside, counts[masked])
        assert not torch.equal(masking(grouped(4, 10), patchless, Draws(0, 1, "global"))[1].hidden, context.hidden)
    else:
        assert masked[:count].all()  # the first anchor's views first


@pytest.mark.parametrize("shuffled", [True, False])
def test_ranks_share_the_strata_of_the_global_batch(shuffled, patchless):
    config = MaskingConfig(strategy="random", ratio=[0.5, 0.9], ratio_draw="stratified")
    masking = ViewMasking(strategy("random", config), config, 0.5, shuffled)
    whole = masking(grouped(2, 6), patchless, Draws(0, 3))[1].hidden.unflatten(0, (2, 6))
    for rank in range(2):
        part = masking(grouped(2, 3), patchless, Draws(0, 3, rank=rank, world=2))[1].hidden.unflatten(0, (2, 3))
        assert torch.equal(part, whole[:, 3 * rank : 3 * rank + 3])


def test_otherwise_every_view_is_masked_or_not_on_its_own(patchless):
    config = MaskingConfig(strategy="random")
    masking = ViewMasking(strategy("random", config), config, 0.3)
    mask, context = masking(grouped(2, 1000), patchless, Draws(0, 0))
    masked = mask.flatten(1).any(1)
    assert float(masked.float().mean()) == pytest.approx(0.3, abs=5 * (0.21 / 2000) ** 0.5)
    assert torch.equal(mask.sum((1, 2))[masked], context.hidden[masked])


def test_with_the_releases_subsets_the_statistics_are_the_releases():
    tube = strategy("tube", MaskingConfig(subsets="contiguous"))
    context = context_of(torch.zeros(1500, 8, 25, 3), (0.5, 0.9))
    rate = tube(context, Draws(0, 0, "mask")).float().mean((0, 1))
    for joints, expected in (((13, 14, 17, 18), 0.80), ((24, 8, 4, 22), 0.545)):  # ours, simulated from its code
        assert float(rate[list(joints)].mean()) == pytest.approx(expected, abs=0.02)
    context.hidden = torch.full((1500,), 180)
    assert tube(context, Draws(0, 1, "mask")).float().mean() == pytest.approx(0.890, abs=0.002)


def test_tubes_at_ninety_percent_end_a_little_short():
    context = context_of(torch.zeros(1000, 8, 25, 3))
    context.hidden = torch.full((1000,), 180)
    assert masks("tube", context).float().mean() == pytest.approx(0.890, abs=0.003)


@pytest.mark.parametrize("patches", [1, 2, 4])
def test_tubes_fit_short_views(patches):
    mask, context = realised(ratio=(0.5, 0.9), patches=patches)
    assert (mask.sum((1, 2)) <= context.hidden).all()
    assert mask.float().mean() == pytest.approx(0.7, abs=0.04)


def test_joints_are_hidden_about_equally_often():
    mask, _ = realised(ratio=(0.5, 0.9), count=2000)
    rate = mask.float().mean((0, 1))
    assert rate.min() > 0.5 and rate.max() < 0.85
    twin = rate[list(KINECT_V2.mirror)]
    torch.testing.assert_close(rate, twin, rtol=0, atol=0.04)
    times = mask.float().mean((0, 2))
    torch.testing.assert_close(times, times.flip(0), rtol=0, atol=0.02)


@pytest.mark.parametrize("topology", [KINECT_V2, OPENNI], ids=lambda t: t.name)
def test_subsets_are_connected_parts_drawn_by_size(topology):
    table, cumulative = strategy("tube", MaskingConfig()).subsets(topology)
    chance = torch.diff(cumulative, prepend=cumulative.new_zeros(1))
    assert cumulative[-1] == pytest.approx(1, abs=1e-5)
    assert len({tuple(row.tolist()) for row in table}) == len(table)
    by_part: dict[tuple[str, int], float] = {}
    for row, p in zip(table, chance):
        members = set(row.nonzero().flatten().tolist())
        (part,) = [name for name, joints in topology.parts.items() if members <= set(joints)]
        reached, frontier = set(), {min(members)}
        while frontier:
            reached |= frontier
            near = {b for bone in topology.bones for a, b in (bone, bone[::-1]) if a in frontier}
            frontier = (near & members) - reached
        assert reached == members, [topology.joints[j] for j in members]
        by_part[part, len(members)] = by_part.get((part, len(members)), 0) + float(p)
    for (part, _), p in by_part.items():
        assert p == pytest.approx(1 / len(topology.parts) / len(topology.parts[part]), abs=1e-5)


def test_one_tube_is_a_subset_for_a_stretch_of_time_of_constant_volume():
    tube = strategy("tube", MaskingConfig())
    tube.rounds = 1
    table = {tuple(row.tolist()) for row in tube.subsets(KINECT_V2)[0]}
    context = context_of(torch.zeros(3000, 8, 25, 3), (0.5, 0.9))
    mask = tube(context, Draws(0, 0, "mask"))
    volume: dict[int, list[int]] = {}
    begins = set()
    for one in mask[mask.any((1, 2))]:
        joints, during = one.any(0), one.any(1).nonzero().flatten()
        width, duration = int(joints.sum()), len(during)
        assert tuple(joints.tolist()) in table
        assert during.tolist() == list(range(int(during[0]), int(during[0]) + duration))
        assert int(one.sum()) == width * duration  # all its joints, all the while
        begins.add((duration, int(during[0])))
        volume.setdefault(width, []).append(duration)
    assert begins >= {(4, t) for t in range(5)} | {(5, t) for t in range(4)} | {(8, 0)}  # any time
    for width, durations in volume.items():
        areas = range(8, 101)  # SLiM: at least 8 tokens, at most half of them
        possible = {min(8, max(1, int(torch.tensor(a / width).round()))) for a in areas}
        assert set(durations) <= possible
    assert set(volume[1]) == {8}  # eight tokens of one joint: the whole view
    mean = [sum(v) / len(v) for _, v in sorted(volume.items())]
    assert mean == sorted(mean, reverse=True)


# --- motion


def moving(intensity: torch.Tensor) -> torch.Tensor:
    """Joints whose patches (one frame each) move by `intensity` (sequence, time, joint) from the one before."""
    return intensity.cumsum(1)[..., None].expand(-1, -1, -1, 3)


def keep_by_decile(mask: torch.Tensor, intensity: torch.Tensor) -> torch.Tensor:
    order = intensity.flatten(1).argsort(1)
    return (~mask).float().flatten(1).gather(1, order).unflatten(1, (10, -1)).mean((0, 2))


def exponential(count: int = 400) -> torch.Tensor:
    intensity = -torch.log(torch.rand(count, 30, 25))
    intensity[:, 0] = intensity[:, 1]  # the first patch has no patch before it and takes the second's
    return intensity


def test_what_moves_more_is_kept_less():
    intensity = exponential()
    keep = keep_by_decile(masks("motion", context_of(moving(intensity))), intensity)
    assert (keep.diff() < 0.004).all()
    assert float(keep[0]) == pytest.approx(0.133, abs=0.01)  # simulated from MAMP's code: .133 ... .038
    assert float(keep[-1]) == pytest.approx(0.038, abs=0.01)
    assert float(keep.mean()) == pytest.approx(74 / 750, abs=1e-6)


@pytest.mark.parametrize("case", ["tau 0", "one time patch", "nobody"])
def test_motion_without_motion_is_uniform(case):
    intensity = exponential() if case == "tau 0" else torch.zeros(400, 1 if case == "one time patch" else 30, 25)
    context = context_of(moving(intensity), (0.6, 0.6))
    mask = masks("motion", context, tau=0.0 if case == "tau 0" else 0.8)
    assert torch.equal(mask.sum((1, 2)), context.hidden)
    keep = keep_by_decile(mask, intensity) if case == "tau 0" else (~mask).float().mean((0, 1))
    expected = float(1 - context.hidden[0] / mask[0].numel())
    samples = mask.numel() / len(keep)
    assert (keep - expected).abs().max() < 4.5 * (expected * (1 - expected) / samples) ** 0.5


def test_motion_is_measured_between_whole_patches_and_for_each_person():
    joints = torch.zeros(300, 4, 25, 3)
    joints[:, :, 7] = torch.tensor([0.0, 1.0, 0.0, 1.0])[:, None]  # swings within the patch of two frames only
    joints[:, 2:, 9] = 1.0
    joints[150:] *= 1000  # its own scale
    keep = (~masks("motion", context_of(joints, (0.7, 0.7), patch=2), tau=0.2)).float().mean(1)
    for half in keep[:150].mean(0), keep[150:].mean(0):
        assert half[9] < 0.1 < half[7]
        assert float(half[7]) == pytest.approx(float(half[[0, 1, 2, 3]].mean()), abs=0.1)


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


# --- which methods they serve


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("method", [m for m, cls in all_methods().items() if cls.trains])
def test_a_strategy_serves_a_method_or_is_refused_with_the_reason(method, name, parts, batch):
    cls = all_methods()[method]
    reason = refuses(cls, name)
    assert support_matrix()[method][name] == reason
    made = parts(method, masking={"strategy": name})
    if reason and cls.accepts is not None:
        with pytest.raises(BadInput) as refused:
            build(made)
        assert all(word in str(refused.value) for word in (name, method, reason))
        return
    assert (reason is None) == (cls.accepts is not None)  # a method that masks nothing ignores the strategy
    loss = build(made).loss(batch(cls), Draws(0, 0))["loss"]
    loss.backward()
    assert torch.isfinite(loss)


def test_a_strategy_that_needs_what_a_method_lacks_is_refused():
    class Offered(all_methods()["mamp"]):
        accepts = frozenset({"patches"})

    assert refuses(Offered, "motion") is None
    assert refuses(Offered, "tube") == "it needs topology, which mamp does not offer"
    assert refuses(Offered, "none") == "mamp has no loss without hidden tokens"


def test_unknown_strategies_and_ratios_are_refused():
    with pytest.raises(BadInput, match="did you mean 'tube'"):
        strategy("tubes", MaskingConfig())
    for ratio in (0, 1, 1.5, [0.9, 0.5], [0.5], "half", [0.1, 0.5, 0.9]):
        with pytest.raises(BadInput, match="write a number in"):
            strategy("random", MaskingConfig(ratio=ratio))
    assert MaskingConfig(ratio=0.9).range() == (0.9, 0.9)
    assert replace(MaskingConfig(), ratio=(0.5, 0.9)).range() == (0.5, 0.9)
