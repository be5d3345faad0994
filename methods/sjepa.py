"""S-JEPA: a joint-embedding predictive architecture for skeletons (Abdelfattah and Alahi, ECCV 2024).

Features are predicted, not coordinates. A target encoder, the exponential moving average of the view encoder, sees the
full clip as the sampler gives it. The view (context) encoder sees the visible tokens, 10 %, of a geometrically
transformed copy. A predictor fills the hidden places with mask tokens and predicts the target encoder's output there.
With target features t, predicted features p and the centre c, for each hidden token

    q = softmax((t - c) / 0.06),  loss = -sum over channels of q log softmax(p / 0.1),

averaged over the hidden tokens of the batch; no gradient flows into t. After each step c moves towards the batch's
mean t with momentum 0.9. The target encoder is the one that is kept.

Neither code nor full text is in our sources. From notes on the paper: the sizes (MAMP's backbone, a predictor of 5
blocks), motion-aware masking of 90 %, targets chosen at the target encoder's output, loss, temperatures, both momenta
(encoder: 0.9999 to 1 along a cosine), 1,200 epochs of batches of 256. ASSUMPTIONS, where nothing is published:

- The transformation: rotation by U(-0.3, 0.3) rad about each axis (MAMP's), translation by U(-0.1, 0.1) m along each
  axis, mirroring with probability 0.5 (x negated, left and right joints swapped); one draw a clip, all its persons and
  frames alike. Nothing else augments the clip (`augment` is none in the YAML; under `setting=matched` the transformed
  copy comes on top of what all methods share).
- A hidden token's target is the token of the same time and joint *name*, also where the copy is mirrored. The target
  is never mirrored, so this asks for features that do not tell left from right: on data with classes that are each
  other's mirror image nothing is mirrored here.
- The mask is drawn on the transformed copy, the one that is masked (motion of patches hardly changes under it).
- tau 0.8 and 20 epochs of warm-up (MAMP's). Every present person is a sequence; unobserved tokens are no targets.
- The predictor adds its own positions to all tokens, as MAMP's decoder does. The centre starts at 0 and follows the
  mean over the targets of the loss, hidden observed tokens, each step using the centre before it moves (DINO).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.base import ONE_VIEW, Method, MethodConfig, Parts
from methods.decoder import Decoder
from methods.distributed import total
from methods.encoder import Encoder, make_encoder
from methods.losses import masked_mean
from methods.masking import observed_patches, strategy, visible_count
from methods.masking.tokens import shown
from methods.persons import present_ones
from methods.precision import full
from methods.teacher import follow, teacher_of
from skeletons.augment import rotation_matrices
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch
from skeletons.topology import Topology


@dataclass
class SJepaConfig(MethodConfig):
    """S-JEPA's fields.

    Attributes:
        prediction_temperature, target_temperature: of the two softmaxes over channels.
        centre_momentum: of the centre that is subtracted from targets.
        rotation: largest angle of the context's copy about each axis, radians.
        translation: its largest shift along each axis, metres.
        mirror: probability that it is mirrored.
    """

    name: str = "sjepa"
    prediction_temperature: float = 0.1
    target_temperature: float = 0.06
    centre_momentum: float = 0.9
    rotation: float = 0.3
    translation: float = 0.1
    mirror: float = 0.5

    def check(self) -> None:
        """Raises BadInput for values that make no sense."""
        for name in ("prediction_temperature", "target_temperature"):
            if getattr(self, name) <= 0:
                raise BadInput(f"method.{name}={getattr(self, name)} must be positive")
        for name in ("rotation", "translation"):
            if getattr(self, name) < 0:
                raise BadInput(f"method.{name}={getattr(self, name)} must not be negative")
        if not 0 <= self.mirror <= 1:
            raise BadInput(f"method.mirror={self.mirror} is a probability: between 0 and 1")
        if not 0 <= self.centre_momentum < 1:
            raise BadInput(f"method.centre_momentum={self.centre_momentum} must be in [0, 1)")


class GeometricView:
    """A mirrored, rotated and shifted copy of every clip; its persons and frames alike."""

    def __init__(self, config: SJepaConfig, topology: Topology, chiral: bool = False):
        self.config = config
        self.swap = torch.tensor(topology.mirror) if config.mirror > 0 and not chiral else None

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        c, rows, device = self.config, len(batch), batch.joints.device
        joints, observed = batch.joints, batch.observed

        def draw(what: str, *shape: int) -> Tensor:  # drawn by clip, so that ranks can slice
            return draws.fork(what).uniform(rows, *shape).to(device)

        if self.swap is not None:
            swap, mirrored = self.swap.to(device), draw("mirror") < c.mirror
            across = joints.index_select(3, swap) * joints.new_tensor([-1.0, 1.0, 1.0])
            joints = torch.where(mirrored[:, None, None, None, None], across, joints)
            observed = torch.where(mirrored[:, None, None, None], observed.index_select(3, swap), observed)
        turn = rotation_matrices((2 * draw("rotate", 3) - 1) * c.rotation).to(joints.dtype)
        shift = ((2 * draw("shift", 3) - 1) * c.translation).to(joints.dtype)
        joints = torch.einsum("rdc,rptjc->rptjd", turn, joints) + shift[:, None, None, None]
        return replace(batch, joints=joints, observed=observed)


class SJepa(Method):
    """See the module's text. The target encoder is the one that is kept."""

    name = "sjepa"
    Config = SJepaConfig
    augments = True
    accepts = frozenset({"patches", "topology", "embeddings"})
    reads = ("method", "backbone", "decoder", "teacher", *ONE_VIEW, "augment", "train")

    config: SJepaConfig
    centre: Tensor
    batch_centre: Tensor

    def __init__(self, parts: Parts):
        super().__init__()
        self.config, self.topology = parts.method, parts.topology
        self.config.check()
        self.momentum, self.steps = parts.teacher, max(1, parts.steps)
        self.ratio = parts.masking.range()
        self.masking = strategy(parts.masking.strategy, parts.masking)
        self.view = GeometricView(self.config, parts.topology, parts.chiral)
        self.encoder = make_encoder(parts.backbone, parts.topology, parts.views.frames)
        self.target_encoder = teacher_of(self.encoder)
        grid, width = self.encoder.grid(parts.views.frames), self.encoder.width
        self.predictor = Decoder(parts.decoder, width, grid, width)
        self.visible = visible_count(grid[0] * grid[1], sum(self.ratio) / 2)
        self.register_buffer("centre", torch.zeros(width))
        # What the centre moves to after the step; between steps it means nothing, so no checkpoint holds it.
        self.register_buffer("batch_centre", torch.zeros(width), persistent=False)

    def train(self, mode: bool = True) -> SJepa:
        """The target encoder stays in evaluation mode: no stochastic depth in targets."""
        super().train(mode)
        self.target_encoder.eval()
        return self

    @property
    def kept(self) -> Encoder:
        return self.target_encoder

    def loss(self, views: dict[str, Batch], draws: Draws) -> dict[str, Tensor]:
        """Mean over hidden, observed tokens of the cross-entropy between target and predicted features."""
        c, batch = self.config, views["clip"]
        context, batch = (x.in_stream(self.topology) for x in (self.view(batch, draws.fork("view")), batch))
        seen = shown(context, self.encoder, self.masking, self.ratio, self.visible, draws)
        prediction = full(self.predictor(self.encoder(seen.joints, visible=seen.visible).patches, seen.visible))

        joints, observed, _ = present_ones(batch)
        observed = observed_patches(observed, self.encoder.patch).flatten(1)
        hidden = observed.scatter(1, seen.visible, False)  # observed in the clip itself, whose features are the targets
        with torch.no_grad():
            target = full(self.target_encoder(joints).patches).flatten(1, 2)
            share = ((target - self.centre) / c.target_temperature).softmax(-1)
            count = total(hidden.sum())
            mean = total((target * hidden[..., None]).sum((0, 1))) / count.clamp(min=1)
            self.batch_centre.copy_(torch.where(count > 0, mean, self.centre))
        error = -(share * (prediction / c.prediction_temperature).log_softmax(-1)).sum(-1)
        with torch.no_grad():  # what is left when every target is predicted exactly
            entropy = masked_mean(torch.special.entr(share).sum(-1), hidden)
        return {
            "loss": masked_mean(error, hidden),
            "target_entropy": entropy,
            "masked": hidden.float().mean(),
            "mask_filled": seen.filled,
        }

    def after_step(self, progress: float) -> None:
        follow(self.target_encoder, self.encoder, self.momentum.at(progress, self.steps))
        self.centre.lerp_(self.batch_centre, 1 - self.config.centre_momentum)
