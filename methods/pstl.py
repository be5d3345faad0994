"""PSTL: partial spatio-temporal learning (Zhou et al., AAAI 2023; github YujieOuO/PSTL, SkeletonBT).

Three streams of a clip, each an own augmented crop of it, go through one encoder: the anchor f sees everything, the
spatial stream f_s a body from which joints were removed, the temporal stream f_t a shorter clip from which frames were
removed. A projector maps each stream's features to outputs z whose cross-correlation is to be the identity:

    L = BT(z, z_t) + BT(z, z_s),   BT(a, b) = sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2,   lambda = 2e-4

- Central spatial masking: 8 entries of a list in which each joint stands `degree` times, drawn without replacement; at
  most 8 joints of 25, the same for the whole batch. They are not there: neither as tokens nor in a graph.
- Motion-attention temporal masking: the fifth of the frames with the highest motion is dropped in each clip, then three
  quarters of the rest, at random positions, stay: of 50 frames 30.
- Projector: 256 -> 6144 -> 6144 -> 6144, without biases, batch normalisation and ReLU between the layers. Its widths
  are `heads.hidden` and `heads.bottleneck`.

Published (from the code): all of the above, Adam at 5e-3 with weight decay 1e-5, warm-up of 10 epochs, cosine to 0, 150
epochs of batches of 128, an ST-GCN of 16 base channels (`backbone.kind=stgcn backbone.patch=4`).

Ours, or ASSUMPTION:
- The encoder is the house's transformer unless `backbone.kind` says otherwise. Frames must be a multiple of the patch:
  48 with patch 4 for the paper's 50, of which 28 stay (28.8 rounded to whole patches).
- The number of draws is a share of the body, 8 / 25, so that it suits other topologies.
- Motion counts observed coordinates of present persons only, and is that of the clip: its persons lose the same frames.
- Features are the mean over observed tokens, then over the persons present.
- lambda is for 6,144 outputs; with fewer it is raised by 6144 / outputs, or the off-diagonal term, with its outputs^2
  entries, would shrink beside the diagonal's.
- Crops and augmentations are the house's, drawn for each clip; PSTL pads by T / 6, crops 50 frames, shears, turns about
  one axis by up to 30 degrees and flips, with one draw for a whole batch. Turning and flipping alone were too weak: on
  the demo, 1-NN of withheld subjects 45.1 untrained, 44.4 with them, 49.3 with SLiM's augmentations (one run each, 144
  clips, so +-4), which are the default.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from methods.base import ONE_VIEW, Method, MethodConfig, Parts
from methods.distributed import BatchNorm, world
from methods.encoder import Encoder, Tokens, make_encoder
from methods.heads import HeadConfig
from methods.losses import barlow_twins
from methods.masking import observed_patches
from methods.masking.degree import draw_frames, draw_joints, frame_counts, frame_motion
from methods.persons import mean_over_persons, pool, present_ones, sequences
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch
from skeletons.topology import Topology

OUTPUTS = 6144
"""Outputs of the projector for which lambda was published."""


READS = ("method", "backbone", "heads.hidden", "heads.bottleneck", "heads.layers", *ONE_VIEW, "augment", "train")
"""Configuration sections that PSTL and ASMa read."""


@dataclass
class PstlConfig(MethodConfig):
    """Fields of PSTL, and of ASMa.

    Attributes:
        off_diagonal: lambda, the weight of the cross-correlation's off-diagonal entries at 6,144 outputs.
        joints: draws of joints to remove, as a share of the body (8 of 25).
        threshold: remove joints by the threshold "degree 3 or 4" instead of in proportion to degree (an ablation).
    """

    name: str = "pstl"
    off_diagonal: float = 2e-4
    joints: float = 0.32
    threshold: bool = False


class Projector(nn.Module):
    """Linear layers without biases, batch normalisation (of this batch alone) and ReLU between them.

    Args:
        width: channels of the features.
        config: hidden and bottleneck widths, and layers.
    """

    step_part = "heads"  # where its operations are counted

    def __init__(self, width: int, config: HeadConfig):
        super().__init__()
        self.layers = nn.Sequential()
        widths = [width, *[config.hidden] * (config.layers - 1), config.bottleneck]
        for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
            if i:
                self.layers.append(BatchNorm(fan_in, track_running_stats=False))
                self.layers.append(nn.ReLU())
            self.layers.append(nn.Linear(fan_in, fan_out, bias=False))

    def forward(self, x: Float[Tensor, "row width"]) -> Float[Tensor, "row output"]:
        return self.layers(x)


class Stream(NamedTuple):
    """Tokens of the present persons of a batch of clips, and what is needed to pool them.

    Attributes:
        tokens: (sequence, patch, joint, width).
        observed: bool (sequence, patch, joint).
        batch: whose persons they are.
    """

    tokens: Tensor
    observed: Tensor
    batch: Batch

    def pooled(self, tokens: Tensor | None = None) -> Float[Tensor, "clip width"]:
        """Mean over observed tokens, then over the persons present.

        Args:
            tokens: to pool in place of the stream's own.
        """
        features = pool(self.tokens if tokens is None else tokens, self.observed)
        return mean_over_persons(features, sequences(self.batch), self.batch)


class Masker:
    """Three streams of one encoder; ASMa has two of these.

    Args:
        high_degree: remove joints of high degree, else of low.
        high_motion: remove frames of high motion, else of low.
    """

    def __init__(self, config: PstlConfig, topology: Topology, high_degree: bool, high_motion: bool):
        self.config, self.topology = config, topology
        self.high_degree, self.high_motion = high_degree, high_motion
        self.count = max(1, round(config.joints * len(topology)))
        if not self.count < len(topology):
            raise BadInput(f"method.joints={config.joints} removes all {len(topology)} joints; give a share below 1")

    def anchor(self, encoder: Encoder, batch: Batch) -> Stream:
        """Everything."""
        joints, observed, _ = present_ones(batch)
        return self._stream(encoder, encoder(joints), observed, batch)

    def spatial(self, encoder: Encoder, batch: Batch, draws: Draws) -> Stream:
        """Bodies without some joints."""
        joints, observed, _ = present_ones(batch)
        _, keep = draw_joints(self.topology, self.count, self.high_degree, draws, self.config.threshold)
        keep = keep.to(joints.device)
        return self._stream(encoder, encoder.encode_joints(joints, keep), observed.index_select(2, keep), batch)

    def temporal(self, encoder: Encoder, batch: Batch, draws: Draws) -> Stream:
        """Clips without some frames."""
        seen = batch.observed & batch.present[:, :, None, None]
        keep = draw_frames(frame_motion(batch.joints, seen), encoder.patch, self.high_motion, draws)
        at = keep[:, None, :, None].expand(-1, batch.observed.shape[1], -1, len(self.topology))
        joints = batch.joints.gather(2, at[..., None].expand(-1, -1, -1, -1, 3))
        shorter = replace(batch, joints=joints, observed=batch.observed.gather(2, at))
        joints, observed, _ = present_ones(shorter)
        return self._stream(encoder, encoder(joints), observed, shorter)

    def _stream(self, encoder: Encoder, tokens: Tokens, observed: Tensor, batch: Batch) -> Stream:
        return Stream(tokens.patches, observed_patches(observed, encoder.patch), batch)


def three_views(views: dict[str, Batch], patch: int) -> list[Batch]:
    """The views of the three streams.

    Raises:
        BadInput: too few clips or frames.
    """
    batch = views["clip"]
    found = batch.each_view()
    if len(found[0]) * world() < 2:
        raise BadInput(f"train.batch={len(found[0])}: correlations over the clips of a batch need at least 2")
    frames = batch.joints.shape[2]
    if frame_counts(frames, patch)[1] >= frames:
        raise BadInput(f"views.frames={frames} leaves no frame to remove with backbone.patch={patch}; use more frames")
    return found


class Pstl(Method):
    """See the module's text."""

    name = "pstl"
    Config = PstlConfig
    crops = 3
    reads = READS

    def __init__(self, parts: Parts):
        super().__init__()
        self.config: PstlConfig = parts.method
        self.encoder = make_encoder(parts.backbone, parts.topology, parts.views.frames)
        self.projector = Projector(self.encoder.width, parts.heads)
        self.masker = Masker(self.config, parts.topology, high_degree=True, high_motion=True)
        self.weight = self.config.off_diagonal * OUTPUTS / parts.heads.bottleneck

    def loss(self, views: dict[str, Batch], draws: Draws) -> dict[str, Tensor]:
        """BT(f, f_s) + BT(f, f_t) of the view group `clip`, three views of each clip."""
        first, second, third = three_views(views, self.encoder.patch)
        anchor = self.masker.anchor(self.encoder, first)
        spatial = self.masker.spatial(self.encoder, second, draws.fork("joints"))
        temporal = self.masker.temporal(self.encoder, third, draws.fork("frames"))
        z, z_s, z_t = (self.projector(stream.pooled()) for stream in (anchor, spatial, temporal))
        parts = {"spatial": barlow_twins(z, z_s, self.weight), "temporal": barlow_twins(z, z_t, self.weight)}
        return {"loss": parts["spatial"] + parts["temporal"], **parts}
