"""AMR: adaptive masked reconstruction (Sun et al., CVPR 2026, arXiv 2606.11450).

The encoder is MAMP's, under uniform random masking (90 %); what differs is what is predicted, and how it is weighed.

- Decoder, decoupled from the encoder's grid: learnt queries, one for each larger patch of r of the encoder's patches in
  time and one joint. Each layer is cross-attention from the queries to the encoder's visible tokens and a feed-forward
  network; there is no self-attention. r = 6 of 30 time patches gives 5 x 25 = 125 queries of 24 frames x 3 = 72 values.
- Target: motion over one frame (as MAMP's), cut into the larger patches and normalised within each.
- Adaptive guidance: a weight for each frame and joint, from the positions s. For windows of n = 4, 8, 12 frames with
  mean mu, e_s = mean over the window of |s - mu|^2 and e_t its mean over the whole sequence;

      w = 1 / (1 + k e_t / (e_s + eps)), k = 0.01,   W = mean of w over the three n,

  so that regions of little motion weigh less.
- Loss: mean of W (prediction - target)^2 over the values of all patches, visible regions included.

Published in the abstract: decoupling, larger patches, guidance by motion informativeness. The figures above are from
secondary notes (no full text, no code in our sources). ASSUMPTIONS, where those are silent:
- 5 layers, 256 wide, 8 heads, pre-norm (5 fit the reported 3.8 GFLOPs best); a query is the sum of a temporal and a
  joint embedding, and the decoder adds no other position;
- the target is motion, normalised (`target=joints` predicts positions);
- a frame's window is centred on it, [t - n/2, t + n/2), and clipped to the clip; e_t is one number for a sequence, the
  mean over its frames and joints; eps = 1e-8 square metres; the scales are averaged;
- no patch is left out because the encoder saw some of it, but one that was not observed for half of its frames is no
  target; the loss divides by the number of values;
- optimisation as MAMP's.

`growth` says r as a share of the time patches, 6 / 30 = 1/5, so that it fits any number of them: r is the divisor
nearest to that share (of two, the larger): 2 of 8, 2 of 10, 1 of 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from methods.backbone import FeedForward, initialise
from methods.base import Parts
from methods.decoder import DecoderConfig
from methods.losses import masked_mean
from methods.mamp import Mamp, MampConfig
from methods.masking import observed_patches
from methods.persons import sequences
from skeletons.errors import BadInput, unknown
from skeletons.randomness import Draws
from skeletons.sampling import Batch

TARGETS = ("motion", "joints")


@dataclass
class AmrConfig(MampConfig):
    """AMR's fields.

    Attributes:
        target: motion or joints.
        growth: time patches of the encoder in one predicted patch, as a share of all of them.
        guidance: weigh the loss by motion.
        windows: frames over which motion is measured.
        k: how little still regions weigh.
        eps: square metres, keeps the ratio of energies finite.
    """

    name: str = "amr"
    target: str = "motion"
    growth: float = 0.2
    guidance: bool = True
    windows: list[int] = field(default_factory=lambda: [4, 8, 12])
    k: float = 0.01
    eps: float = 1e-8


class CrossAttention(nn.Module):
    """Multi-head attention from queries to other tokens."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "sequence query width"], tokens: Float[Tensor, "sequence token width"]
    ) -> Float[Tensor, "sequence query width"]:
        q = rearrange(self.q(x), "s n (h d) -> s h n d", h=self.heads)
        k, v = rearrange(self.kv(tokens), "s n (two h d) -> two s h n d", two=2, h=self.heads)
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "s h n d -> s n (h d)"))


class QueryLayer(nn.Module):
    """Pre-norm cross-attention and feed-forward network."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2, self.norm_tokens = (nn.LayerNorm(width) for _ in range(3))
        self.attention = CrossAttention(width, heads)
        self.mlp = FeedForward(width, 4 * width, "gelu")

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), self.norm_tokens(tokens))
        return x + self.mlp(self.norm2(x))


class QueryDecoder(nn.Module):
    """Args:
    config: width, heads and number of layers.
    encoder_width: width of the tokens it is given.
    grid: (time, joint) patches to predict.
    values: numbers predicted for each.
    """

    step_part = "decoder"  # where its operations are counted

    def __init__(self, config: DecoderConfig, encoder_width: int, grid: tuple[int, int], values: int):
        super().__init__()
        width, heads = config.width, config.heads
        if width % heads:
            raise BadInput(f"decoder.width={width} must be divisible by decoder.heads={heads}")
        self.grid = grid
        self.embed = nn.Linear(encoder_width, width)
        self.time = nn.Parameter(torch.empty(grid[0], 1, width))
        self.joint = nn.Parameter(torch.empty(1, grid[1], width))
        self.layers = nn.ModuleList(QueryLayer(width, heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, values)
        initialise(self, "xavier")
        for p in (self.time, self.joint):
            nn.init.trunc_normal_(p, std=0.02)

    def forward(self, tokens: Float[Tensor, "sequence visible width"]) -> Float[Tensor, "sequence patch value"]:
        """Predict every patch of its grid, flat and time-major, from the encoder's visible tokens."""
        tokens = self.embed(tokens)
        x = (self.time + self.joint).flatten(0, 1).expand(len(tokens), -1, -1)
        for layer in self.layers:
            x = layer(x, tokens)
        return self.predict(self.norm(x))


