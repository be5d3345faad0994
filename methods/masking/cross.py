"""Masking guided by the hierarchy of joints and by global attention, and both in turns (HA-CM, Yin and Cao; the
released code is github YinxPeng/HA-CM-main, commit a9ef7c2).

Two criteria score the observed tokens of a sequence, from the encoder's Euclidean embeddings e[t, v] (patch and
position embedding):

- hierarchy, in space: with p = exp0(e), h[t, v] = sum over joints u of d(p[t, v], p[t, u]) + 0.01 d(p[t, v], m[t]),
  d the Poincare distance and m[t] the mean of the ball points of the inner joints (`Topology.inner`, HA-CM's pruned
  "father" joints);
- attention, in time: with fixed random maps q = Q e and k = K e, a[v, t, s] = softmax over joints v of
  sqrt(width) q[t, v] . k[s, v], and the score is g[s, v] = sum over t of a[v, t, s].

Which are hidden: z = score / (tau max score); Gumbel top-k on z, sampling without replacement with weights softmax(z)
(its denominator, the same for all tokens of a group, changes no order).

Choices:
- Direction. The text calls the scores "the masking criterion", by which it replaces the distance metric of MAMP, its
  baseline, and MAMP hides what scores high; so high scores are hidden. The released code keeps them visible
  (`masking.keep_high`), and the published figures may come from that.
- The mean of the inner joints is of the same embeddings as all others. A small departure: the release maps them without
  their position embedding.
- Q and K only feed a choice of tokens, so they never receive a gradient in the release and keep their Xavier initial
  values. Here they are drawn once from a key of their own, the same in all runs, and are no parameters.
- The release multiplies the logits by sqrt(width) where attention divides. ASSUMPTION: meant so (`masking.sharp`):
  for random maps q . k is about |e|^2 / sqrt(width), so that divided logits shrink with the width and tokens score
  alike (demo, width 64, untrained: a standard deviation of 0.09 of the largest score against 0.23).
- Distances have the textbook's factor 2, the release's 4 is `masking.distance_factor`.
- The release scores in `cross` the odd patches joint by joint and reads the scores patch by patch, so they meet the
  wrong tokens: `masking.release_order`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from methods.hyperbolic import distances, exp0
from methods.masking import MaskContext, Masking, MaskingConfig, hide_lowest
from methods.precision import full, without_autocast
from skeletons.errors import BadInput
from skeletons.randomness import Draws

Scores = Float[Tensor, "sequence patch joint"]


def hierarchy_scores(
    embeddings: Float[Tensor, "sequence patch joint width"],
    observed: Bool[Tensor, "sequence patch joint"],
    inner: tuple[int, ...],
    config: MaskingConfig,
) -> Scores:
    """Sum of Poincare distances to the observed joints of the same patch, and a little of that to the inner joints."""
    c = config.curvature
    points = exp0(embeddings, c)
    apart = distances(points, points, c, config.distance_factor)
    score = (apart * observed[:, :, None]).sum(-1)
    if inner:
        middle = points[:, :, list(inner)].mean(2, keepdim=True)
        score = score + config.inner_weight * distances(points, middle, c, config.distance_factor)[..., 0]
    return score * observed


def attention_scores(
    embeddings: Float[Tensor, "sequence patch joint width"],
    observed: Bool[Tensor, "sequence patch joint"],
    query: Float[Tensor, "width width"],
    key: Float[Tensor, "width width"],
    sharp: bool,
) -> Scores:
    """Attention that each token receives from its joint's other times, in competition with the other joints."""
    with without_autocast(embeddings):
        q, k = (x.transpose(1, 2) for x in (embeddings @ query.T, embeddings @ key.T))  # sequence, joint, patch, width
        logits = q @ k.transpose(-1, -2) * embeddings.shape[-1] ** (0.5 if sharp else -0.5)
    seen = observed.transpose(1, 2)
    pair = seen[..., :, None] & seen[..., None, :]
    weights = logits.masked_fill(~pair, torch.finfo(logits.dtype).min).softmax(1) * pair
    return weights.sum(2).transpose(1, 2)


