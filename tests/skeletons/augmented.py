"""Random bodies, and what one augmentation makes of them."""

from __future__ import annotations

import torch
from torch import Tensor

from skeletons.augment import Augmentation, AugmentConfig
from skeletons.randomness import Draws
from skeletons.topology import KINECT_V2, Topology

KINDS = ("rotation", "mirroring", "scaling")


def only(kind: str, how: str = "aware", probability: float = 1.0, **options) -> AugmentConfig:
    return AugmentConfig(**{k: how if k == kind else "none" for k in KINDS}, probability=probability, **options)


def bodies(rows: int, topology: Topology = KINECT_V2, persons: int = 2, frames: int = 4) -> tuple[Tensor, Tensor]:
    joints = torch.randn(rows, persons, frames, len(topology), 3)
    return joints, torch.rand(rows, persons, frames, len(topology)) < 0.8


def apply(config: AugmentConfig, joints: Tensor, observed: Tensor | None = None, views: int = 1, **options) -> Tensor:
    """Augmented joints of a step of their own, or of `draws`."""
    draws = options.pop("draws", Draws(0, 1).fork("augment", "clip"))
    if observed is None:
        observed = torch.ones(joints.shape[:-1], dtype=torch.bool)
    topology = options.pop("topology", KINECT_V2)
    return Augmentation(config, topology, **options)(joints, observed, views, draws)[0]
