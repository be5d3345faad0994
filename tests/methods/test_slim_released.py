"""SLiM's release: its losses written out view by view, as DINOv2's stack sums and divides them, and its settings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from methods.base import build
from methods.slim import Slim
from methods.slim_released import SlimReleased
from skeletons.randomness import Draws
from sweeps.composing import compose

STUDENT, ITERATIONS = 0.1, 3


@pytest.fixture
def released(parts, reference):
    def make(**fields):
        torch.manual_seed(0)
        masking = {
            "strategy": "tube",
            "subsets": "contiguous",
            "ratio_draw": "stratified",
            "global_probability": 0.5,
            "local_probability": 1.0,
            "local_largest_area": 1.0,
        }
        model = build(parts("slim_released", **{"masking": masking, **fields})).to(torch.get_default_dtype())
        reference.scramble(model.student, 1)
        reference.scramble(model.teacher, 2)
        return model

    return make


@pytest.fixture
def multi(batch):
    made = batch(SlimReleased)
    return {name: replace(b, joints=b.joints.to(torch.get_default_dtype())) for name, b in made.items()}


def scores(head, tokens):
    x, prototypes = head.mlp(tokens), head.weight
    return (x / x.norm(dim=-1, keepdim=True)) @ (prototypes / prototypes.norm(dim=-1, keepdim=True)).T


def assigned(rows: torch.Tensor, temperature: float) -> torch.Tensor:
    """DINOv2's Sinkhorn-Knopp on prototypes x rows."""
    q = torch.exp(rows / temperature).T
    q = q / q.sum()
    for _ in range(ITERATIONS):
        q = q / q.sum(1, keepdim=True) / len(q)
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


def entropy(target: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Mean over rows."""
    return -(target * torch.log_softmax(rows / STUDENT, -1)).sum(-1).mean()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("progress", "temperature"), [(0.0, 0.04), (0.1, 0.055), (0.5, 0.07)])
def test_losses_are_the_releases(released, multi, progress, temperature):
    model, draws = released(), Draws(0, 5)
    model.before_step(progress)
    views = multi["global"]
    x, clips = views.joints[:, 0], len(views) // 2
    with torch.no_grad():
        found = model.loss(multi, draws)
        mask, _ = model.mask_global(views, model.encoder, draws.fork("global"))
        teacher, student = model.teacher.encoder(x), model.student.encoder(x, hidden=mask)
        masked = mask.flatten(1).any(1)
        assert int(masked.sum()) == clips  # half of the global views
        at = mask.flatten(1).nonzero()
        mine = scores(model.student.patch_head, student.patches.flatten(1, 2)[at[:, 0], at[:, 1]])
        theirs = scores(model.teacher.patch_head, teacher.patches.flatten(1, 2)[at[:, 0], at[:, 1]])
        targets = assigned(theirs, temperature)
        ibot = x.new_zeros(())
        for view in range(2 * clips):
            own = at[:, 0] == view
            if own.any():
                ibot = ibot + entropy(targets[own], mine[own])
        ibot = ibot / (2 * clips) * 2 * 0.5  # over all views; times loss_scales, times 1 / n_global_crops

        anchors = assigned(scores(model.teacher.cls_head, teacher.cls), temperature).chunk(2)
        crops = []
        for name in ("local8", "local4"):
            local = multi[name]
            hidden, context = model.mask_local(local, model.encoder, draws.fork(name))
            assert hidden.flatten(1).any(1).all()
            assert (context.hidden.diff() >= -1).all()  # ratios in the batch's order, not shuffled
            cls = model.student.encoder(local.joints[:, 0], hidden=hidden).cls
            crops += list(scores(model.student.cls_head, cls).chunk(local.views))
        terms = 2 + 2 * len(crops)
        dino = sum(entropy(anchor, crop) for anchor in anchors for crop in crops) / terms
        one, two = scores(model.student.cls_head, student.cls).chunk(2)
        dino = dino + (entropy(anchors[1], one) + entropy(anchors[0], two)) / 2 * 2 / terms
        unit = torch.nn.functional.normalize(student.cls, dim=-1)
        spread = x.new_zeros(())
        for half in unit.chunk(2):
            near = (half @ half.T).fill_diagonal_(-2).argmax(1)
            spread = spread - (((half - half[near]).square().sum(1)).sqrt() + 1e-6).log().mean()
    torch.testing.assert_close(found["mfm"], ibot, rtol=1e-10, atol=0)
    torch.testing.assert_close(found["glcl"], dino, rtol=1e-10, atol=0)
    torch.testing.assert_close(found["koleo"], spread, rtol=1e-4, atol=0)
    torch.testing.assert_close(found["loss"], ibot + dino + 0.1 * found["koleo"], rtol=1e-10, atol=0)


def test_it_is_slim_with_other_settings_only():
    own = {name for name in vars(SlimReleased) if not name.startswith("__")}
    assert SlimReleased.__base__ is Slim and own <= {"name", "Config", "_abc_impl"}


def test_with_the_papers_settings_it_is_slim_to_the_bit(parts, batch):
    same = {"masked_globals": False, "every_local": False, "mfm_views": "masked", "temperature_warmup": 0.0}
    losses = []
    for name, method in (("slim", {}), ("slim_released", same)):
        torch.manual_seed(0)
        model = build(parts(name, method=method, masking={"strategy": "tube"}))
        model.before_step(0.0)
        losses.append(model.loss(batch(model), Draws(0, 0))["loss"])
    assert torch.equal(*losses)


def test_the_teachers_temperature_grows_over_a_fifth_of_the_run(released, parts):
    model = released()
    seen = []
    for progress in (0.0, 0.05, 0.1, 0.2, 0.9):
        model.before_step(progress)
        seen.append(model.teacher_temperature)
    assert seen == pytest.approx([0.04, 0.0475, 0.055, 0.07, 0.07])
    plain = build(parts("slim"))
    plain.before_step(0.0)
    assert plain.teacher_temperature == 0.07


def test_a_stopped_run_knows_its_temperature_again(released, multi):
    """It is a function of progress alone, so nothing of it has to be kept."""
    first, second = released(), released()
    for progress in (0.0, 0.05, 0.1):
        first.before_step(progress)
    second.load_state_dict(first.state_dict())
    second.before_step(0.1)
    assert torch.equal(first.loss(multi, Draws(0, 2))["loss"], second.loss(multi, Draws(0, 2))["loss"])


def test_its_settings_are_the_releases():
    config = compose(["method=slim_released", "scale=paper", "data=ntu60"])
    assert config.backbone.hidden_width() == 688 and config.backbone.mlp == "swiglu"
    assert [(v.frames, v.crops) for v in config.views.locals] == [(32, 1), (16, 2), (8, 1)]
    assert config.train.batch == 768 and config.train.length == "187500 steps"
    frozen = round(float(config.train.freeze_last.split()[0]) * 187500)
    assert frozen == 1250 and config.method.temperature_warmup * 150 == 30
    assert (config.augment.yaw, config.augment.tilt) == (0.3, 0.3)
    corruption = config.augment.global_2
    assert (corruption.noise, corruption.noise_probability, corruption.axis_drop) == (0.05, 0.1, 0.2)


def test_matched_it_differs_from_slim_in_masks_views_and_losses_only():
    released, slim = (
        compose([f"method={name}", "setting=matched", "scale=paper"]) for name in ("slim_released", "slim")
    )
    assert (released.backbone, released.train, released.augment) == (slim.backbone, slim.train, slim.augment)
    assert released.masking != slim.masking and released.views != slim.views
