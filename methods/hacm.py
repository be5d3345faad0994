"""HA-CM: hierarchy and attention guided cross-masking (Yin and Cao; github YinxPeng/HA-CM-main, commit a9ef7c2).

MAMP's autoencoder with five changes.

- Embedding: tokens enter the encoder as points of the Poincare ball of curvature -c, c = 1, by the exponential map of
  patch and position embedding (`backbone.embedding=hyperbolic`, so that downstream has it too); the blocks stay
  Euclidean.
- Masking: `masking.strategy=cross`, 90 %, tau 0.9; see masking/cross.py for the two criteria and their direction.
- Pruning: the inner joints that limbs hang on (`Topology.inner`; Kinect v2: 0, 1, 4, 8, 12, 16, 20, the paper's figure
  3) are neither shown nor predicted; they serve the hierarchy criterion only. 18 of 25 joints stay.
- Target: motion, mapped by exp0 into the ball of R^3, cut into patches and normalised within each; mean squared error
  at hidden tokens.
- Cross-contrast: with z_t, z_s and z the means of the visible tokens of even patches, of odd ones and of all, over the
  person sequences of a batch, L_c = sum over (z_t, z), (z_s, z), (z_t, z_s) of MSE(softmax over rows of z_a z_b^T,
  identity); no temperature, no normalisation. L = reconstruction + L_c.

Departures, and where nothing was published:
- The release prunes the joints of downstream input too. Here the encoder is one of the full body, as every other
  method's, so that protocols compare like with like; it meets the pruned joints at evaluation for the first time.
- 43 visible tokens of 432 (22 even, 21 odd) where the release has 21 + 21: one rule of rounding for all methods.
- The full text is not in our sources; these are the released code's values. It has bugs, and which version made the
  published figures is not known. Corrected here: visible tokens return to their own places in the decoder. Flags
  restore the release's sampling direction (`masking.keep_high`) and the odd patches' scores applied to wrong tokens
  (`masking.release_order`). Its two other order bugs (odd patches' tokens decoded at the places of even ones, even
  patches' joint-major order met by time-major positions and targets) have no flag: what they do depends on ranks inside
  the sampling that no mask carries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from methods.base import Parts
from methods.distributed import gather
from methods.hyperbolic import exp0
from methods.losses import masked_mean
from methods.mamp import Mamp, MampConfig
from methods.precision import full, without_autocast
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch


@dataclass
class HacmConfig(MampConfig):
    """HA-CM's fields.

    Attributes:
        hyperbolic: map the target motion into the ball (the tokens: `backbone.embedding`).
        curvature: c of the target's ball.
        prune: neither show nor predict the inner joints.
        cross_contrast: use that loss at all.
        contrast_weight: its weight.
    """

    name: str = "hacm"
    hyperbolic: bool = True
    curvature: float = 1.0
    prune: bool = True
    cross_contrast: bool = True
    contrast_weight: float = 1.0


class Hacm(Mamp):
    """See the module's text."""

    name = "hacm"
    Config = HacmConfig
    config: HacmConfig
    places: Tensor
    tokens: Tensor

    def __init__(self, parts: Parts):
        self.removed = parts.topology.inner if parts.method.prune else ()
        super().__init__(parts)
        if self.config.curvature <= 0:
            raise BadInput(f"method.curvature={self.config.curvature} must be positive")
        times, joints = self.encoder.grid(parts.views.frames)
        if self.config.cross_contrast and times < 2:
            raise BadInput("method.cross_contrast=true compares even with odd time patches: set views.frames to two")
        stay = torch.tensor([j not in self.removed for j in range(joints)]).expand(times, joints).flatten()
        # Places of all tokens among those of the joints that stay, and the other way round.
        self.register_buffer("places", stay.cumsum(0) - 1, persistent=False)
        self.register_buffer("tokens", stay.nonzero()[:, 0], persistent=False)

    def target(self, joints: Float[Tensor, "sequence time joint 3"]) -> Float[Tensor, "sequence time joint 3"]:
        """Motion, as points of the ball."""
        motion = super().target(joints)
        return exp0(motion, self.config.curvature) if self.config.hyperbolic else motion

    def loss(self, views: dict[str, Batch], draws: Draws) -> dict[str, Tensor]:
        """Reconstruction of hidden tokens and cross-contrast."""
        seen = self.shown(views["clip"], draws)
        tokens = self.encoder(seen.joints, visible=seen.visible).patches
        prediction = self.decoder(tokens, self.places[seen.visible])
        target, hidden = (x.index_select(1, self.tokens) for x in (self.values(seen.joints), seen.hidden))
        found = {"reconstruction": masked_mean((prediction - target).square().mean(-1), hidden)}
        total = found["reconstruction"]
        if self.config.cross_contrast:
            even = seen.visible // seen.observed.shape[2] % 2 == 0
            found["contrast"] = cross_contrast(tokens, even)
            total = total + self.config.contrast_weight * found["contrast"]
        return {"loss": total, **found, "masked": seen.hidden.float().mean(), "mask_filled": seen.filled}


def cross_contrast(
    tokens: Float[Tensor, "sequence visible width"], even: Bool[Tensor, "sequence visible"]
) -> Float[Tensor, ""]:
    """Sum of mean squared differences between the identity and three matrices of softmax similarities over sequences.

    Args:
        even: which tokens are of even time patches. A sequence that shows none of a group has a zero mean there.
    """

    # Raw dot products are as large as the width: half precision would leave whole units of error in the exponent.
    tokens = full(tokens)

    def mean(where: Tensor) -> Tensor:
        weight = where.to(tokens.dtype)[..., None]
        return (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)

    with without_autocast(tokens):
        temporal, spatial, whole = (gather(x) for x in (mean(even), mean(~even), tokens.mean(1)))
        identity = torch.eye(len(whole), device=tokens.device, dtype=tokens.dtype)
        pairs = ((temporal, whole), (spatial, whole), (temporal, spatial))
        return torch.stack([((a @ b.T).softmax(1) - identity).square().mean() for a, b in pairs]).sum()
