"""MAMP: masked motion prediction (Mao et al., ICCV 2023; github maoyunyao/MAMP, model_mamp).

SkeletonMAE's autoencoder with two changes. The target is motion: m[t] = x[t + s] - x[t] with stride s = 1, zero in the
last s frames, computed after cropping, resampling and rotation, cut into patches and normalised within each. And the
hidden tokens are drawn by motion (`masking.strategy=motion`, 90 %, tau 0.8).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from methods.base import Parts
from methods.skeletonmae import SkeletonMAE, SkeletonMAEConfig
from skeletons.errors import BadInput


@dataclass
class MampConfig(SkeletonMAEConfig):
    """MAMP's fields.

    Attributes:
        stride: frames between the two poses whose difference is the target.
    """

    name: str = "mamp"
    stride: int = 1


class Mamp(SkeletonMAE):
    """See the module's text."""

    name = "mamp"
    Config = MampConfig
    config: MampConfig

    def __init__(self, parts: Parts):
        super().__init__(parts)
        if not 0 < self.config.stride < parts.views.frames:
            raise BadInput(f"method.stride={self.config.stride} must be between 1 and views.frames - 1")

    def target(self, joints: Float[Tensor, "sequence time joint 3"]) -> Float[Tensor, "sequence time joint 3"]:
        """Motion over `stride` frames, zero at the end."""
        s = self.config.stride
        return F.pad(joints[:, s:] - joints[:, :-s], (0, 0, 0, 0, 0, s))
