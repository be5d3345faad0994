"""What a step does with gradients: lengths, rates and their schedules, groups of weights, optimisers, clipping."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from methods.base import build
from methods.optimisation import clip_gradients, learning_rate, update_groups
from methods.trainer import optimizer_for, rate, steps_in
from skeletons.errors import BadInput
from tests.methods.short_runs import OFTEN, SHORT, same_weights, without_speed

# --- lengths and rates


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        ("187500 steps", 187500),
        ("20 epochs", 200),
        ("1.5 epochs", 15),
        ("38000 clips", 3800),
        ("0.1 run", 500),
        ("0 steps", 0),
        (" 7 steps ", 7),
    ],
)
def test_lengths_are_said_in_steps_epochs_clips_or_shares_of_the_run(length, steps):
    assert steps_in(length, batch=10, clips=100, run=5000) == steps


@pytest.mark.parametrize(
    "length", ["", "20", "20 epoch", "epochs 20", "-1 steps", "many steps", "nan steps", "inf steps"]
)
def test_a_length_that_says_nothing_is_refused(length):
    with pytest.raises(BadInput, match="write a number and one of steps, epochs, clips, run"):
        steps_in(length, 10, 100, 5000)


def test_the_length_of_the_run_itself_is_no_share():
    with pytest.raises(BadInput, match=r"one of steps, epochs, clips, e\.g\."):
        steps_in("0.1 run", 10, 100)


def test_rate_warms_up_linearly_and_falls_along_a_cosine():
    rates = [rate(step, 110, 10, 1.0, 0.2) for step in range(110)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10:] == pytest.approx([0.2 + 0.8 * (1 + math.cos(math.pi * i / 100)) / 2 for i in range(100)])
    assert rate(110, 110, 10, 1.0, 0.2) == pytest.approx(0.2)
    assert rate(0, 5, 0, 1.0, 0.2) == 1.0


def test_the_rate_of_a_step_schedule_falls_tenfold_at_each_drop():
    config = dataclasses.replace(SHORT, schedule="step", drops=[0.5, 250 / 300], lr=0.1, lr_factor=2)
    rates = [learning_rate(config, step, 300, 2) for step in range(300)]
    assert rates[:2] == pytest.approx([0.1, 0.2])
    assert rates[2:150] == pytest.approx([0.2] * 148)
    assert rates[150:250] == pytest.approx([0.02] * 100)
    assert rates[250:] == pytest.approx([0.002] * 50)


def test_the_square_root_rule_is_for_1024_clips():
    config = dataclasses.replace(SHORT, lr=2e-4, batch=768, lr_rule="sqrt1024", min_lr=1e-6)
    assert learning_rate(config, 0, 100, 0) == pytest.approx(2e-4 * math.sqrt(768 / 1024))  # the release's 1.73e-4
    assert learning_rate(config, 100, 100, 0) == pytest.approx(1e-6)  # DINOv2 scales the top rate only


def test_optimizer_follows_its_schedules(run, monkeypatch):
    seen = []
    step = torch.optim.AdamW.step

    def watched(self, *args, **kwargs):
        seen.append([(g["lr"], g["weight_decay"], g["betas"]) for g in self.param_groups])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    config = dataclasses.replace(SHORT, lr_factor=4, weight_decay=0.04, weight_decay_end=0.2, beta2=0.95)
    _, lines = run(config=config)
    assert len(seen) == 12
    for i, (decaying, other) in enumerate(seen):
        assert decaying[0] == other[0] == pytest.approx(4 * rate(i, 12, 3, 1e-3, 1e-6))
        assert decaying[1] == pytest.approx(rate(i, 12, 0, 0.04, 0.2)) and other[1] == 0
        assert decaying[2] == (0.9, 0.95)
    assert seen[0][0][1] == pytest.approx(0.04)
    assert [line["lr"] for line in lines] == [seen[line["step"] - 1][0][0] for line in lines]


# --- groups of weights


def test_weights_and_embeddings_decay_and_biases_and_norms_do_not(parts):
    model = build(parts("slim"))
    decaying, others = optimizer_for(model, SHORT).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    decaying, others = ({names[id(p)] for p in group["params"]} for group in (decaying, others))
    student = {n for n, p in model.named_parameters() if p.requires_grad}
    assert decaying | others == student and not decaying & others
    assert all(n.endswith("bias") or ".norm" in n for n in others)
    assert not any(n.endswith("bias") or ".norm" in n for n in decaying)
    assert any(n.endswith("encoder.joint") for n in decaying)


def test_default_settings_make_the_two_groups_of_old_checkpoints(parts):
    groups = optimizer_for(build(parts("slim")), SHORT).param_groups
    assert [g["decays"] for g in groups] == [True, False]
    assert not any({"share", "last"} & set(g) for g in groups)


def test_rates_fall_towards_the_input_and_the_patch_embedding_has_its_own(parts):
    model = build(parts("slim", backbone={"depth": 3}))
    names = {id(p): name for name, p in model.named_parameters()}
    config = dataclasses.replace(SHORT, layer_decay=0.5, patch_embed_rate=0.2, encoder_rate=0.3)
    optimizer = optimizer_for(model, config)
    update_groups(optimizer, config, 3, 12, 3, 0)
    rates = {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert set(rates) == {n for n, p in model.named_parameters() if p.requires_grad}
    below = {"embed": 4, "joint": 4, "prefix": 4, "mask_token": 4, "blocks.0": 3, "blocks.1": 2, "blocks.2": 1}
    for name, found in rates.items():
        inner = name.removeprefix("student.encoder.")
        depth = next((d for start, d in below.items() if inner.startswith(start)), 0) if inner != name else 0
        share = 0.5**depth * (0.2 if inner.startswith("embed.") else 1) * (0.3 if inner != name else 1)
        assert found == pytest.approx(1e-3 * share), name


def test_last_layers_rest_for_as_long_as_they_are_frozen(run):
    seen = []

    class Watched(torch.optim.AdamW):
        def step(self, closure=None):
            super().step(closure)
            seen.append([float(p.detach().sum()) for g in self.param_groups if g.get("last") for p in g["params"]])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Watched)
        run("slim", dataclasses.replace(SHORT, freeze_last="0.25 run"))
    assert len(seen) == 12 and len(seen[0]) == 2  # the prototypes of both heads
    assert seen[0] == seen[1] == seen[2]
    assert all(before != after for before, after in zip(seen[2], seen[3]))


# --- optimisers and clipping


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_sgd_and_adam_are_torchs_with_an_l2_term(name, parts):
    torch.manual_seed(0)
    model = build(parts("mamp"))
    plain = [p.detach().clone().requires_grad_() for p in model.parameters()]
    kinds = {
        "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
        "adam": lambda p: torch.optim.Adam(p, 0.1, betas=(0.9, 0.95), weight_decay=0.01),
    }
    decays = {"weight_decay": 0.01, "weight_decay_end": 0.01, "decays": "all"}
    config = dataclasses.replace(SHORT, optimizer=name, lr=0.1, min_lr=0.1, beta2=0.95, **decays)
    ours, expected = optimizer_for(model, config), kinds[name](plain)
    assert [p for g in ours.param_groups if not g["decays"] for p in g["params"]] == []
    for step in range(3):
        update_groups(ours, config, step, 3, 0, 0)
        for p, q in zip(model.parameters(), plain):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        ours.step()
        expected.step()
    for p, q in zip(model.parameters(), plain):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_as_one_or_module_by_module(parts):
    model = build(parts("slim"))
    whole = dataclasses.replace(SHORT, clip_norm=0.5)
    optimizer = optimizer_for(model, whole)

    def norms():
        return [torch.stack([p.grad.norm() for p in m.parameters()]).norm() for m in model.student.children()]

    for clip_per in ("all", "module"):
        for number, module in enumerate(model.student.children()):
            for p in module.parameters():
                p.grad = torch.full_like(p, (1e-4, 1.0, 2.0)[number])
        before = torch.stack(norms())
        norm = clip_gradients(model, optimizer, dataclasses.replace(whole, clip_per=clip_per))
        torch.testing.assert_close(norm, before.norm())
        expected = before.clamp(max=0.5) if clip_per == "module" else before * 0.5 / before.norm()
        torch.testing.assert_close(torch.stack(norms()), expected, rtol=1e-4, atol=0)


OTHERWISE = {
    "sgd": {"optimizer": "sgd", "decays": "all", "schedule": "step", "drops": [0.6]},
    "adam": {"optimizer": "adam", "lr_rule": "sqrt1024"},
    "release": {"patch_embed_rate": 0.2, "layer_decay": 0.9, "freeze_last": "7 steps", "clip_per": "module"},
}


@pytest.mark.parametrize("settings", OTHERWISE)
def test_every_optimiser_goes_on_where_it_was(settings, run, tmp_path):
    changed = OTHERWISE[settings]
    whole, lines = run("slim", dataclasses.replace(SHORT, **changed))
    run("slim", dataclasses.replace(OFTEN, **changed), tmp_path, stop=6)
    continued, resumed = run("slim", dataclasses.replace(OFTEN, **changed), tmp_path)
    assert same_weights(whole, continued) and without_speed(resumed) == without_speed(lines)
    assert not same_weights(whole, run("slim")[0])


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"precision": "fp16"}, "train.precision"),
        ({"batch": 0}, "train.batch=0"),
        ({"lr": -1.0}, "train.lr=-1.0"),
        ({"optimizer": "adm"}, "did you mean 'adam'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"lr_rule": "sqrt"}, "train.lr_rule"),
        ({"clip_per": "modul"}, "did you mean 'module'"),
        ({"decays": "none"}, "train.decays"),
        ({"layer_decay": 0.0}, "train.layer_decay=0.0"),
        ({"drops": [0.5]}, "needs train.schedule=step"),
        ({"schedule": "step", "drops": [250.0]}, "shares of the run"),
        ({"freeze_last": "1250"}, "write a number and one of"),
    ],
)
def test_settings_that_cannot_be_trained_with_are_refused(field, message, run):
    with pytest.raises(BadInput, match=message):
        run(config=dataclasses.replace(SHORT, **field))
