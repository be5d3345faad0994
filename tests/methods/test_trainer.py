"""The training loop: its lengths and rates, and that nothing but the seed decides what comes out."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import runpy
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from methods.backbone import Transformer
from methods.base import Method, all_methods, build, method_class
from methods.checkpoint import load_encoder
from methods.encoder import EncoderConfig
from methods.optimisation import clip_gradients, learning_rate, update_groups
from methods.trainer import (
    TrainConfig,
    TrainingFailed,
    batch_clips,
    collapse_watch,
    optimizer_for,
    rate,
    steps_in,
    train,
)
from skeletons.clips import Clips, write_store
from skeletons.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]
SHORT = TrainConfig(length="12 steps", batch=4, lr=1e-3, warmup="0.25 run", log_every=2, evaluations=3)
OFTEN = dataclasses.replace(SHORT, checkpoint_seconds=0)


class Stopped(Exception):
    pass


@pytest.fixture
def run(parts, sampler):
    """Trains a small method from the seed's weights; stops after the metrics of step `stop`."""

    def make(name="mamp", config=SHORT, folder=None, stop=None, seed=0, **kwargs):
        torch.manual_seed(seed)
        model = build(parts(name, backbone={"drop_path": 0.2}))

        def told(step, steps, metrics):
            if step == stop:
                raise Stopped

        try:
            lines = train(model, sampler(model), config, seed, folder, progress=told, **kwargs)
        except Stopped:
            return model, None
        return model, lines

    return make


def same_weights(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def without_speed(lines):
    return [{k: v for k, v in line.items() if k != "clips_per_second"} for line in lines]


# --- lengths, rates, orders


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


@pytest.mark.parametrize(("batch", "clips"), [(4, 12), (5, 12), (30, 12), (1, 3)])
def test_each_clip_is_seen_once_a_pass(batch, clips):
    cache: dict = {}
    steps = math.lcm(batch, clips) // batch * 2
    rows = torch.cat([batch_clips(step, batch, clips, 0, cache) for step in range(steps)])
    passes = rows.view(-1, clips)
    assert all(sorted(p.tolist()) == list(range(clips)) for p in passes)
    assert len({tuple(p.tolist()) for p in passes}) > 1
    again = torch.cat([batch_clips(step, batch, clips, 0) for step in range(steps)])  # knowing no earlier step
    assert torch.equal(rows, again)
    if clips > 3:
        assert not torch.equal(rows[:clips], torch.cat([batch_clips(s, 1, clips, 1) for s in range(clips)]))


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


# --- what is logged


def test_lines_evaluators_and_the_collapse_watch(run, sampler):
    asked = []

    def evaluator(encoder, step):
        assert not encoder.training
        asked.append((encoder, step))
        yield "knn", 10.0 * step

    model, lines = run("slim", evaluators=[evaluator])
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert [step for _, step in asked] == [4, 8, 12]
    assert all(encoder is model.kept for encoder, _ in asked)
    for line in lines:
        assert {"loss", "mfm", "glcl", "koleo", "lr", "grad_norm", "clips_per_second"} <= set(line)
        evaluated = line["step"] in (4, 8, 12)
        assert line.get("knn") == (10.0 * line["step"] if evaluated else None)
        assert all((name in line) == evaluated for name in ("feature_spread", "feature_rank"))
    assert model.training
    now = dict(collapse_watch(model.eval().kept, sampler(model)))
    assert {name: lines[-1][name] for name in now} == now  # of the teacher, in evaluation mode


def test_a_method_is_told_before_and_after_each_step_how_far_the_run_is(run, monkeypatch, tmp_path):
    told = []
    slim = method_class("slim")
    after = slim.after_step
    monkeypatch.setattr(slim, "before_step", lambda self, progress: told.append(("before", progress)))
    monkeypatch.setattr(
        slim, "after_step", lambda self, progress: (told.append(("after", progress)), after(self, progress))
    )
    expected = [t for i in range(12) for t in (("before", i / 12), ("after", (i + 1) / 12))]
    run("slim")
    assert told == expected
    run("slim", OFTEN, tmp_path, stop=6)
    told.clear()
    run("slim", OFTEN, tmp_path)
    assert told == expected[10:]  # the last checkpoint is of step 5


def test_evaluations_change_no_weight(run):
    def evaluator(encoder, step):
        torch.rand(5)
        yield "x", 0.0

    with_many, _ = run("slim", dataclasses.replace(SHORT, evaluations=12), evaluators=[evaluator])
    with_none, _ = run("slim", dataclasses.replace(SHORT, evaluations=0))
    assert same_weights(with_many, with_none)


def test_the_collapse_watch_sees_a_collapse(parts, sampler):
    model = build(parts("mamp"))
    healthy = dict(collapse_watch(model.kept, sampler(model)))
    with torch.no_grad():
        model.encoder.embed.weight.zero_()
    collapsed = dict(collapse_watch(model.kept, sampler(model)))
    assert collapsed["feature_spread"] < 1e-3 < healthy["feature_spread"]
    assert collapsed["feature_rank"] < 1.5 < healthy["feature_rank"]


@pytest.mark.parametrize("name", [name for name, cls in all_methods().items() if cls.trains])
def test_bfloat16_trains_about_as_float32_and_keeps_float32_weights(name, run):
    (model, half), (_, full) = (run(name, dataclasses.replace(SHORT, precision=p)) for p in ("bf16", "fp32"))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert half[0]["loss"] == pytest.approx(full[0]["loss"], rel=0.1)
    assert half[0]["loss"] != full[0]["loss"]


def test_metrics_are_a_file_of_json_lines(run, tmp_path):
    _, lines = run(folder=tmp_path)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == lines
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "metrics.jsonl"]


