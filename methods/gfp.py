"""GFP: generative feature prediction at several lengths of time (ICCV 2025, arXiv 2509.03609).

Instead of 750 patches of coordinates, 251 features are predicted. A target generation network turns motion into
features: for windows of 5, 10 and 30 temporal tokens of each joint (6, 3 and 1 of them) and for the whole clip. The
encoder sees 10 % of the tokens; a light predictor fills the grid with mask tokens, averages it over windows of 5 and
predicts the features of all levels. Both networks are trained together, gradients flowing into both, and two terms keep
the targets Z_l of each level l apart (VICReg's):

    loss = lambda MSE(predictions, targets) + sum over l (alpha covariance(Z_l) + beta variance(Z_l)),

lambda = alpha = 5, beta = 1, the variance's hinge gamma = 1. No code and no full text is in our sources. From notes on
the paper: the above, motion between adjacent patches as the network's input, its MLPs of 3 layers with 512 hidden
channels (a level) and 2,048 (the clip) and an output of 256; MAMP's backbone, masking and optimisation.
ASSUMPTIONS, where nothing is published:

- Windows are shares of the temporal tokens, 1/6, 1/3 and 1, rounded, and every level's at least one token longer than
  the level's before it (`windows`: 5, 10, 30 of 30; 1, 3, 8 of 8; 1, 2, 4 of 4). They start at the first token; where
  their length does not divide the clip, the last holds what remains.
- The network sees all motion of a window, x[t + 1] - x[t] of its patches one after the other, in metres (with 12 values
  a patch this costs 0.54 GFLOPs for two persons, published are 0.64), and that of all joints for the clip; zero where
  there is none: after the last token, and where either patch was not observed. GELU between layers, no norm; a level's
  MLP serves all its joints and windows, and its hidden width is a quarter of `heads.hidden`, the clip's, whatever the
  scale.
- The predictor: tokens averaged over the shortest windows, positions added, `decoder.depth` (3) blocks; one linear head
  for each level on its output averaged over that level's windows (by the tokens they share), and one on its mean. With
  3 blocks of 256 channels this costs 1.64 GFLOPs for two persons, published are 1.57: the heads' 251 outputs are what
  it has more.
- A window is a target where at least half of the differences that lie in it are known; the MSE is the mean over all
  such windows, clips and channels, the masked and the visible alike. Only present persons are sequences.
- Variance and covariance are over all targets of a level in the batch: sequences, windows and joints together; the
  clip is a level. They act on the targets alone. No stop-gradient anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from methods.backbone import initialise
from methods.base import ONE_VIEW, Method, MethodConfig, Parts
from methods.decoder import Decoder, DecoderConfig
from methods.encoder import make_encoder, patchify
from methods.heads import HeadConfig
from methods.losses import masked_mean, variance_covariance
from methods.masking import strategy, visible_count
from methods.masking.tokens import shown
from methods.precision import full
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch


@dataclass
class GfpConfig(MethodConfig):
    """GFP's fields.

    Attributes:
        fractions: length of each level's windows, as a share of the temporal tokens, growing.
        lambda_prediction, alpha_covariance, beta_variance: weights of the three terms.
        gamma: standard deviation below which the variance term pushes a channel up.
    """

    name: str = "gfp"
    fractions: list[float] = field(default_factory=lambda: [1 / 6, 1 / 3, 1.0])
    lambda_prediction: float = 5.0
    alpha_covariance: float = 5.0
    beta_variance: float = 1.0
    gamma: float = 1.0


def windows(fractions: Sequence[float], tokens: int) -> tuple[int, ...]:
    """Temporal tokens in a window of each level: rounded shares, each longer than the one before, at most all of them;
    a level for which no length is left falls away.

    Raises:
        BadInput: not growing shares in (0, 1].
    """
    if not fractions or not all(0 < a < b for a, b in zip(fractions, [*fractions[1:], 2])) or fractions[-1] > 1:
        raise BadInput(f"method.fractions={list(fractions)}: write shares in (0, 1], each larger than the one before")
    found: list[int] = []
    for share in fractions:
        least = found[-1] + 1 if found else 1
        found.append(min(tokens, max(least, int(share * tokens + 0.5))))
    return tuple(dict.fromkeys(found))


def members(window: int, tokens: int) -> Float[Tensor, "window token"]:
    """1 where a token lies in a window, else 0."""
    number = torch.arange(tokens, device="cpu") // window
    return F.one_hot(number).T.to(torch.get_default_dtype())


class TargetNetwork(nn.Module):
    """The target generation network: motion to features, one MLP for each level and one for the whole clip.

    Args:
        config: `hidden` channels for the clip's MLP, a quarter of it for the levels'; `bottleneck` of the features.
        lengths: of each level's windows.
        grid: (time patches, joint patches).
        values: of a patch.
    """

    step_part = "target network"  # as reports/flops.py names it

    def __init__(self, config: HeadConfig, lengths: tuple[int, ...], grid: tuple[int, int], values: int):
        super().__init__()
        self.lengths = lengths
        self.local = nn.ModuleList(self._mlp(w * values, max(1, config.hidden // 4), config) for w in lengths)
        self.clip = self._mlp(grid[0] * grid[1] * values, config.hidden, config)
        initialise(self, "xavier")

    @staticmethod
    def _mlp(values: int, hidden: int, config: HeadConfig) -> nn.Sequential:
        widths = [values, *[hidden] * (config.layers - 1), config.bottleneck]
        layers: list[nn.Module] = []
        for i, (ahead, behind) in enumerate(pairwise(widths)):
            layers += [nn.GELU()] * (i > 0) + [nn.Linear(ahead, behind)]
        return nn.Sequential(*layers)

    def forward(self, motion: Float[Tensor, "sequence time joint value"]) -> Float[Tensor, "sequence target channel"]:
        """Features of all windows, level by level, each level's time-major; the clip's last."""
        found = []
        for length, mlp in zip(self.lengths, self.local):
            filled = F.pad(motion, (0, 0, 0, 0, 0, -motion.shape[1] % length))
            inside = filled.unflatten(1, (-1, length)).transpose(2, 3).flatten(3)  # sequence, window, joint, values
            found.append(mlp(inside).flatten(1, 2))
        return torch.cat([*found, self.clip(motion.flatten(1))[:, None]], 1)


class Predictor(Decoder):
    """The light predictor: a decoder on the grid of the shortest windows, with a head for each level.

    Args:
        config: its blocks.
        encoder_width: width of the tokens it is given.
        lengths: of each level's windows.
        tokens: (time patches, joint patches) of the encoder.
        channels: of a predicted feature.
    """

    def __init__(
        self,
        config: DecoderConfig,
        encoder_width: int,
        lengths: tuple[int, ...],
        tokens: tuple[int, int],
        channels: int,
    ):
        finest = members(lengths[0], tokens[0])
        super().__init__(config, encoder_width, (len(finest), tokens[1]), channels)
        self.tokens = tokens
        self.longer = nn.ModuleList(nn.Linear(config.width, channels) for _ in lengths[1:])
        self.clip = nn.Linear(config.width, channels)
        initialise(self.longer, "xavier")
        initialise(self.clip, "xavier")
        self.register_buffer("into", finest / finest.sum(1, keepdim=True), persistent=False)
        for i, length in enumerate([*lengths[1:], tokens[0]]):
            level = members(length, tokens[0])
            share = (level / level.sum(1, keepdim=True)) @ finest.T  # of each level's window, in the shortest ones
            self.register_buffer(f"pool{i}", share, persistent=False)

    def forward(
        self, tokens: Float[Tensor, "sequence visible width"], visible: Int[Tensor, "sequence visible"]
    ) -> Float[Tensor, "sequence target channel"]:
        """Predicted features, in the order of TargetNetwork."""
        shown = self.embed(tokens)
        x = self.mask_token.to(shown.dtype).expand(len(shown), self.tokens[0] * self.tokens[1], -1)
        x = x.scatter(1, visible[..., None].expand_as(shown), shown).unflatten(1, self.tokens)
        x = (self._pooled("into", x) + self.time + self.joint).flatten(1, 2)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        found, grid = [self.predict(x)], x.unflatten(1, self.grid)
        for i, head in enumerate(self.longer):
            found.append(head(self._pooled(f"pool{i}", grid)).flatten(1, 2))
        whole = self._pooled(f"pool{len(self.longer)}", grid).mean((1, 2))
        return torch.cat([*found, self.clip(whole)[:, None]], 1)

    def _pooled(self, name: str, x: Tensor) -> Tensor:
        return torch.einsum("wt,stjc->swjc", self.get_buffer(name).to(x.dtype), x)


class Gfp(Method):
    """See the module's text."""

    name = "gfp"
    Config = GfpConfig
    accepts = frozenset({"patches", "topology", "embeddings"})
    reads = (
        "method",
        "backbone",
        "decoder",
        "heads.hidden",
        "heads.bottleneck",
        "heads.layers",
        *ONE_VIEW,
        "augment",
        "train",
    )

    config: GfpConfig

    def __init__(self, parts: Parts):
        super().__init__()
        self.config, self.topology = parts.method, parts.topology
        self.ratio = parts.masking.range()
        self.masking = strategy(parts.masking.strategy, parts.masking)
        self.encoder = make_encoder(parts.backbone, parts.topology, parts.views.frames)
        grid, values = self.encoder.grid(parts.views.frames), 3 * self.encoder.patch
        if grid[0] < 2:
            raise BadInput(
                f"views.frames={parts.views.frames} is one patch of backbone.patch={self.encoder.patch} frames: "
                "gfp predicts the motion between patches and needs at least two"
            )
        if parts.heads.layers < 1:
            raise BadInput(f"heads.layers={parts.heads.layers} must be at least 1")
        self.lengths = windows(self.config.fractions, grid[0])
        channels = parts.heads.bottleneck
        self.targets = TargetNetwork(parts.heads, self.lengths, grid, values)
        self.predictor = Predictor(parts.decoder, self.encoder.width, self.lengths, grid, channels)
        self.visible = visible_count(grid[0] * grid[1], sum(self.ratio) / 2)

    def motion(
        self, joints: Float[Tensor, "sequence time joint 3"], observed: Bool[Tensor, "sequence patch joint"]
    ) -> tuple[Float[Tensor, "sequence patch joint value"], Bool[Tensor, "sequence patch joint"]]:
        """x[t + 1] - x[t] of patches, 0 where it is not known, and where it is."""
        x = patchify(joints, self.encoder.patch)
        known = F.pad(observed[:, 1:] & observed[:, :-1], (0, 0, 0, 1))
        ahead = F.pad(x[:, 1:] - x[:, :-1], (0, 0, 0, 0, 0, 1))
        return torch.where(known[..., None], ahead, 0.0), known

    def known_targets(self, known: Bool[Tensor, "sequence patch joint"]) -> list[Bool[Tensor, "sequence target"]]:
        """For each level and the clip, where at least half of a window's differences are known."""
        count = known.to(torch.get_default_dtype())
        last = torch.arange(known.shape[1], device=known.device) < known.shape[1] - 1  # after it nothing moves
        found = []
        for length in self.lengths:
            inside = members(length, known.shape[1]).to(count)
            there, all_there = torch.einsum("wt,stj->swj", inside, count), inside @ last.to(count)
            found.append(((there > 0) & (2 * there >= all_there[:, None])).flatten(1))
        share = count.mean((1, 2)) * known.shape[1] / (known.shape[1] - 1)
        return [*found, (share > 0.5 - 1e-6)[:, None]]

    def loss(self, views: dict[str, Batch], draws: Draws) -> dict[str, Tensor]:
        """Prediction, covariance and variance, weighted."""
        c = self.config
        seen = shown(views["clip"], self.encoder, self.masking, self.ratio, self.visible, draws)
        prediction = self.predictor(self.encoder(seen.joints, visible=seen.visible).patches, seen.visible)
        motion, known = self.motion(seen.joints, seen.observed)
        target, there = self.targets(motion), self.known_targets(known)
        target = full(target)
        error = masked_mean((prediction - target).square().mean(-1), torch.cat(there, 1))
        variance, covariance = target.new_zeros(()), target.new_zeros(())
        for level, where in zip(target.split([w.shape[1] for w in there], 1), there):
            v, k = variance_covariance(level.flatten(0, 1), where.flatten(), c.gamma)
            variance, covariance = variance + v, covariance + k
        return {
            "loss": c.lambda_prediction * error + c.alpha_covariance * covariance + c.beta_variance * variance,
            "prediction": error,
            "covariance": covariance,
            "variance": variance,
            "masked": seen.hidden.float().mean(),
            "mask_filled": seen.filled,
        }
