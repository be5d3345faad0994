"""What the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from methods import masking
from skeletons.randomness import Draws
from skeletons.sources.archive import read_archive
from skeletons.topology import KINECT_V2

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).resolve().parents[1] / "README.md").read_text(), re.DOTALL)


def test_the_masking_strategy_hides_whole_time_patches(monkeypatch):
    monkeypatch.setattr(masking, "STRATEGIES", dict(masking.STRATEGIES))
    code = next(block for block in BLOCKS if "class FrameMasking" in block)
    names = dict(vars(masking))
    exec(code, names)
    observed = torch.ones(4, 8, 25, dtype=torch.bool)
    context = masking.MaskContext(
        torch.zeros(4, 64, 25, 3), observed, 8, KINECT_V2, (1, 4, 1), torch.full((4,), 6 * 25)
    )
    mask = names["FrameMasking"](masking.MaskingConfig(strategy="frame"))(context, Draws(0, 0))
    assert (mask.flatten(1).sum(1) == 150).all()
    assert ((mask.sum(2) == 0) | (mask.sum(2) == 25)).all()


def test_the_archive_of_your_own_data_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = next(block for block in BLOCKS if "mine.npz" in block)
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
    exec(code, values)
    arrays, topology = read_archive(tmp_path / "mine.npz")
    assert len(topology) == 3 and arrays["train_mine"].tolist() == [True, False]
