"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml

from methods import base, masking
from methods.backbone import EncoderConfig
from methods.heads import HeadConfig
from skeletons.prepare import main as prepare
from skeletons.randomness import Draws
from skeletons.sampling import Batch, ViewConfig
from skeletons.sources import DataConfig, open_clips
from skeletons.sources.archive import read_archive
from skeletons.splits import split
from skeletons.topology import KINECT_V2
from sweeps.config import Config

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def block(language: str, of: str) -> str:
    """The README's block of code that has `of` in it."""
    return next(b for b in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if of in b)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], ModuleType]:
    """Runs a block as a module of its own; what it registers is forgotten after the test."""
    base.all_methods(), masking.all_strategies()  # what is imported during the test would be forgotten too
    for holder, name in ((masking, "STRATEGIES"), (base, "METHODS")):
        monkeypatch.setattr(holder, name, dict(getattr(holder, name)))

    def run(name: str, code: str) -> ModuleType:
        made = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, made)  # dataclasses look their module up
        exec(code, vars(made))
        return made

    return run


def test_the_masking_strategy_hides_partners_together(module):
    made = module("mirror", block("python", "class MirrorMasking"))
    observed = torch.ones(40, 8, 25, dtype=torch.bool)
    hidden = torch.full((40,), 6 * 25)
    context = masking.MaskContext(torch.zeros(40, 64, 25, 3), observed, 8, KINECT_V2, (1, 40, 1), hidden)
    mask = made.MirrorMasking(masking.MaskingConfig(strategy="mirror"))(context, Draws(0, 0))
    assert torch.equal(mask.sum((1, 2)), hidden)
    alone = mask & ~mask[:, :, list(KINECT_V2.mirror)]
    assert alone.sum((1, 2)).max() == 1, "at most the last pair is split by the count"
    assert base.refuses(base.method_class("mamp"), "mirror") is None


def test_the_method_of_thirty_lines_learns(module):
    code = block("python", "class Vicreg")
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("import", "from", '"""'))]
    assert len(lines) <= 32
    made = module("vicreg", code)
    parts = base.Parts(
        made.VicregConfig(),
        KINECT_V2,
        EncoderConfig(width=16, depth=1, heads=2, patch=4),
        heads=HeadConfig(hidden=16),
        views=ViewConfig(frames=8),
    )
    torch.manual_seed(0)
    method = base.build(parts)
    joints = torch.randn(16, 1, 8, 25, 3)
    seen = torch.ones(joints.shape[:-1], dtype=torch.bool)
    batch = Batch(joints, seen, seen[:, :, 0, 0], views=2)
    optimizer, losses = torch.optim.AdamW(method.parameters(), 1e-2), []
    for _ in range(20):
        loss = method.loss({"clip": batch}, Draws(0, 0))["loss"]
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and p.grad.any() for p in method.parameters())


def test_the_settings_of_that_method_exist():
    read = yaml.safe_load(block("yaml", "vicreg"))
    assert read.pop("defaults") == ["/schema@method: vicreg", "_self_"]
    for section, fields in read.items():
        assert set(fields) <= set(vars(getattr(Config(), section)))


def test_the_folder_of_your_own_recordings_is_prepared(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    recordings = [(rng.normal(0, 500, (9 + i, 6, 3)), ("sit", "give paw")[i % 2], 1 + i % 4) for i in range(8)]
    code = block("python", "dataset.json")
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 20
    exec(code, {"recordings": recordings})
    words = block("sh", "source=folder").splitlines()[0].split()
    assert words[:3] == ["python", "-m", "skeletons.prepare"]
    assert prepare([*words[3:], "workers=1"]) == 0
    clips = open_clips(DataConfig(name="archive", file="dogs.clips", split="xsub"))
    assert clips.topology.joints[3:5] == ("paw_left", "paw_right")
    assert split(clips, "xsub").train.tolist() == [0, 2, 4, 6]
    np.testing.assert_allclose(clips.frames[:9, 0], recordings[0][0] / 1000, rtol=1e-6)


def test_the_archive_of_your_own_data_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {
        "joints": np.random.default_rng(0).normal(size=(30, 1, 3, 3)).astype(np.float32),
        "offsets": np.array([0, 12, 30]),
        "label": np.array([0, 1]),
        "names": np.array(["a", "b"]),
        "class_names": np.array(["x", "y"]),
        "joint_names": np.array(["spine_base", "spine_mid", "head"]),
        "parents": np.array([0, 0, 1]),
        "subject": np.array([1, 2]),
        "is_training": np.array([True, False]),
    }
    exec(block("python", "mine.npz"), values)
    arrays, topology = read_archive(tmp_path / "mine.npz")
    assert len(topology) == 3 and arrays["train_mine"].tolist() == [True, False]


def test_every_section_stands_once():
    headings = re.findall(r"^## .+", README, re.MULTILINE)
    assert len(headings) == len(set(headings)) > 9