class ScoredMasking(Masking):
    """What the three strategies share: embeddings in, Gumbel top-k out."""

    needs = frozenset({"embeddings"})

    def __init__(self, config: MaskingConfig):
        super().__init__(config)
        for name in ("curvature", "distance_factor"):
            if getattr(config, name) <= 0:
                raise BadInput(f"masking.{name}={getattr(config, name)} must be positive")
        self._maps: dict[tuple[int, torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def maps(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Q and K for embeddings like these, Xavier uniform."""
        width = like.shape[-1]
        of = width, like.dtype, like.device
        if of not in self._maps:
            draws, bound = Draws("attention masking", width), math.sqrt(6 / (2 * width))
            q, k = (draws.uniform(width, width, low=-bound, high=bound).to(like) for _ in range(2))
            self._maps[of] = q, k
        return self._maps[of]

    def hierarchy(self, embeddings: Tensor, observed: Tensor, context: MaskContext) -> Scores:
        return hierarchy_scores(embeddings, observed, context.topology.inner, self.config)

    def attention(self, embeddings: Tensor, observed: Tensor) -> Scores:
        return attention_scores(embeddings, observed, *self.maps(embeddings), self.config.sharp)

    def keep(self, score: Scores, gumbel: Scores) -> Scores:
        """How much a token deserves to stay visible, chance included; its order within a group is what counts."""
        if self.config.tau <= 0:  # uniform
            return gumbel
        drawn = score / (score.amax((1, 2), keepdim=True) * self.config.tau + 1e-10) + gumbel
        return drawn if self.config.keep_high else -drawn


def _embeddings(context: MaskContext) -> Tensor:
    """In full precision whatever the encoder runs in: scores decide an order."""
    return full(context.embeddings)


def _gumbel(context: MaskContext, draws: Draws) -> Scores:
    return -torch.log(-torch.log(context.uniform(draws, *context.grid) + 1e-10) + 1e-10)


class HierarchyMasking(ScoredMasking):
    """The hierarchy of joints scores all tokens of a sequence."""

    name = "hierarchy"
    needs = frozenset({"embeddings", "topology"})
    reads = ("ratio", "tau", "keep_high", "curvature", "inner_weight", "distance_factor")

    def __call__(self, context: MaskContext, draws: Draws) -> Tensor:
        score = self.hierarchy(_embeddings(context), context.observed, context)
        return hide_lowest(self.keep(score, _gumbel(context, draws)), context)


class AttentionMasking(ScoredMasking):
    """Global attention over time scores all tokens of a sequence."""

    name = "attention"
    reads = ("ratio", "tau", "keep_high", "sharp")

    def __call__(self, context: MaskContext, draws: Draws) -> Tensor:
        score = self.attention(_embeddings(context), context.observed)
        return hide_lowest(self.keep(score, _gumbel(context, draws)), context)


class CrossMasking(ScoredMasking):
    """Odd-even cross-grouping: attention chooses among the even time patches (0, 2, ...), hierarchy among the odd ones.

    Each group keeps its own share of the visible tokens, by the number of its observed tokens (rounded up for the even
    group; the release rounds both down). A view of one time patch is all in the even group: attention alone.
    """

    name = "cross"
    needs = frozenset({"embeddings", "topology"})
    reads = (*HierarchyMasking.reads, "sharp", "release_order")

    def __call__(self, context: MaskContext, draws: Draws) -> Tensor:
        embeddings, observed, gumbel = _embeddings(context), context.observed, _gumbel(context, draws)
        total = observed.sum((1, 2))
        visible = torch.minimum(observed[0].numel() - context.hidden, total)
        group = observed[:, 0::2].sum((1, 2))
        of_even = torch.div(visible * group + total - 1, total.clamp(min=1), rounding_mode="floor")
        chosen = torch.zeros_like(gumbel)
        even, odd = embeddings[:, 0::2], embeddings[:, 1::2]
        keep = self.keep(self.attention(even, observed[:, 0::2]), gumbel[:, 0::2])
        chosen[:, 0::2] = self._best(keep, observed[:, 0::2], of_even)
        if odd.shape[1]:
            score = self.hierarchy(odd, observed[:, 1::2], context)
            if self.config.release_order:
                score = score.transpose(1, 2).reshape(score.shape)
            keep = self.keep(score, gumbel[:, 1::2])
            chosen[:, 1::2] = self._best(keep, observed[:, 1::2], visible - of_even)
        return hide_lowest(chosen, context)

    @staticmethod
    def _best(keep: Scores, observed: Tensor, count: Tensor) -> Scores:
        """1 at the `count` observed tokens of each sequence that deserve most to be kept, else 0."""
        flat = torch.where(observed, keep, -torch.inf).flatten(1)
        rank = flat.argsort(1, descending=True).argsort(1)
        return (rank < count[:, None]).to(keep.dtype).view_as(keep)