# --- interrupted and continued


@pytest.mark.parametrize("name", ["slim", "slim_released", "mamp", "supervised"])
def test_an_interrupted_run_ends_as_an_undisturbed_one(name, run, tmp_path):
    whole, lines = run(name)
    run(name, OFTEN, tmp_path, stop=6)  # the last checkpoint is of step 5: stopped before step 6 was saved
    run(name, OFTEN, tmp_path, stop=10)
    continued, resumed = run(name, OFTEN, tmp_path)
    assert same_weights(whole, continued)
    assert without_speed(resumed) == without_speed(lines)
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert without_speed(written) == without_speed(lines)


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


def test_a_finished_run_is_not_trained_again(run, tmp_path):
    whole, lines = run(folder=tmp_path)
    again, same = run(folder=tmp_path)
    assert same_weights(whole, again) and same == lines


def test_the_seed_decides(run):
    (first, _), (second, _), (other, _) = run(), run(), run(seed=1)
    assert same_weights(first, second) and not same_weights(first, other)


def test_a_checkpoint_of_another_run_is_refused(run, tmp_path):
    run(folder=tmp_path, config=OFTEN, stop=4, identity="mamp-1")
    with pytest.raises(BadInput, match="another run \\(mamp-1\\); choose another folder"):
        run(folder=tmp_path, identity="mamp-2")


def test_a_damaged_checkpoint_is_refused_in_one_line(run, tmp_path):
    run(folder=tmp_path, config=OFTEN, stop=4)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BadInput, match="damaged checkpoint") as refused:
        run(folder=tmp_path)
    assert "\n" not in str(refused.value)


KILLED = """
    import sys
    from pathlib import Path

    import torch

    torch.set_num_threads(1)
    from methods.encoder import EncoderConfig
    from methods.base import Parts, build, method_class
    from methods.checkpoint import save_encoder
    from methods.masking import MaskingConfig
    from methods.prototypes import HeadConfig
    from methods.trainer import TrainConfig, train
    from skeletons.augment import Augmentation, AugmentConfig
    from skeletons.clips import open_store
    from skeletons.sampling import ClipTensors, LocalView, Sampler, ViewConfig

    folder, store = map(Path, sys.argv[1:3])
    clips = open_store(store)
    views = ViewConfig(frames=16, locals=[LocalView(8, 1, 0.3, 0.7)])
    torch.manual_seed(0)
    slim = method_class("slim")
    method = build(
        Parts(
            slim.Config(),
            clips.topology,
            EncoderConfig(width=16, depth=1, heads=2, patch=4),
            heads=HeadConfig(prototypes=16, hidden=16, bottleneck=8),
            views=views,
            masking=MaskingConfig(strategy="tube"),
            steps=30,
        )
    )
    augmentation = Augmentation(AugmentConfig(), clips.topology)
    sampler = Sampler(ClipTensors(clips), views, augmentation, slim.crops, slim.local_views, slim.one_person)
    config = TrainConfig(length="30 steps", batch=4, warmup="3 steps", log_every=1, evaluations=2, checkpoint_seconds=0)
    train(method, sampler, config, seed=0, folder=folder, identity="killed")
    save_encoder(folder / "encoder.safetensors", method.kept)
"""


