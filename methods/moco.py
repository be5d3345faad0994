"""What SkeletonCLR and AimCLR share: momentum contrast (He et al., CVPR 2020) on skeletons.

A query network (encoder and projector) is trained to tell its clip's key from keys of other clips. Keys come from a
second network that follows the first as an exponential moving average; the other clips' keys are those of past batches,
in a queue. The queue takes a batch's keys and the key network moves after the optimiser's step, which is the released
order: there both come before the next batch's keys are computed.

- A clip's vector: patch tokens of every present person are averaged where they were observed, then over persons, and
  projected to a unit vector. (The released code averages empty second persons too.)
- BatchNorm (an ST-GCN's): only parameters follow. The key network normalises by its own batches, in train mode as the
  query network does, and keeps its own running statistics, as in the released code.
- The query encoder is the one that is kept.
- The queue starts with random unit vectors.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from methods.base import ONE_VIEW, Method, MethodConfig, Parts
from methods.distributed import gather
from methods.encoder import make_encoder
from methods.heads import HeadConfig
from methods.masking import observed_patches
from methods.persons import mean_over_persons, pool, present_ones
from methods.precision import full
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch


@dataclass
class MocoConfig(MethodConfig):
    """Attributes:
    temperature: of the contrast.
    """

    temperature: float = 0.07


class Projector(nn.Sequential):
    """MLP of two layers, heads.hidden and heads.bottleneck wide, with ReLU between them (MoCo v2)."""

    step_part = "heads"  # where its operations are counted

    def __init__(self, width: int, config: HeadConfig):
        super().__init__(nn.Linear(width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.bottleneck))


class Network(nn.Module):
    """Encoder and projector: what the query and the key network each are."""

    def __init__(self, parts: Parts):
        super().__init__()
        self.encoder = make_encoder(parts.backbone, parts.topology, parts.views.frames)
        self.projector = Projector(self.encoder.width, parts.heads)

    def tokens(
        self, view: Batch
    ) -> tuple[
        Float[Tensor, "sequence patch joint width"], Bool[Tensor, "sequence patch joint"], Int[Tensor, " sequence"]
    ]:
        """Patch tokens of the present persons, which of them are observed, and the persons' slots."""
        joints, observed, at = present_ones(view)
        return self.encoder(joints).patches, observed_patches(observed, self.encoder.patch), at

    def project(self, tokens: Tensor, observed: Tensor, at: Tensor, view: Batch) -> Float[Tensor, "clip bottleneck"]:
        """Unit vector of each clip, in float32 at least: temperatures are small."""
        vectors = self.projector(mean_over_persons(pool(tokens, observed), at, view))
        return F.normalize(full(vectors), dim=1)

    def forward(self, view: Batch) -> Float[Tensor, "clip bottleneck"]:
        return self.project(*self.tokens(view), view)


class Queue(nn.Module):
    """Keys of past batches, the oldest overwritten first.

    Args:
        length: how many.
        width: of a key.
        draws: what it starts with.
    """

    def __init__(self, length: int, width: int, draws: Draws):
        super().__init__()
        if length < 1:
            raise BadInput(f"queue.length={length} must be at least 1")
        self.register_buffer("keys", F.normalize(draws.normal(length, width), dim=1).to(torch.get_default_dtype()))
        self.register_buffer("next", torch.zeros((), dtype=torch.long))
        self.keys: Tensor
        self.next: Tensor

    @torch.no_grad()
    def push(self, keys: Float[Tensor, "key width"]) -> None:
        """Take new keys; of more than fit, the last."""
        length = len(self.keys)
        keys = keys[-length:].to(self.keys.dtype)
        at = (self.next + torch.arange(len(keys), device=keys.device)) % length
        self.keys.index_copy_(0, at, keys)
        self.next.copy_((self.next + len(keys)) % length)


class Moco(Method):
    """Networks and queue; a method adds `loss`, which leaves the batch's keys in `fresh`."""

    Config = MocoConfig
    reads = (
        "method",
        "backbone",
        "heads.hidden",
        "heads.bottleneck",
        "teacher",
        "queue",
        *ONE_VIEW,
        "augment",
        "train",
    )

    config: MocoConfig
    fresh: Tensor | None = None

    def __init__(self, parts: Parts):
        super().__init__()
        self.config, self.topology = parts.method, parts.topology
        if self.config.temperature <= 0:
            raise BadInput(f"method.temperature={self.config.temperature} must be positive")
        self.momentum, self.steps = parts.teacher, max(1, parts.steps)
        self.query = Network(parts)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.encoder = self.query.encoder
        # The weights' seed keys the queue too.
        self.queue = Queue(parts.queue.length, parts.heads.bottleneck, Draws(torch.initial_seed(), "queue"))

    @torch.no_grad()
    def keys_of(self, view: Batch) -> Float[Tensor, "clip bottleneck"]:
        """Keys of a batch, which enter the queue after this step."""
        self.fresh = self.key(view)
        return self.fresh

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        if self.fresh is not None:
            self.queue.push(gather(self.fresh))
            self.fresh = None
        weight = 1 - self.momentum.at(progress, self.steps)
        torch._foreach_lerp_(list(self.key.parameters()), list(self.query.parameters()), weight)