def nearest_divisor(of: int, wish: float) -> int:
    """The divisor of `of` nearest to `wish`; of two, the larger."""
    return min((d for d in range(of, 0, -1) if of % d == 0), key=lambda d: abs(d - wish))


def motion_energy(joints: Float[Tensor, "sequence time joint 3"], window: int) -> Float[Tensor, "sequence time joint"]:
    """Mean squared distance (square metres) from the mean position within [t - window/2, t + window/2) of the clip."""
    # Variance as E[s^2] - E[s]^2, after taking off each joint's mean over time: little is lost to rounding.
    x = rearrange(joints - joints.mean(1, keepdim=True), "s t j c -> (s j) c t")
    square, mean = (
        F.avg_pool1d(v, window, 1, window // 2, count_include_pad=False)[..., : joints.shape[1]] for v in (x * x, x)
    )
    return rearrange((square - mean * mean).sum(1).clamp(min=0), "(s j) t -> s t j", s=len(joints))


def guidance_weights(
    joints: Float[Tensor, "sequence time joint 3"], windows: Sequence[int], k: float, eps: float
) -> Float[Tensor, "sequence time joint"]:
    """W of each frame and joint, in (0, 1]."""
    total = torch.zeros_like(joints[..., 0])
    for window in windows:
        energy = motion_energy(joints, window)
        total = total + 1 / (1 + k * energy.mean((1, 2), keepdim=True) / (energy + eps))
    return total / len(windows)


class Amr(Mamp):
    """See the module's text."""

    name = "amr"
    Config = AmrConfig
    config: AmrConfig

    def __init__(self, parts: Parts):
        c: AmrConfig = parts.method
        if c.target not in TARGETS:
            raise unknown("method.target", c.target, TARGETS)
        if not 0 < c.growth <= 1:
            raise BadInput(f"method.growth={c.growth} must be a share of the time patches, in (0, 1]")
        if not c.windows or any(n < 2 or n % 2 for n in c.windows):
            raise BadInput(f"method.windows={c.windows} must be even numbers of frames, at least one of them")
        if c.k < 0 or c.eps <= 0:
            raise BadInput(f"method.k={c.k} must not be negative and method.eps={c.eps} must be positive")
        super().__init__(parts)

    def make_decoder(self, parts: Parts, grid: tuple[int, int]) -> nn.Module:
        self.patches = nearest_divisor(grid[0], self.config.growth * grid[0])
        larger = grid[0] // self.patches, grid[1]
        return QueryDecoder(parts.decoder, self.encoder.width, larger, 3 * self.patches * self.encoder.patch)

    def target(self, joints: Float[Tensor, "sequence time joint 3"]) -> Float[Tensor, "sequence time joint 3"]:
        """Motion, or the coordinates themselves."""
        return joints if self.config.target == "joints" else super().target(joints)

    def loss(self, views: dict[str, Batch], draws: Draws) -> dict[str, Tensor]:
        """Mean over the larger patches that were observed, and over their values, of weighted squared errors."""
        c, batch, frames = self.config, views["clip"], self.patches * self.encoder.patch
        seen = self.shown(batch, draws)
        tokens = self.encoder(seen.joints, visible=seen.visible).patches
        error = (self.decoder(tokens) - self.values(seen.joints, frames)).square()
        if c.guidance:
            weight = guidance_weights(seen.joints, c.windows, c.k, c.eps)
            error = error * repeat(weight, "s (t p) j -> s (t j) (p c)", p=frames, c=3)
        observed = observed_patches(batch.fold().observed[:, 0], frames).flatten(1)
        if c.persons == "mamp":
            observed = torch.ones_like(observed)
        else:
            observed = observed.index_select(0, sequences(batch))
        found = {"loss": masked_mean(error.mean(-1), observed)}
        if c.guidance:
            found["guidance"] = masked_mean(weight, seen.observed.repeat_interleave(self.encoder.patch, 1))
        return {**found, "masked": seen.hidden.float().mean(), "mask_filled": seen.filled}
