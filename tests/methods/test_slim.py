"""SLiM against its formulas, written out view by view, and its teacher."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from methods.base import TeacherConfig, build
from methods.losses import koleo
from methods.masking import mask_context, observed_patches
from methods.slim import Slim
from skeletons.augment import Augmentation, AugmentConfig
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import ClipTensors, Sampler, ViewConfig

STUDENT, TEACHER, ITERATIONS = 0.1, 0.07, 3


@pytest.fixture
def slim(parts, reference):
    """Makes a SLiM whose student and teacher have different, large weights."""

    def make(**fields):
        torch.manual_seed(0)
        model = build(parts("slim", **{"masking": {"strategy": "tube"}, **fields})).to(torch.get_default_dtype())
        reference.scramble(model.student, 1)
        reference.scramble(model.teacher, 2)
        return model

    return make


@pytest.fixture
def multi(batch):
    """Its views; some tokens of the first clip are not observed."""
    made = batch(Slim)
    made["global"].observed[0, :, :9, 3:7] = False
    return {name: replace(b, joints=b.joints.to(torch.get_default_dtype())) for name, b in made.items()}


def rows_of(head, tokens):
    """Cosines with every prototype, rows x K."""
    x, prototypes = head.mlp(tokens), head.weight
    return (x / x.norm(dim=-1, keepdim=True)) @ (prototypes / prototypes.norm(dim=-1, keepdim=True)).T


def assignment(scores: torch.Tensor) -> list[torch.Tensor]:
    """Sinkhorn-Knopp on the full matrix, DINOv2's steps in turn."""
    q = torch.exp(scores / TEACHER)
    rows, k = q.shape
    q = q / q.sum()
    for _ in range(ITERATIONS):
        q = q / q.sum(0, keepdim=True) / k
        q = q / q.sum(1, keepdim=True) / rows
    return list(q * rows)