def test_a_run_killed_at_a_random_moment_ends_with_the_same_encoder(clips: Clips, tmp_path, monkeypatch):
    arrays = {"joints": clips.original(), "offsets": clips.offsets, "class_names": clips.class_names, "fps": clips.fps}
    write_store(tmp_path / "store", {**arrays, **clips.table}, clips.topology, {"name": "x", "source": "x"})
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(KILLED))
    undisturbed, killed = (tmp_path / name for name in ("undisturbed", "killed"))
    command = [sys.executable, script, killed, tmp_path / "store"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    at = 2 + time.time_ns() % 12  # the step after which it is killed, somewhere in the middle of the next ones
    metrics = killed / "metrics.jsonl"
    with subprocess.Popen(command, env=environment) as victim:
        try:
            while victim.poll() is None and not (metrics.is_file() and len(metrics.read_text().splitlines()) >= at):
                time.sleep(0.001)
            time.sleep(time.time_ns() % 10_000 / 1e6)
        finally:
            victim.send_signal(signal.SIGKILL)
    assert victim.returncode == -signal.SIGKILL, "it had ended before it was killed"
    assert not (killed / "encoder.safetensors").exists()
    subprocess.run(command, env=environment, check=True)
    monkeypatch.setattr(sys, "argv", ["train.py", str(undisturbed), str(tmp_path / "store")])
    runpy.run_path(str(script))

    files = [folder / "encoder.safetensors" for folder in (undisturbed, killed)]
    assert same_weights(*map(load_encoder, files)), f"killed after step {at}"
    assert files[0].read_bytes() == files[1].read_bytes()
    lines = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (undisturbed, killed)
    ]
    assert len(lines[0]) == 30 and without_speed(lines[0]) == without_speed(lines[1])


# --- what is not finite


class Fragile(Method):
    """Loses its mind at one step, in the loss or in the gradient only."""

    trains = True

    def __init__(self, parts, bad_step: int, where: str):
        super().__init__()
        self.encoder = Transformer(EncoderConfig(8, 1, 2, 4), parts.topology, 16)
        self.bad_step, self.where = bad_step, where

    def loss(self, views, draws):
        loss = self.encoder(views["clip"].joints[:, 0]).patches.square().mean()
        if draws.path[1] == self.bad_step:
            if self.where == "loss":
                return {"loss": loss * math.nan}
            loss = loss + (self.encoder.joint.sum() * 0).sqrt()  # 0, with an infinite gradient
        return {"loss": loss}


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_training_stops_where_it_is_not_finite_and_keeps_the_last_good_checkpoint(where, parts, sampler, tmp_path):
    model = Fragile(parts("mamp"), 5, where)
    with pytest.raises(TrainingFailed) as failed:
        train(model, sampler(model), OFTEN, 0, tmp_path)
    message = str(failed.value)
    assert "not finite at step 6" in message and "try a smaller train.lr" in message
    assert f"{tmp_path / 'checkpoint.pt'}, step 5" in message
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 5
    assert all(torch.isfinite(t).all() for t in state["method"].values())
    assert all(torch.equal(state["method"][k], v) for k, v in model.state_dict().items())  # no step was taken
    cured = Fragile(parts("mamp"), -1, where)
    train(cured, sampler(cured), OFTEN, 0, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 12


def test_training_that_fails_at_once_says_that_nothing_was_saved(parts, sampler, tmp_path):
    model = Fragile(parts("mamp"), 0, "loss")
    with pytest.raises(TrainingFailed, match=r"at step 1 .*nothing was saved yet"):
        train(model, sampler(model), SHORT, 0, tmp_path)
    assert list(tmp_path.iterdir()) == []
