"""The masked autoencoders' decoder (MAE; MAMP's model_mae and model_mamp).

Visible tokens return to the full grid, the rest is filled with a learned mask token, own temporal and joint embeddings
are added to all tokens, and a few blocks predict each patch's values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods.backbone import Block, initialise
from skeletons.errors import BadInput

VERSION = 1


@dataclass
class DecoderConfig:
    """Its transformer blocks (MLP ratio 4, GELU).

    Attributes:
        width, heads: of a block.
        depth: blocks (MAMP's repository: 3 for NTU-60, 5 for NTU-120 and PKU-MMD).
    """

    width: int = 256
    depth: int = 3
    heads: int = 8


class Decoder(nn.Module):
    """Args:
    config: its shape.
    encoder_width: width of the tokens it is given.
    grid: (time patches, joint patches).
    values: numbers predicted for each patch.
    """

    step_part = "decoder"  # where its operations are counted

    def __init__(self, config: DecoderConfig, encoder_width: int, grid: tuple[int, int], values: int):
        super().__init__()
        width, heads = config.width, config.heads
        if width % heads:
            raise BadInput(f"decoder.width={width} must be divisible by decoder.heads={heads}")
        self.grid = grid
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.empty(1, width))
        self.time = nn.Parameter(torch.empty(grid[0], 1, width))
        self.joint = nn.Parameter(torch.empty(1, grid[1], width))
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, values)
        initialise(self, "xavier")
        for p in (self.mask_token, self.time, self.joint):
            nn.init.trunc_normal_(p, std=0.02)

    def forward(
        self, tokens: Float[Tensor, "sequence visible width"], visible: Int[Tensor, "sequence visible"]
    ) -> Float[Tensor, "sequence token value"]:
        """Predict the values of every patch of the grid, flat and time-major.

        Args:
            tokens: the encoder's output for the visible tokens.
            visible: their flat indices.
        """
        shown = self.embed(tokens)
        count = self.grid[0] * self.grid[1]
        x = self.mask_token.to(shown.dtype).expand(len(shown), count, -1)
        x = x.scatter(1, visible[..., None].expand_as(shown), shown)
        x = x + (self.time + self.joint).flatten(0, 1)
        for block in self.blocks:
            x = block(x)
        return self.predict(self.norm(x))
