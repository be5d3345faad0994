"""Masking guided by motion."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.encoder import patchify
from methods.masking import MaskContext, Masking, hide_lowest
from skeletons.randomness import Draws


class MotionMasking(Masking):
    """Motion-aware masking (MAMP, section 3.3): tokens that move are hidden more often.

    Intensity I[t, v] = mean |x[t, v] - x[t - 1, v]| over the values of adjacent patches, I[0] = I[1]; the hidden tokens
    are drawn without replacement with weights softmax(I / (tau max I)), by Gumbel top-k. A token keeps its place among
    the visible ones with a probability that falls with motion.
    """

    name = "motion"
    needs = frozenset({"patches"})
    reads = ("ratio", "tau")
    sign = 1.0

    def __call__(self, context: MaskContext, draws: Draws) -> Tensor:
        u = context.uniform(draws, *context.grid)
        gumbel = -torch.log(-torch.log(u + 1e-10) + 1e-10)
        if self.config.tau <= 0:
            return hide_lowest(-gumbel, context)
        patches = patchify(context.joints, context.patch)
        motion = (patches[:, 1:] - patches[:, :-1]).abs().mean(-1)
        if motion.shape[1] == 0:  # one time patch: nothing moves between patches
            motion = torch.zeros_like(patches[..., 0])
        else:
            motion = torch.cat([motion[:, :1], motion], 1)
        z = self.sign * motion / (motion.amax((1, 2), keepdim=True) * self.config.tau + 1e-10)
        return hide_lowest(-(z.flatten(1).log_softmax(1).view_as(z) + gumbel), context)


class InvertedMotionMasking(MotionMasking):
    """Motion-aware masking turned round: tokens that rest are hidden more often."""

    name = "motion_inverted"
    sign = -1.0
