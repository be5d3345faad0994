"""AimCLR: contrast under extreme augmentations (Guo et al., AAAI 2022; github Levigty/AimCLR).

SkeletonCLR with a third view of each clip, extremely augmented (skeletons/augment_extreme.py). Its vector e, and its
vector d after dropping what attention marks, must be as similar to the key and to the queue as the normal query q is:

    p(v) = softmax([v.k, v.m_1, ..., v.m_K] / T),   L = InfoNCE(q) + (CE(p(q), p(e)) + CE(p(q), p(d))) / 2

CE(p, r) = -sum p log r; no gradient passes through p(q) (D3M). In the second half of training (epoch 150 of 300) the
nearest key in the queue of each of q, e and d joins k as positives of InfoNCE, which then is the mean of -log p over
the positives (nearest-neighbour mining, top 1).

The drop (net/att_drop.py) looks at the extreme view's tokens. Attention of a token's channel is SimAM's

    a = sigmoid((x - mean)^2 / (4 (var + 1e-4)) + 0.5)

with mean and var (divided by n - 1) over the sequence's tokens. Joints whose mean attention over time and channels is
at least 0.7 are dropped whole, then every single value whose attention is; what stays is multiplied, each time, by the
number of all over the number kept, in the batch. (The paper's "keep probability 0.7" is this threshold.)

Published beside this: as for SkeletonCLR (methods/skeletonclr.py), whose ASSUMPTIONs hold here too. The time flip of
the extreme view is the released feeder's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from methods.base import Parts
from methods.distributed import everywhere, total
from methods.losses import contrasts, info_nce, soft_cross_entropy
from methods.moco import Moco, MocoConfig
from methods.precision import full
from skeletons.augment_extreme import ExtremeConfig, extreme
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch


@dataclass
class AimClrConfig(MocoConfig):
    """AimCLR's fields.

    Attributes:
        drop: attention from which values are dropped; sigmoid(0.5) = 0.62 is the least there is, 1 drops nothing.
        mining: share of the run after which nearest neighbours are mined; 1 means never (the last step has less).
        neighbours: of each vector that become positives.
        extreme: strength of the extreme view's augmentations.
    """

    name: str = "aimclr"
    drop: float = 0.7
    mining: float = 0.5
    neighbours: int = 1
    extreme: ExtremeConfig = field(default_factory=ExtremeConfig)


class AimCLR(Moco):
    """See the module's text. Views: normal query, normal key, extreme query."""

    name = "aimclr"
    Config = AimClrConfig
    crops = 3
    augments = True

    config: AimClrConfig

    def __init__(self, parts: Parts):
        super().__init__(parts)
        if not 0 <= self.config.neighbours <= parts.queue.length:
            raise BadInput(
                f"method.neighbours={self.config.neighbours} must be between 0 and queue.length={parts.queue.length}"
            )
        self.chiral = parts.chiral
        self.register_buffer("progress", torch.zeros(()))
        self.progress: Tensor

    def loss(self, views: dict[str, Batch], draws: Draws) -> dict[str, Tensor]:
        """InfoNCE of the normal query and D3M of the extreme ones."""
        c = self.config
        query, key, strong = views["clip"].each_view()
        joints, observed = extreme(
            strong.joints, strong.observed, self.topology, draws.fork("extreme"), c.extreme, self.chiral
        )
        strong = replace(strong, joints=joints, observed=observed)
        query, key, strong = (view.in_stream(self.topology) for view in (query, key, strong))
        q, k = self.query(query), self.keys_of(key)
        tokens, seen, at = self.query.tokens(strong)
        e = self.query.project(tokens, seen, at, strong)
        d = self.query.project(attention_drop(tokens, c.drop), seen, at, strong)
        logits = [contrasts(vector, k, self.queue.keys, c.temperature) for vector in (q, e, d)]
        positive = self.positives(logits)
        contrast = info_nce(logits[0], positive)
        target = logits[0].detach().softmax(1)
        alike, alike_dropped = (soft_cross_entropy(other, target) for other in logits[1:])
        return {
            "loss": contrast + (alike + alike_dropped) / 2,
            "contrast": contrast,
            "d3m": alike,
            "d3m_dropped": alike_dropped,
            "positives": positive.sum(1).float().mean(),
        }

    def positives(self, logits: list[Float[Tensor, "clip choice"]]) -> Tensor:
        """bool (clip, choice): the key, and once mining has begun the nearest of the queue to any of the vectors."""
        near = torch.zeros_like(logits[0], dtype=torch.bool)
        for found in logits:
            near.scatter_(1, 1 + found[:, 1:].topk(self.config.neighbours).indices, True)
        near &= self.progress >= self.config.mining
        near[:, 0] = True
        return near

    def after_step(self, progress: float) -> None:
        super().after_step(progress)
        self.progress.fill_(progress)


def attention_drop(
    tokens: Float[Tensor, "sequence patch joint width"], threshold: float
) -> Float[Tensor, "sequence patch joint width"]:
    """Tokens without what SimAM's attention marks; the marks pass no gradient."""
    tokens = full(tokens)
    with torch.no_grad():
        square = (tokens - tokens.mean((1, 2), keepdim=True)) ** 2
        variance = square.sum((1, 2), keepdim=True) / (tokens[0, ..., 0].numel() - 1)
        attention = (square / (4 * (variance + 1e-4)) + 0.5).sigmoid()
        joint = (attention.mean((1, 3), keepdim=True) < threshold).to(tokens.dtype)
        value = (attention < threshold).to(tokens.dtype)
        kept = torch.ones_like(value)
        for stays in (joint, value):
            kept = kept * stays * (everywhere(stays.numel(), stays) / total(stays.sum()).clamp(min=1))
    return tokens * kept
