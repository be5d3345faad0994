"""Clips whose class is a pose, and a subject that judges an encoder on them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from methods.encoder import Encoder, EncoderConfig, make_encoder
from protocols.base import Subject
from protocols.finetune import FinetuneConfig
from protocols.semi import SemiConfig
from skeletons.clips import Clips
from skeletons.sampling import ClipTensors, ViewConfig
from skeletons.splits import Split
from skeletons.topology import KINECT_V2, Topology

QUICK = FinetuneConfig(length="16 steps", batch=12, lr=0.01, drop_path=0.1, evaluations=2)
VIEWS = ViewConfig(frames=8)
SMALL = EncoderConfig(width=16, depth=2, heads=2, patch=4)


def poses(clips: int = 90, classes: int = 3, topology: Topology = KINECT_V2, seed: int = 0) -> Clips:
    """Clip i has class i % classes, and trains where (i // classes) % 2 is 0; every fifth one has a second person."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(9, 20, clips)
    offsets = np.concatenate([[0], lengths.cumsum()])
    label, clip_of = np.arange(clips) % classes, np.repeat(np.arange(clips), lengths)
    pose = rng.normal(0, 0.5, (classes, 1, len(topology), 3))
    frames = (pose[label] + rng.normal(0, 0.05, (clips, 2, len(topology), 3)))[clip_of]
    present = np.ones((clips, 2), bool)
    present[:, 1] = np.arange(clips) % 5 == 0
    frames = (frames * present[clip_of][:, :, None, None]).astype(np.float32)
    return Clips(
        name="poses",
        frames=frames,
        observed=np.repeat(present[clip_of][:, :, None], len(topology), 2),
        offsets=offsets,
        origin=frames[offsets[:-1], 0, topology.root],
        present=present,
        table={"label": label, "subject": np.arange(clips) // 6, "clip": np.array([f"p{i:03d}" for i in range(clips)])},
        topology=topology,
        class_names=tuple(f"class {c}" for c in range(classes)),
        fps=30.0,
        fingerprint=f"poses{seed}",
        source="generated",
    )


def small_encoder(kind: str = "transformer", topology: Topology = KINECT_V2) -> Encoder:
    """Its weights are the same each time."""
    torch.manual_seed(0)
    return make_encoder(replace(SMALL, kind=kind), topology, 8)


def subject_of(data: Clips, encoder: Encoder | None = None, seed: int = 0, tests: int | None = None) -> Subject:
    place = np.arange(len(data)) // len(data.class_names)
    part = Split("half", np.flatnonzero(place % 2 == 0), np.flatnonzero(place % 2 == 1)[:tests])
    return Subject(encoder or small_encoder(), data, part, ClipTensors(data), VIEWS, "mean", seed)


def settings(finetune: FinetuneConfig = QUICK, semi: SemiConfig | None = None) -> SimpleNamespace:
    """What a protocol is given as its configuration."""
    return SimpleNamespace(finetune=finetune, semi=semi or SemiConfig(draws=2))