def cross_entropy(target: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    logits = scores / STUDENT
    return -(target * (logits - logits.exp().sum().log())).sum()


def mask_of(model, batch, strategy, draws):
    context = mask_context(batch, 4, model.topology, (0.5, 0.9), draws)
    return strategy.masking(context, draws.fork("mask")), context


def literal_mfm(model, multi, draws):
    batch = multi["global"]
    mask, _ = mask_of(model, batch, model.mask_global, draws.fork("global"))
    student = model.student.encoder(batch.joints[:, 0], hidden=mask).patches
    teacher = model.teacher.encoder(batch.joints[:, 0]).patches
    seen = observed_patches(batch.observed[:, 0], 4)
    at = [(v, t, j) for v, t, j in mask.nonzero().tolist() if seen[v, t, j]]
    assert len(at) < int(mask.sum())  # some hidden tokens were never observed
    targets = assignment(torch.stack([rows_of(model.teacher.patch_head, teacher[i]) for i in at]))
    of_view: dict[int, list[torch.Tensor]] = {}
    for i, q in zip(at, targets):
        of_view.setdefault(i[0], []).append(cross_entropy(q, rows_of(model.student.patch_head, student[i])))
    assert len({len(terms) for terms in of_view.values()}) > 1
    return sum(sum(terms) / len(terms) for terms in of_view.values()) / len(of_view)


def literal_glcl(model, multi, draws, local_masks=True):
    batch = multi["global"]
    clips = len(batch) // 2
    if model.config.masked_globals:
        mask, _ = mask_of(model, batch, model.mask_global, draws.fork("global"))
        globals_ = model.student.encoder(batch.joints[:, 0], hidden=mask).cls
    else:
        globals_ = model.student.encoder(batch.joints[:, 0]).cls
    anchors = assignment(rows_of(model.teacher.cls_head, model.teacher.encoder(batch.joints[:, 0]).cls))
    locals_ = {}
    for name in ("local8", "local4"):
        local, hidden = multi[name], None
        if local_masks:
            mask, context = mask_of(model, local, model.mask_local, draws.fork(name))
            applied = context.uniform(draws.fork(name, "applied")) < 0.5
            assert applied.any() and not applied.all()
            hidden = torch.stack([m if a else torch.zeros_like(m) for m, a in zip(mask, applied)])
        locals_[name] = model.student.encoder(local.joints[:, 0], hidden=hidden).cls
    terms = []
    for anchor in range(2):
        for clip in range(clips):
            q = anchors[anchor * clips + clip]
            compared = [globals_[(1 - anchor) * clips + clip]]
            compared += [locals_["local8"][v * clips + clip] for v in ((0, 1), (2, 3))[anchor]]
            compared += [locals_["local4"][anchor * clips + clip]]
            terms += [cross_entropy(q, rows_of(model.student.cls_head, token)) for token in compared]
    assert len(terms) == 2 * 4 * clips
    return sum(terms) / len(terms), globals_


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("released", [False, True])
def test_losses_equal_a_literal_loop_over_views(slim, multi, released):
    model = slim(method={"masked_globals": released, "lambda_glcl": 0.7, "koleo": 0.2})
    draws = Draws(0, 5)
    with torch.no_grad():
        found = model.loss(multi, draws)
        mfm = literal_mfm(model, multi, draws)
        glcl, cls = literal_glcl(model, multi, draws)
        spread = koleo(cls[: len(cls) // 2]) + koleo(cls[len(cls) // 2 :])
    for name, expected in (("mfm", mfm), ("glcl", glcl), ("koleo", spread)):
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(found["loss"], mfm + 0.7 * glcl + 0.2 * spread, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("double")
def test_without_a_masked_global_view_there_is_no_masked_term(slim, multi):
    model = slim(masking={"strategy": "tube", "global_view": "none"})
    assert model.student.patch_head is None and model.teacher.patch_head is None
    draws = Draws(0, 5)
    with torch.no_grad():
        found = model.loss(multi, draws)
        glcl, _ = literal_glcl(model, multi, draws)
    assert "mfm" not in found and "masked" not in found
    torch.testing.assert_close(found["glcl"], glcl, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("double")
def test_local_views_are_masked_only_where_a_strategy_is_named(slim, multi):
    model = slim(masking={"strategy": "tube", "local_view": "none"})
    draws = Draws(0, 5)
    with torch.no_grad():
        found = model.loss(multi, draws)
        unmasked, _ = literal_glcl(model, multi, draws, local_masks=False)
        mfm = literal_mfm(model, multi, draws)
    torch.testing.assert_close(found["glcl"], unmasked, rtol=0, atol=1e-9)
    torch.testing.assert_close(found["mfm"], mfm, rtol=0, atol=1e-9)


def test_an_encoder_that_is_never_masked_has_no_mask_token(slim):
    assert slim(masking={"strategy": "none"}).encoder.mask_token is None
    assert slim(masking={"strategy": "none", "local_view": "tube"}).encoder.mask_token is not None
    assert slim(masking={"strategy": "none", "local_view": "tube"}, method={"mfm": False}).student.patch_head is None


@pytest.mark.parametrize(("off", "left"), [("glcl", {"mfm", "masked"}), ("mfm", {"glcl", "koleo"})])
def test_losses_are_switched_off_whole(slim, multi, off, left):
    model = slim(method={off: False})
    found = model.loss(multi, Draws(0, 0))
    assert set(found) == {"loss"} | left
    head = {"glcl": "cls_head", "mfm": "patch_head"}[off]
    assert getattr(model.student, head) is None


def test_a_view_without_hidden_tokens_has_no_say(slim):
    model = slim()
    student, teacher = torch.randn(3, 4, 25, 16), torch.randn(3, 4, 25, 16)
    hidden = torch.rand(3, 4, 25) < 0.3
    hidden[1] = False
    two = torch.tensor([0, 2])
    torch.testing.assert_close(
        model._mfm(student, teacher, hidden), model._mfm(student[two], teacher[two], hidden[two]), rtol=1e-5, atol=0
    )
    assert model._mfm(student, teacher, torch.zeros_like(hidden)) == 0


def test_local_views_lie_inside_the_interval_of_their_own_anchor(bodies):
    clips = bodies()
    frame = np.arange(len(clips.frames)) - np.repeat(clips.offsets[:-1], clips.lengths)
    numbered = replace(
        clips,
        frames=np.broadcast_to(frame[:, None, None, None], clips.frames.shape).astype(np.float32).copy(),
        origin=np.zeros_like(clips.origin),
    )
    plain = Augmentation(AugmentConfig("none", "none", "none"), clips.topology)
    config = ViewConfig(min_frames=4)
    sampler = Sampler(ClipTensors(numbered), config, plain, Slim.crops, Slim.local_views, Slim.one_person)
    apart = 0
    for step in range(20):
        made = sampler(torch.arange(len(clips)), Draws(0, step))
        time = {name: b.joints[:, 0, :, 0, 0].unflatten(0, (b.views, -1)) for name, b in made.items()}
        low, high = time["global"].amin(2), time["global"].amax(2)
        for name in ("local32", "local16", "local8"):
            assert time[name].shape[0] == 4  # two crops of each anchor, the first anchor's first
            for view, crop in enumerate(time[name]):
                inside = [(crop.amin(1) >= low[a]) & (crop.amax(1) <= high[a]) for a in range(2)]
                assert inside[view // 2].all()
                apart += int((~inside[1 - view // 2]).sum())
    assert apart > 0  # so that taking the other anchor's would have been noticed


# --- the teacher


def test_the_teacher_starts_as_the_student_and_follows_it(parts):
    model = build(parts("slim"))
    assert all(torch.equal(a, b) for a, b in zip(model.student.parameters(), model.teacher.parameters()))
    assert model.kept is model.teacher.encoder and model.encoder is model.student.encoder
    with torch.no_grad():
        for p in model.student.parameters():
            p += torch.randn_like(p)
    before = [p.clone() for p in model.teacher.parameters()]
    model.after_step(0.25)
    m = model.momentum.at(0.25, 100)
    assert 0.994 < m < 1
    for old, student, new in zip(before, model.student.parameters(), model.teacher.parameters()):
        torch.testing.assert_close(new, m * old + (1 - m) * student, rtol=0, atol=1e-6)
    after = [p.clone() for p in model.teacher.parameters()]
    model.after_step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(after, model.teacher.parameters()))


def test_momentum_grows_from_0994_to_1_along_a_cosine():
    teacher = TeacherConfig()
    expected = [1 - 0.006 * (math.cos(math.pi * x) + 1) / 2 for x in (0, 0.2, 0.5, 1)]
    assert [teacher.at(x, 187500) for x in (0, 0.2, 0.5, 1)] == pytest.approx(expected, abs=1e-12)
    assert expected[0] == 0.994 and expected[2] == pytest.approx(0.997) and expected[3] == 1


@pytest.mark.parametrize("steps", [50, 1000])
def test_half_life_is_a_share_of_the_run(steps):
    momentum = TeacherConfig(half_life=0.1).at(0, steps)
    assert momentum ** (0.1 * steps) == pytest.approx(0.5)


def test_the_teacher_gets_no_gradient_and_no_stochastic_depth(parts, batch):
    model = build(parts("slim", backbone={"drop_path": 0.5})).train()
    assert model.student.encoder.training and not model.teacher.encoder.training
    views = batch(model)
    model.loss(views, Draws(0, 0))["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    assert not model.eval().student.training


def test_heads_are_separate(parts):
    model = build(parts("slim"))
    assert model.student.cls_head is not model.student.patch_head
    assert not torch.equal(model.student.cls_head.weight, model.student.patch_head.weight)


def test_an_encoder_without_a_class_token_cannot_be_compared_by_it(parts):
    with pytest.raises(BadInput, match=r"backbone\.kind=stgcn has none"):
        build(parts("slim", backbone={"kind": "stgcn"}, masking={"strategy": "none"}))
