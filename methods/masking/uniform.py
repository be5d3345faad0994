"""Masking that looks at nothing but the grid of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.masking import MaskContext, Masking, hide_lowest
from skeletons.randomness import Draws


class NoMasking(Masking):
    """Hides nothing."""

    name = "none"
    reads = ()

    def __call__(self, context: MaskContext, draws: Draws) -> Tensor:
        return torch.zeros_like(context.observed)


class RandomMasking(Masking):
    """Every token with the same chance (SkeletonMAE as MAMP's model_mae runs it)."""

    name = "random"

    def __call__(self, context: MaskContext, draws: Draws) -> Tensor:
        return hide_lowest(context.uniform(draws, *context.grid), context)
