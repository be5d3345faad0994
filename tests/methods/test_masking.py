"""Masking strategies: their draws, what they look at, which views they mask, and which methods they serve."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from methods.base import all_methods, build, refuses, support_matrix
from methods.masking import MaskingConfig, strategy
from methods.masking.views import ViewMasking
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch
from skeletons.topology import KINECT_V2
from tests.methods.masked import MASKED, STRATEGIES, context_of, masks


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


def test_inverted_motion_masking_hides_what_rests():
    joints = torch.zeros(2000, 8, 25, 3)
    joints[:, :, :5] = 0.1 * torch.arange(8.0)[:, None, None]  # five joints move, the others rest
    rates = {}
    for name in ("motion", "motion_inverted"):
        often = masks(name, context_of(joints, (0.5, 0.5))).float().mean((0, 1))
        rates[name] = float(often[:5].mean() - often[5:].mean())
    assert rates["motion"] > 0.1 and rates["motion_inverted"] < -0.1


# --- which views of a group


def grouped(views: int, clips: int, persons: int = 1) -> Batch:
    joints = torch.randn(views * clips, persons, 8, 25, 3)
    seen = torch.ones(joints.shape[:-1], dtype=torch.bool)
    return Batch(joints, seen, torch.ones(views * clips, persons, dtype=torch.bool), views)


@pytest.fixture
def patchless(parts):
    """An encoder with patches of one frame."""
    return build(parts("slim", backbone={"patch": 1})).encoder


@pytest.mark.parametrize(("shuffled", "probability"), [(True, 1.0), (True, 0.5), (False, 1.0), (False, 0.5)])
def test_strata_cover_the_range_in_every_batch(shuffled, probability, patchless):
    """In the batch's order, but where only some views are masked: they would all be of the first anchor."""
    config = MaskingConfig(strategy="random", ratio=[0.5, 0.9], ratio_draw="stratified")
    masking = ViewMasking(strategy("random", config), config, probability, shuffled)
    mask, context = masking(grouped(4, 10), patchless, Draws(0, 0, "global"))
    counts = mask.sum((1, 2))
    masked = counts > 0
    count = int(40 * probability)
    shuffled = shuffled or probability < 1
    assert int(masked.sum()) == count
    edges = 200 * (0.5 + 0.4 * torch.arange(count + 1) / count)
    inside = counts[masked].sort().values if shuffled else counts[masked]
    assert (inside >= edges[:-1].floor()).all() and (inside <= edges[1:]).all()
    assert torch.equal(counts, context.hidden)
    if shuffled:
        assert not torch.equal(inside, counts[masked])
        assert not torch.equal(masking(grouped(4, 10), patchless, Draws(0, 1, "global"))[1].hidden, context.hidden)
        assert masked[:20].any() and masked[20:].any()
    else:
        assert masked[:count].all()


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
