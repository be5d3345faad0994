"""Masks by name, in a context of sequences of which everything is observed."""

from __future__ import annotations

import torch

from methods.encoder import patchify
from methods.masking import MaskContext, MaskingConfig, all_strategies, mask_context, strategy
from skeletons.randomness import Draws
from skeletons.sampling import Batch
from skeletons.topology import KINECT_V2

STRATEGIES = all_strategies()
MASKED = [name for name in STRATEGIES if name != "none"]
EXACT = [name for name in MASKED if STRATEGIES[name].exact]


def context_of(
    joints: torch.Tensor, ratio=(0.9, 0.9), patch=1, topology=KINECT_V2, views=1, persons=1, draws=None
) -> MaskContext:
    """Context of sequences (view x clip x person, time, joint, 3), everything observed; embeddings by a linear map."""
    x = joints.unflatten(0, (-1, persons))
    seen = torch.ones(x.shape[:-1], dtype=torch.bool)
    batch = Batch(x, seen, torch.ones(x.shape[:2], dtype=torch.bool), views)
    embedding = Draws("embedding").normal(3 * patch, 8) / 4

    def embed(found: torch.Tensor) -> torch.Tensor:
        return patchify(found, patch) @ embedding.to(found.dtype)

    return mask_context(batch, patch, topology, ratio, draws or Draws(0, 0), embed)


def masks(name: str, context: MaskContext, step: int = 0, **config) -> torch.Tensor:
    return strategy(name, MaskingConfig(**config))(context, Draws(0, step, "mask"))
