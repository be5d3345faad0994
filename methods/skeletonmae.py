"""SkeletonMAE: masked autoencoding of joint coordinates (Wu et al., ICMEW 2023, arXiv 2209.02399).

90 % of the tokens are hidden at random; the encoder sees the visible ones only; a decoder predicts the coordinates of
each hidden patch, normalised within the patch; mean squared error at hidden tokens.

ASSUMPTION: the original has no public code and its text is not in our sources. This is what later papers' tables call
SkeletonMAE: MAMP's `model_mae` (github maoyunyao/MAMP), with that repository's optimisation. Its published figures are
not known to come from exactly this.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from methods.base import ONE_VIEW, Method, MethodConfig, Parts
from methods.decoder import Decoder
from methods.encoder import make_encoder, patchify
from methods.losses import masked_mean, patch_normalised
from methods.masking import strategy, visible_count
from methods.masking.tokens import Shown, shown
from skeletons.errors import unknown
from skeletons.randomness import Draws
from skeletons.sampling import Batch

PERSONS = ("present", "mamp")


@dataclass
class SkeletonMAEConfig(MethodConfig):
    """Fields of the masked autoencoders.

    Attributes:
        persons: present (all present persons, one sequence each) or mamp (absent persons too, as empty bodies).
        normalise: normalise each target patch by its own mean and variance.
    """

    name: str = "skeletonmae"
    persons: str = "present"
    normalise: bool = True


class SkeletonMAE(Method):
    """See the module's text."""

    name = "skeletonmae"
    Config = SkeletonMAEConfig
    accepts = frozenset({"patches", "topology", "embeddings"})
    reads = ("method", "backbone", "decoder", *ONE_VIEW, "augment", "train")

    config: SkeletonMAEConfig
    removed: tuple[int, ...] = ()  # joints that are neither shown nor predicted

    def __init__(self, parts: Parts):
        super().__init__()
        self.config, self.topology = parts.method, parts.topology
        if self.config.persons not in PERSONS:
            raise unknown("method.persons", self.config.persons, PERSONS)
        self.ratio = parts.masking.range()
        self.masking = strategy(parts.masking.strategy, parts.masking)
        self.encoder = make_encoder(parts.backbone, parts.topology, parts.views.frames)
        times, joints = self.encoder.grid(parts.views.frames)
        grid = times, joints - len(self.removed)
        self.decoder = self.make_decoder(parts, grid)
        self.visible = visible_count(grid[0] * grid[1], sum(self.ratio) / 2)

    def make_decoder(self, parts: Parts, grid: tuple[int, int]) -> nn.Module:
        """What predicts, for a grid of (time patches, joints)."""
        return Decoder(parts.decoder, self.encoder.width, grid, 3 * self.encoder.patch)

    def target(self, joints: Float[Tensor, "sequence time joint 3"]) -> Float[Tensor, "sequence time joint 3"]:
        """What the decoder predicts, before it is cut into patches: the coordinates themselves."""
        return joints

    def values(
        self, joints: Float[Tensor, "sequence time joint 3"], patch: int | None = None
    ) -> Float[Tensor, "sequence token value"]:
        """The target of each token, flat and time-major; `patch` frames where not as many as the encoder's."""
        found = patchify(self.target(joints), patch or self.encoder.patch).flatten(1, 2)
        return patch_normalised(found) if self.config.normalise else found

    def shown(self, batch: Batch, draws: Draws) -> Shown:
        """The sequences to train on, masked."""
        absent = self.config.persons == "mamp"
        return shown(batch, self.encoder, self.masking, self.ratio, self.visible, draws, absent, self.removed)

    def loss(self, views: dict[str, Batch], draws: Draws) -> dict[str, Tensor]:
        """Mean over hidden, observed tokens of all persons of the mean squared error over a patch's values."""
        seen = self.shown(views["clip"], draws)
        tokens = self.encoder(seen.joints, visible=seen.visible).patches
        prediction = self.decoder(tokens, seen.visible)
        error = (prediction - self.values(seen.joints)).square().mean(-1)
        hidden = seen.hidden
        return {"loss": masked_mean(error, hidden), "masked": hidden.float().mean(), "mask_filled": seen.filled}
