"""Masking that looks at no coordinates: tokens, time patches, joints and parts at random."""

from __future__ import annotations

import torch
from jaxtyping import Int
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


def hide_groups(group: Int[Tensor, "patch joint"], groups: int, context: MaskContext, draws: Draws) -> Tensor:
    """Mask that hides whole groups of tokens in random order, and of the last one as many as the count asks for.

    Args:
        group: number of the group of each token of the grid, below `groups`.
    """
    u = context.uniform(draws.fork("group"), groups)
    order = u.argsort(1).argsort(1)[:, group]
    return hide_lowest(order + context.uniform(draws.fork("token"), *context.grid), context)


class FrameMasking(Masking):
    """Whole time patches, all joints at once (SkeletonMAE's frame-level masking)."""

    name = "frame"

    def __call__(self, context: MaskContext, draws: Draws) -> Tensor:
        time = torch.arange(context.grid[0], device=context.joints.device)
        return hide_groups(time[:, None].expand(context.grid), context.grid[0], context, draws)


class JointMasking(Masking):
    """Whole joints, for the whole clip (SkeletonMAE's joint-level masking)."""

    name = "joint"

    def __call__(self, context: MaskContext, draws: Draws) -> Tensor:
        joint = torch.arange(context.grid[1], device=context.joints.device)
        return hide_groups(joint.expand(context.grid), context.grid[1], context, draws)


class PartMasking(Masking):
    """Whole parts of the body (trunk, arms, legs), for the whole clip."""

    name = "part"
    needs = frozenset({"topology"})

    def __call__(self, context: MaskContext, draws: Draws) -> Tensor:
        part = torch.tensor(context.topology.part_of, device=context.joints.device)
        return hide_groups(part.expand(context.grid), len(context.topology.parts), context, draws)
