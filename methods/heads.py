"""The head that compares tokens with learnt prototypes: an MLP to a unit vector, whose scalar products with K unit
prototypes are the logits (SLiM, arXiv 2603.10648, appendix A; there from DINO, arXiv 2104.14294).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from methods.precision import full


@dataclass
class HeadConfig:
    """Sizes of a prototype head (SLiM, appendix A).

    Attributes:
        prototypes: number of prototypes K.
        patch_prototypes: K of the head for patch tokens; 0 means `prototypes`, as in the paper.
        hidden: channels of the MLP's hidden layers.
        bottleneck: channels d of the vectors compared with the prototypes.
        layers: linear layers of the MLP, at least 1.
    """

    prototypes: int = 65536
    patch_prototypes: int = 0
    hidden: int = 2048
    bottleneck: int = 256
    layers: int = 3

    def for_patches(self) -> HeadConfig:
        """The sizes of the patch tokens' head."""
        return replace(self, prototypes=self.patch_prototypes or self.prototypes)


class PrototypeHead(nn.Module):
    """MLP to a unit bottleneck vector, and K unit prototypes (SLiM, appendix A; DINO, section 3.1).

    The prototypes are a weight-normalised, bias-free linear layer with its gain fixed at 1, that is, the rows
    of `weight` are L2-normalised wherever they are used. Student and teacher each own a head, and patch and
    class tokens each have their own.

    Args:
        width: channels of a token.
        config: sizes.
    """

    step_part = "heads"  # where its operations are counted

    def __init__(self, width: int, config: HeadConfig) -> None:
        super().__init__()
        if config.layers < 1:
            raise ValueError(f"a prototype head needs at least 1 layer, got layers={config.layers}")
        # 0.02 at the paper's width. Narrower layers need more: else biases soon outweigh what depends on the token, all
        # vectors point the same way, and the teacher's targets are flat.
        std = 0.02 * (2048 / config.hidden) ** 0.5
        widths = [width, *[config.hidden] * (config.layers - 1), config.bottleneck]
        self.mlp = nn.Sequential()
        for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
            if i:
                self.mlp.append(nn.GELU())
            linear = nn.Linear(fan_in, fan_out)
            nn.init.trunc_normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)
            self.mlp.append(linear)
        # As PyTorch starts a linear layer, which DINO's last one is. Only directions matter, but the longer a row, the
        # less a step of Adam turns it: from N(0, 1), 28 times as long at the paper's width, they would hardly move.
        self.weight = nn.Parameter(torch.empty(config.prototypes, config.bottleneck))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Float[Tensor, "*row width"]) -> Float[Tensor, "*row bottleneck"]:
        """Unit vectors, in float32 at least: under autocast only the MLP runs in bfloat16."""
        return _unit(self.mlp(x))

    def prototypes(self) -> Float[Tensor, "prototype bottleneck"]:
        """Unit prototypes; gradients pass through the normalisation."""
        return _unit(self.weight)

    def logits(self, x: Float[Tensor, "*row width"]) -> Float[Tensor, "*row prototype"]:
        """Cosines of every token with every prototype, before any temperature. For small sizes."""
        return self(x) @ self.prototypes().T


def _unit(x: Tensor) -> Tensor:
    return F.normalize(full(x), dim=-1)
