"""Masking strategies: what is hidden from the student.

A mask is bool (sequence, time patch, joint patch), True where hidden. A strategy is a small object
`(context, draws) -> Mask`; it says what it needs, whether it hits the asked count exactly, and its version. A method
says what it accepts; within that any strategy runs under any masked method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from methods.backbone import patchify
from skeletons.errors import BadInput, unknown
from skeletons.randomness import Draws
from skeletons.sampling import Batch
from skeletons.topology import Topology


@dataclass
class MaskingConfig:
    """What is hidden, and how much of it.

    Attributes:
        strategy: of every masked view, unless a view names its own.
        global_view, local_view: strategies of SLiM's global and local views; null means `strategy`.
        ratio: share of tokens hidden: a number, or [low, high] drawn uniformly for each sequence.
        local_probability: share of local views that are masked at all (SLiM, appendix C: 0.5).
        tau: temperature of motion-aware sampling (MAMP: 0.8 on NTU-60, 0.75 on NTU-120); 0 means uniform.
        least_area: smallest tube, as a share of the tokens (SLiM: 8 of 200).
        largest_area: largest tube, as a share of the tokens (SLiM: 0.5).
    """

    strategy: str = "tube"
    global_view: str | None = None
    local_view: str | None = None
    ratio: Any = field(default_factory=lambda: [0.5, 0.9])
    local_probability: float = 0.5
    tau: float = 0.8
    least_area: float = 0.04
    largest_area: float = 0.5

    def range(self) -> tuple[float, float]:
        """(low, high) of the ratio.

        Raises:
            BadInput: not a number or a pair inside (0, 1).
        """
        pair = list(self.ratio) if isinstance(self.ratio, list | tuple) else [self.ratio] * 2
        if len(pair) != 2 or not all(isinstance(r, int | float) for r in pair) or not 0 < pair[0] <= pair[1] < 1:
            raise BadInput(f"masking.ratio={self.ratio}: write a number in (0, 1), or two of them as [low, high]")
        return float(pair[0]), float(pair[1])


@dataclass
class MaskContext:
    """What a strategy may look at, for sequences of one person each.

    Attributes:
        joints: the augmented view.
        observed: which tokens have at least half of their frames observed.
        patch: frames of a patch.
        topology: of the joints.
        rows: (view, clip, person) sizes whose product is the number of sequences, for draws by clip.
        hidden: how many tokens of each sequence to hide.
    """

    joints: Float[Tensor, "sequence time joint 3"]
    observed: Bool[Tensor, "sequence patch joint"]
    patch: int
    topology: Topology
    rows: tuple[int, int, int]
    hidden: Int[Tensor, " sequence"]

    @property
    def grid(self) -> tuple[int, int]:
        return self.observed.shape[1], self.observed.shape[2]

    def uniform(self, draws: Draws, *shape: int) -> Tensor:
        """Uniform numbers (sequence, *shape), drawn by clip so that ranks can slice."""
        views, clips, persons = self.rows
        u = draws.uniform(clips, views, persons, *shape)
        return u.transpose(0, 1).reshape(views * clips * persons, *shape).to(self.joints.device)


def observed_patches(observed: Bool[Tensor, "sequence time joint"], patch: int) -> Bool[Tensor, "sequence patch joint"]:
    """A token counts as observed where at least half of its frames are."""
    return observed.unflatten(1, (-1, patch)).float().mean(2) >= 0.5


def mask_context(batch: Batch, patch: int, topology: Topology, ratio: tuple[float, float], draws: Draws) -> MaskContext:
    """The context of a batch, with every person slot as a sequence and the number of tokens to hide drawn.

    A fixed ratio r hides N - int(N (1 - r)) tokens, MAMP's rule with its floating point (750 tokens at 0.9: 74 stay
    visible); a drawn one hides floor(N r) (SLiM, algorithm 1).
    """
    rows, persons = batch.joints.shape[:2]
    flat = batch.fold()
    observed = observed_patches(flat.observed[:, 0], patch)
    count = observed[0].numel()
    context = MaskContext(
        flat.joints[:, 0],
        observed,
        patch,
        topology,
        (batch.views, rows // batch.views, persons),
        torch.full((len(observed),), visible_count(count, ratio[0]), device=observed.device),
    )
    if ratio[0] == ratio[1]:
        context.hidden = count - context.hidden
    else:
        share = ratio[0] + (ratio[1] - ratio[0]) * context.uniform(draws.fork("ratio"))
        context.hidden = (count * share).long()
    return context


def visible_count(tokens: int, ratio: float) -> int:
    """Tokens that stay visible at a fixed ratio: int(N (1 - r)) as MAMP computes it, at least one."""
    return max(1, int(tokens * (1 - ratio)))


Strategy = Callable[[MaskContext, Draws], Tensor]
STRATEGIES: dict[str, type[Masking]] = {}


class Masking:
    """A masking strategy.

    Attributes:
        name: as in `masking.strategy`.
        needs: what it looks at: patches, topology (embeddings and attention join them when a method offers those).
        exact: it hides exactly the asked count.
        reads: the fields of MaskingConfig that change what it does (part of a run's identity).
        version: bump when its meaning changes.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    exact: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("ratio",)
    version: ClassVar[int] = 1

    def __init__(self, config: MaskingConfig):
        self.config = config

    def __init_subclass__(cls) -> None:
        STRATEGIES[cls.name] = cls

    def __call__(self, context: MaskContext, draws: Draws) -> Bool[Tensor, "sequence patch joint"]:
        raise NotImplementedError


def hide_lowest(score: Float[Tensor, "sequence patch joint"], context: MaskContext) -> Tensor:
    """Mask that hides `context.hidden` tokens of each sequence, unobserved ones first, then those of lowest score."""
    flat = torch.where(context.observed, score, -torch.inf).flatten(1)
    rank = flat.argsort(1).argsort(1)
    return (rank < context.hidden[:, None]).view_as(score)


class NoMasking(Masking):
    """Hides nothing."""

    name = "none"
    reads = ()

    def __call__(self, context: MaskContext, draws: Draws) -> Tensor:
        return torch.zeros_like(context.observed)


class RandomMasking(Masking):
    """Every token with the same chance (SkeletonMAE as MAMP's model_mae runs it)."""

    name = "random"

    def __call__(self, context: MaskContext, draws: Draws) -> Tensor:
        return hide_lowest(context.uniform(draws, *context.grid), context)


class MotionMasking(Masking):
    """Motion-aware masking (MAMP, section 3.3): tokens that move are hidden more often.

    Intensity I[t, v] = mean |x[t, v] - x[t - 1, v]| over the values of adjacent patches, I[0] = I[1]; the hidden tokens
    are drawn without replacement with weights softmax(I / (tau max I)), by Gumbel top-k. A token keeps its place among
    the visible ones with a probability that falls with motion.
    """

    name = "motion"
    needs = frozenset({"patches"})
    reads = ("ratio", "tau")

    def __call__(self, context: MaskContext, draws: Draws) -> Tensor:
        u = context.uniform(draws, *context.grid)
        gumbel = -torch.log(-torch.log(u + 1e-10) + 1e-10)
        if self.config.tau <= 0:
            return hide_lowest(-gumbel, context)
        patches = patchify(context.joints, context.patch)
        motion = (patches[:, 1:] - patches[:, :-1]).abs().mean(-1)
        if motion.shape[1] == 0:  # one time patch: nothing moves between patches
            motion = torch.zeros_like(patches[..., 0])
        else:
            motion = torch.cat([motion[:, :1], motion], 1)
        z = motion / (motion.amax((1, 2), keepdim=True) * self.config.tau + 1e-10)
        return hide_lowest(-(z.flatten(1).log_softmax(1).view_as(z) + gumbel), context)


class TubeMasking(Masking):
    """Semantic tube masking (SLiM, section 3.3 and algorithm 1).

    Until the asked count is reached: a part of the body, a connected subset of its joints (size uniform, then uniform
    among the connected subsets of that size), and an area drawn uniformly give a tube whose duration is area / width
    (constant volume), at a random time. A tube that would overshoot, or hides nothing new, is rejected and drawn again;
    ten rejections in a row end the search, so the realised count may fall short by a few tokens.
    """

    name = "tube"
    needs = frozenset({"topology"})
    exact = False
    reads = ("ratio", "least_area", "largest_area")
    rounds = 96  # enough for ratio 0.9 on 8 x 25 tokens: 99 % of masks end within 60

    def __init__(self, config: MaskingConfig):
        super().__init__(config)
        self._table: dict[Topology, tuple[Tensor, Tensor]] = {}

    def subsets(self, topology: Topology) -> tuple[Bool[Tensor, "subset joint"], Float[Tensor, " subset"]]:
        """All subsets a tube may have, and the cumulative probability of drawing each."""
        if topology not in self._table:
            rows, weights = [], []
            parts = list(topology.parts.values())
            for members in parts:
                subsets = topology.connected_subsets(members)
                sizes = [len(s) for s in subsets]
                for subset in subsets:
                    rows.append([j in subset for j in range(len(topology))])
                    weights.append(1 / (len(parts) * len(set(sizes)) * sizes.count(len(subset))))
            self._table[topology] = torch.tensor(rows), torch.tensor(weights).cumsum(0)
        return self._table[topology]

    def __call__(self, context: MaskContext, draws: Draws) -> Tensor:
        times, joints = context.grid
        mask = torch.zeros_like(context.observed)
        if mask.is_meta:
            return mask
        tokens = times * joints
        least = max(1, round(self.config.least_area * tokens))
        largest = max(least, int(self.config.largest_area * tokens))
        u = context.uniform(draws, self.rounds, 3)
        table, cumulative = (t.to(mask.device) for t in self.subsets(context.topology))
        chosen = torch.searchsorted(cumulative, u[..., 0].contiguous()).clamp(max=len(table) - 1)
        time = torch.arange(times, device=mask.device)
        failures = torch.zeros(len(mask), dtype=torch.long, device=mask.device)
        for i in range(self.rounds):
            left = (context.hidden - mask.sum((1, 2))).clamp(max=largest)
            active = (left > 0) & (failures < 10)
            if i % 8 == 0 and not active.any():
                break
            subset = table[chosen[:, i]]
            low = left.clamp(max=least)
            area = low + (u[:, i, 1] * (left - low + 1)).floor()
            duration = (area / subset.sum(1)).round().clamp(1, times)
            begin = (u[:, i, 2] * (times - duration + 1)).floor()
            during = (time >= begin[:, None]) & (time < (begin + duration)[:, None])
            tube = during[:, :, None] & subset[:, None, :]
            new = (tube & ~mask).sum((1, 2))
            accepted = active & (new > 0) & (new <= left)
            mask = mask | (tube & accepted[:, None, None])
            failures = torch.where(accepted, 0, failures + 1)
        return mask


def strategy(name: str, config: MaskingConfig) -> Masking:
    """The strategy called `name`.

    Raises:
        BadInput: there is none, or the ratio makes no sense.
    """
    if name not in STRATEGIES:
        raise unknown("masking strategy", name, STRATEGIES)
    config.range()
    return STRATEGIES[name](config)


def visible_tokens(
    mask: Bool[Tensor, "sequence patch joint"], count: int, context: MaskContext, draws: Draws
) -> tuple[Int[Tensor, "sequence visible"], Tensor]:
    """Exactly `count` visible tokens of each sequence, for encoders that gather.

    A mask that falls short is filled with random tokens; one that hides too many gives random ones back. Unobserved
    tokens are hidden first.

    Returns:
        (flat indices in ascending order, share of tokens whose state had to be changed)
    """
    u = context.uniform(draws, *context.grid)
    score = u + (~mask).float() - 2 * (~context.observed).float()
    visible = score.flatten(1).topk(count, dim=1).indices.sort(1).values
    chosen = torch.ones_like(mask).flatten(1).scatter(1, visible, False)
    return visible, (chosen != mask.flatten(1)).float().mean()


def hidden_index(
    mask: Bool[Tensor, "sequence patch joint"], ratio: tuple[float, float]
) -> tuple[Int[Tensor, " row"], Bool[Tensor, " row"]]:
    """Flat indices of hidden tokens, filled up with 0 to one of sixteen lengths, and which of them are real.

    Allocators fragment when every step asks for another size: without the filling, memory grows by 10 MB a step on the
    CPU. On the meta device, where nothing has a value, there are as many as the ratio leads one to expect.
    """
    if mask.is_meta:
        count = round(mask.numel() * sum(ratio) / 2)
        return torch.empty(count, dtype=torch.long, device="meta"), torch.ones(count, dtype=torch.bool, device="meta")
    found = mask.flatten().nonzero()[:, 0]
    step = -(-mask.numel() // 16)
    filled = F.pad(found, (0, -len(found) % step))
    return filled, torch.arange(len(filled), device=mask.device) < len(found)
