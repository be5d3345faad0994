"""Fine-tuning: its recipes' numbers, what it learns, and what it must leave alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from methods.backbone import Block
from methods.encoder import EncoderConfig, make_encoder
from methods.optimisation import learning_rate, optimizer_for, steps_in, update_groups
from protocols import finetune
from protocols.base import accuracy, make_protocol
from protocols.finetune import RECIPES, Finetune, FinetuneConfig, classify, copied, fine_tuned
from skeletons.errors import BadInput
from skeletons.topology import KINECT_V1, KINECT_V2
from tests.protocols.labelled import QUICK, poses, settings, small_encoder, subject_of

KINDS = ("transformer", "stgcn", "pair", "aligned_pair")


def told(monkeypatch, config: FinetuneConfig, encoder=None, chiral=False):
    """What the trainer is given: (model, sampler, train configuration)."""
    seen = []

    def watched(model, sampler, config, seed, evaluators):
        seen.append((model, sampler, config))
        return [{"loss": 0.0}]

    monkeypatch.setattr(finetune, "train", watched)
    encoder = encoder or make_encoder(EncoderConfig(16, 8, 2, 4), KINECT_V2, 8)
    subject = subject_of(poses(24), encoder)
    subject = replace(subject, data=replace(subject.data, chiral=(("a", "b"),) if chiral else ()))
    fine_tuned(subject, subject.part.train, config)
    return seen[0]


def test_mamps_recipe_reaches_the_optimiser_and_the_model(monkeypatch):
    model, sampler, config = told(monkeypatch, FinetuneConfig())
    optimizer = optimizer_for(model, config)
    assert isinstance(optimizer, torch.optim.AdamW) and len(sampler.store) == 12
    update_groups(optimizer, config, 39, 780, 39, 0)  # the end of the warm-up
    given = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(given) == len(list(model.parameters()))
    for name, p in model.named_parameters():
        layer = 9 if name.startswith(("head", "encoder.norm")) else 0
        if name.startswith("encoder.blocks"):
            layer = int(name.split(".")[2]) + 1
        assert given[id(p)]["lr"] == pytest.approx(3e-4 * 0.8 ** (9 - layer)), name
        assert given[id(p)]["weight_decay"] == (0.05 if p.ndim > 1 else 0), name
        assert given[id(p)]["betas"] == (0.9, 0.999)
    steps, warmup = (steps_in(length, 48, 12, 780) for length in (config.length, config.warmup))
    assert (steps, warmup, config.batch, config.clip_norm) == (780, 39, 48, 0)
    assert learning_rate(config, 780, 780, 39) == pytest.approx(1e-5)
    drops = [module.drop for module in model.encoder.modules() if isinstance(module, Block)]
    assert drops == pytest.approx([0.3 * i / 7 for i in range(8)])
    assert model.label_smoothing == 0.1 and model.head.pooling == "mean"
    turned = sampler.augmentation.config
    assert (turned.rotation, turned.probability, turned.limited_angle) == ("limited", 1.0, 0.3)
    assert (turned.mirroring, turned.scaling) == ("none", "none")
    assert (sampler.config.crop_low, sampler.config.crop_high, sampler.labels) == (0.5, 1.0, True)


@pytest.mark.parametrize("chiral", [False, True])
@pytest.mark.parametrize(("recipe", "least"), [("mamp", 64), ("slim", 16)])
def test_views_are_the_recipes_and_chiral_classes_are_not_mirrored(recipe, least, chiral, monkeypatch):
    sampler = told(monkeypatch, FinetuneConfig(recipe=recipe), chiral=chiral)[1]
    assert sampler.config.min_frames == least and (sampler.config.crop_low, sampler.config.crop_high) == (0.5, 1)
    made = sampler.augmentation.config
    assert made.mirroring == ("aware" if recipe == "slim" and not chiral else "none")
    assert made.global_1.noise == (0.01 if recipe == "slim" else 0) and made.probability == (0.5 if least == 16 else 1)


def test_slims_recipe_reaches_the_optimiser_and_the_model(monkeypatch):
    model, _, config = told(monkeypatch, FinetuneConfig(recipe="slim"))
    optimizer = optimizer_for(model, config)
    assert isinstance(optimizer, torch.optim.SGD)
    update_groups(optimizer, config, 0, 20000, 0, 0)
    given = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for name, p in model.named_parameters():
        assert given[id(p)]["lr"] == pytest.approx(1e-3 if name.startswith("head") else 1e-5), name
        assert given[id(p)]["weight_decay"] == 1e-4 and given[id(p)]["momentum"] == 0.9
    assert (config.length, config.batch, config.warmup) == ("20000 steps", 256, "0 steps")
    assert learning_rate(config, 20000, 20000, 0) == 0
    assert model.label_smoothing == 0 and model.head.pooling == "cls+mean/sum"
    assert all(module.drop == 0 for module in model.modules() if isinstance(module, Block))


def test_what_is_set_replaces_the_recipes_value(monkeypatch):
    given = {"layer_decay": 0.5, "drop_path": 0.2, "label_smoothing": 0.0, "lr": 0.01, "lr_factor": 2.0, "batch": 7}
    model, _, config = told(monkeypatch, FinetuneConfig(recipe="slim", length="9 steps", **given, head="mamp"))
    assert (config.layer_decay, config.lr, config.lr_factor, config.batch) == (0.5, 0.01, 2.0, 7)
    assert (config.optimizer, config.length, model.label_smoothing) == ("sgd", "9 steps", 0.0)
    assert max(module.drop for module in model.modules() if isinstance(module, Block)) == pytest.approx(0.2)
    assert model.head.layers[0].out_features == 2048


@pytest.mark.parametrize(
    ("length", "clips", "expected"),
    [
        ("100 epochs", 40091, 83523),
        ("100 epochs", 376, 783),
        ("100 epochs", 10, 780),
        ("200 steps", 10, 200),
        ("480 clips", 10, 10),
    ],
)
def test_lengths(length, clips, expected):
    config = FinetuneConfig(length=length)
    assert config.steps(config.filled(), clips) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [KINECT_V2, KINECT_V1], ids=lambda body: body.name)
def test_the_encoder_is_left_as_it_was(kind, body):
    encoder = small_encoder(kind, body).train(kind == "pair")
    encoder.register_buffer("statistics", torch.randn(3), persistent=False)
    before = [(k, v.clone(), v.requires_grad) for k, v in (*encoder.named_parameters(), *encoder.named_buffers())]
    modes = [module.training for module in encoder.modules()]
    subject = subject_of(poses(12), encoder)
    found = Finetune(settings(replace(QUICK, length="2 steps", batch=4, head="mamp")))(subject)
    after = [(k, v, v.requires_grad) for k, v in (*encoder.named_parameters(), *encoder.named_buffers())]
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) and a[2] == b[2] for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for p in encoder.parameters())
    assert [module.training for module in encoder.modules()] == modes and encoder.topology == body
    assert found.predicted.shape == (6,) and ("drop path" in found.recipe) == (kind != "stgcn")


@pytest.mark.parametrize("kind", KINDS)
def test_the_copy_computes_the_same_and_can_be_trained(kind):
    encoder = small_encoder(kind).eval().requires_grad_(False)
    copy, joints = copied(encoder, KINECT_V2, 0.3).eval(), torch.randn(2, 8, 25, 3)
    torch.testing.assert_close(copy(joints).patches, encoder(joints).patches, rtol=0, atol=0)
    assert all(p.requires_grad for p in copy.parameters()) and copy.config == replace(encoder.config, drop_path=0.3)
    own = {p.data_ptr() for p in encoder.parameters()}
    assert not own & {p.data_ptr() for p in copy.parameters()}


def test_it_learns_poses_and_shuffled_labels_give_chance():
    data, config = poses(160, 8), settings(replace(QUICK, length="30 steps", batch=16, evaluations=0))
    found, training = Finetune(config)(subject_of(data)), np.arange(160) // 8 % 2 == 0
    truth = torch.from_numpy(data.labels[~training])
    assert found.metrics["top1"] == pytest.approx(100 * float((found.predicted == truth).float().mean()))
    assert found.metrics["top1"] > 80
    shuffled = data.labels.copy()
    shuffled[training] = np.random.default_rng(0).permutation(shuffled[training])
    lost = Finetune(config)(subject_of(replace(data, table={**data.table, "label": shuffled})))
    assert lost.metrics["top1"] < 40  # each pose is right or wrong as a whole, one in eight is right by chance


def test_test_labels_and_evaluations_change_no_prediction():
    data = poses(30)
    subject, quick = subject_of(data), replace(QUICK, length="6 steps")
    usual = fine_tuned(subject, subject.part.train, replace(quick, evaluations=3))
    unwatched = fine_tuned(subject, subject.part.train, replace(quick, evaluations=0))
    assert torch.equal(usual.predicted, unwatched.predicted)
    assert unwatched.best_test == accuracy(unwatched.predicted, subject.labels[1])
    label = data.labels.copy()
    label[subject.part.test] = (label[subject.part.test] + 1) % 3
    poisoned = subject_of(replace(data, table={**data.table, "label": label}))
    assert torch.equal(fine_tuned(poisoned, poisoned.part.train, quick).predicted, usual.predicted)


def test_best_test_is_the_best_of_the_moments_and_the_end(monkeypatch):
    looks = []

    def watched(*given):
        looks.append(classify(*given))
        return looks[-1]

    monkeypatch.setattr(finetune, "classify", watched)
    subject = subject_of(poses(60))
    found = Finetune(settings(replace(QUICK, length="12 steps", evaluations=4, lr=0.05)))(subject)
    seen = [accuracy(look, subject.labels[1]) for look in looks]
    assert len(seen) == 4 and len(set(seen)) > 1
    assert found.metrics == {"top1": seen[-1], "best_test": max(seen)} and torch.equal(found.predicted, looks[-1])


def test_only_the_labelled_clips_are_looked_at():
    data = poses(60)
    subject, quick = subject_of(data), replace(QUICK, length="5 steps")
    rows = subject.part.train[:9]
    usual = fine_tuned(subject, rows, quick)
    others = np.setdiff1d(np.arange(60), [*rows, *subject.part.test])
    for clip in others:
        subject.store.frames[data.offsets[clip] : data.offsets[clip + 1]] = torch.nan
    subject.store.labels[torch.from_numpy(others)] = 2
    assert torch.equal(fine_tuned(subject, rows, quick).predicted, usual.predicted)
    assert usual.steps == 5 and usual.last["step"] == 5


def test_seed_and_draw_decide(monkeypatch):
    data, quick, states = poses(30), replace(QUICK, length="3 steps"), []
    classified = classify

    def watched(model, *given):
        states.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        return classified(model, *given)

    monkeypatch.setattr(finetune, "classify", watched)
    encoder = small_encoder()
    for number, (seed, draw) in enumerate([(0, 0), (0, 0), (1, 0), (0, 1)]):
        torch.manual_seed(number)  # the global generator does not matter
        subject = subject_of(data, encoder, seed)
        fine_tuned(subject, subject.part.train, replace(quick, evaluations=0), draw)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2]) and not torch.equal(states[0], states[3])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"recipe": "mump"}, "unknown protocol.finetune.recipe 'mump'; did you mean 'mamp'"),
        ({"head": "lin"}, "unknown protocol.finetune.head 'lin'"),
        ({"batch": 0}, "protocol.finetune.batch must be at least 1"),
        ({"batch": 1, "head": "mamp"}, "protocol.finetune.batch must be at least 2"),
        ({"lr": 0.0}, "protocol.finetune.lr must be positive"),
        ({"lr_factor": -1.0}, "protocol.finetune.lr_factor must be positive"),
        ({"layer_decay": 0.0}, "protocol.finetune.layer_decay must be positive"),
        ({"weight_decay": -0.1}, "protocol.finetune.weight_decay must be at least 0"),
        ({"evaluations": -1}, "protocol.finetune.evaluations must be at least 0"),
        ({"drop_path": 1.0}, r"protocol.finetune.drop_path=1.0 must be in \[0, 1\)"),
        ({"label_smoothing": -0.1}, "protocol.finetune.label_smoothing=-0.1"),
        ({"crop_low": 1.2}, "protocol.finetune.crop_low=1.2"),
        ({"length": "long"}, "length 'long'"),
        ({"warmup": "5 percent"}, "length '5 percent'"),
    ],
)
def test_bad_settings_are_refused_when_the_protocol_is_made(setting, message):
    with pytest.raises(BadInput, match=message):
        make_protocol("finetune", settings(FinetuneConfig(**setting)))


def test_the_protocols_face():
    assert make_protocol("finetune", settings()).heading == "fine-tuned"
    assert (Finetune.raw, Finetune.pools, Finetune.seeded) == (False, False, True)
    with pytest.raises(BadInput, match="takes no argument"):
        make_protocol("finetune:0.1", settings())
    assert set(RECIPES) == {"mamp", "slim"}
