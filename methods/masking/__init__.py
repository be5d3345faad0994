"""Masking strategies: what is hidden from the student.

A mask is bool (sequence, time patch, joint patch), True where hidden. A strategy is a small object
`(context, draws) -> Mask`; it says what it needs, whether it hits the asked count exactly, and its version. A method
says what it accepts; within that any strategy runs under any masked method. The strategies stand in the
files of this folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from methods.registry import import_files
from skeletons.errors import BadInput, check_choices, unknown
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
        keep_high: HA-CM's strategies keep tokens of high scores visible rather than hide them (see masking/cross.py).
        curvature: c of the Poincare ball in which the hierarchy is measured (HA-CM: 1).
        inner_weight: of the distance to the mean of the inner joints in it (HA-CM's release: 0.01).
        distance_factor: in the Poincare distance: 2, or 4 (HA-CM's release).
        sharp: attention logits are multiplied by sqrt(width) (HA-CM's release), not divided by it.
        release_order: apply the hierarchy's scores to the wrong tokens, as HA-CM's release does under `cross`.
        global_probability: share of global views that are masked at all (SLiM: all; its release: 0.5).
        ratio_draw: uniform (each view draws its ratio) or stratified (a batch covers the range evenly; the release).
        local_largest_area: `largest_area` of local views; 0 means the same. 1 is the release's: half of the *global*
            view's tokens, which is never less than a whole local view.
        subsets: joints of a tube: connected, contiguous (stretches of the part's joints in the tree's order; the
            release) or any.
        volume: constant (duration = area / width) or free (any duration).
    """

    strategy: str = "tube"
    global_view: str | None = None
    local_view: str | None = None
    ratio: Any = field(default_factory=lambda: [0.5, 0.9])
    local_probability: float = 0.5
    tau: float = 0.8
    least_area: float = 0.04
    largest_area: float = 0.5
    keep_high: bool = False
    curvature: float = 1.0
    inner_weight: float = 0.01
    distance_factor: float = 2.0
    sharp: bool = True
    release_order: bool = False
    global_probability: float = 1.0
    ratio_draw: str = "uniform"
    local_largest_area: float = 0.0
    subsets: str = "connected"
    volume: str = "constant"

    def check(self) -> None:
        """Raises BadInput for unknown names and shares that are none."""
        self.range()
        check_choices(
            "masking",
            self,
            ratio_draw=("uniform", "stratified"),
            subsets=("connected", "contiguous", "any"),
            volume=("constant", "free"),
        )
        for name in ("local_probability", "global_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"masking.{name}={getattr(self, name)} must be a share, between 0 and 1")

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
        embed: the encoder's embedding of joints, before its blocks.
        removed: joints that are never shown nor predicted; their tokens count as unobserved.
    """

    joints: Float[Tensor, "sequence time joint 3"]
    observed: Bool[Tensor, "sequence patch joint"]
    patch: int
    topology: Topology
    rows: tuple[int, int, int]
    hidden: Int[Tensor, " sequence"]
    embed: Callable[[Tensor], Tensor] | None = None
    removed: tuple[int, ...] = ()

    @property
    def kept(self) -> Bool[Tensor, " joint"]:
        """The joints that are not removed."""
        joints = range(self.observed.shape[2])
        return torch.tensor([j not in self.removed for j in joints], device=self.observed.device)

    @property
    def embeddings(self) -> Float[Tensor, "sequence patch joint width"]:
        """Embeddings of all tokens; no gradient flows through a choice of tokens."""
        assert self.embed is not None, "this method offers no embeddings"
        with torch.no_grad():
            return self.embed(self.joints)

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


def mask_context(
    batch: Batch,
    patch: int,
    topology: Topology,
    ratio: tuple[float, float],
    draws: Draws,
    embed: Callable[[Tensor], Tensor] | None = None,
    removed: tuple[int, ...] = (),
) -> MaskContext:
    """The context of a batch, with every person slot as a sequence and the number of tokens to hide drawn.

    Removed joints do not count as tokens that the ratio is a share of; they are hidden on top.

    A fixed ratio r hides N - int(N (1 - r)) tokens, MAMP's rule with its floating point (750 tokens at 0.9: 74 stay
    visible); a drawn one hides floor(N r) (SLiM, algorithm 1).
    """
    rows, persons = batch.joints.shape[:2]
    flat = batch.fold()
    observed = observed_patches(flat.observed[:, 0], patch)
    without = observed.shape[1] * len(removed)
    count = observed[0].numel() - without
    context = MaskContext(
        flat.joints[:, 0],
        observed,
        patch,
        topology,
        (batch.views, rows // batch.views, persons),
        torch.full((len(observed),), visible_count(count, ratio[0]), device=observed.device),
        embed,
        removed,
    )
    if removed:
        context.observed = observed & context.kept
    if ratio[0] == ratio[1]:
        context.hidden = count - context.hidden
    else:
        share = ratio[0] + (ratio[1] - ratio[0]) * context.uniform(draws.fork("ratio"))
        context.hidden = (count * share).long()
    if removed:
        context.hidden = context.hidden + without
    return context


def visible_count(tokens: int, ratio: float) -> int:
    """Tokens that stay visible at a fixed ratio: int(N (1 - r)) as MAMP computes it, at least one."""
    return max(1, int(tokens * (1 - ratio)))


Strategy = Callable[[MaskContext, Draws], Tensor]
STRATEGIES: dict[str, type[Masking]] = {}


class Masking(ABC):
    """A masking strategy.

    Attributes:
        name: as in `masking.strategy`.
        needs: what it looks at: patches, topology, embeddings.
        exact: it hides exactly the asked count.
        reads: the fields of MaskingConfig that change what it does (part of a run's identity).
        options: more of them, part of the identity only where they differ from their defaults.
        version: bump when its meaning changes.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    exact: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("ratio",)
    options: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1

    def __init__(self, config: MaskingConfig):
        self.config = config

    def __init_subclass__(cls) -> None:
        if "name" in cls.__dict__:
            STRATEGIES[cls.name] = cls

    @abstractmethod
    def __call__(self, context: MaskContext, draws: Draws) -> Bool[Tensor, "sequence patch joint"]:
        """The mask of every sequence, True where hidden."""


def hide_lowest(score: Float[Tensor, "sequence patch joint"], context: MaskContext) -> Tensor:
    """Mask that hides `context.hidden` tokens of each sequence: removed joints' first, then unobserved ones, then by
    score, lowest first."""
    worth = torch.where(context.observed, score, -torch.inf)
    if context.removed:
        worth = torch.where(context.observed | ~context.kept, worth, torch.finfo(score.dtype).min)
    rank = worth.flatten(1).argsort(1).argsort(1)
    return (rank < context.hidden[:, None]).view_as(score)


def all_strategies() -> dict[str, type[Masking]]:
    """Every strategy by name: each file of this folder is imported, so a new one needs no list to be added to."""
    import_files(__name__)
    return STRATEGIES


def strategy(name: str, config: MaskingConfig) -> Masking:
    """The strategy called `name`.

    Raises:
        BadInput: there is none, or the ratio makes no sense.
    """
    if name not in all_strategies():
        raise unknown("masking strategy", name, STRATEGIES)
    config.check()
    return STRATEGIES[name](config)
