"""The training loop: what it logs, and that nothing but the seed decides what comes out."""

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
from methods.trainer import TrainingFailed, batch_clips, collapse_watch, train
from skeletons.clips import Clips, write_store
from skeletons.errors import BadInput
from tests.methods.short_runs import OFTEN, SHORT, same_weights, without_speed

ROOT = Path(__file__).resolve().parents[2]


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
    from methods.heads import HeadConfig
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
