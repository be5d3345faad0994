"""Masking by a joint's degree and by a frame's motion: PSTL's two rules, and ASMa's four pairings of them.

PSTL (Zhou et al., AAAI 2023; github YujieOuO/PSTL) takes well-connected joints and fast frames away; ASMa (TMLR
2026) pairs high degree with low motion and low degree with high motion. `draw_joints` and `draw_frames` are
their rules for inputs from which joints and frames are removed; the strategies `degree_*_motion_*` are the same ideas
as token masks, for any masked method.

The degree of a joint is its number of bones in the topology. On Kinect v2 that is not quite PSTL's list: there the tip
and the thumb of a hand are chained to it (hand degree 2), here both hang on it (hand degree 3), so spine_base (3),
spine_shoulder (4) and the two hands (3) are of high degree, in PSTL's list only the first two.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from methods.masking import MaskContext, Masking, hide_lowest
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.topology import Topology

HIGH_DEGREE = 3
"""The least degree that ASMa's abstract calls high ("degree 3 or 4")."""


def degree_weights(topology: Topology, high: bool) -> list[int]:
    """How often each joint stands in the list that is drawn from.

    High: its degree (PSTL). Low: the least common multiple of the degrees over its degree, so in proportion to
    1 / degree (ASSUMPTION: ASMa's rule for low degree is not published).
    """
    if high:
        return list(topology.degrees)
    common = math.lcm(*topology.degrees)
    return [common // d for d in topology.degrees]


def draw_joints(
    topology: Topology, count: int, high: bool, draws: Draws, threshold: bool = False
) -> tuple[Int[Tensor, " removed"], Int[Tensor, " kept"]]:
    """Joints to remove, the same for a whole batch: `count` entries, drawn without replacement from a list in which
    each joint stands as often as `degree_weights` says; a joint that is drawn twice is removed once.

    Args:
        high: prefer joints of high degree, else those of low degree.
        threshold: draw `count` different joints among those of degree 3 and more (high) or 1 and 2 (low), each with the
            same chance, or all of them where there are no more: the abstract's words read literally.

    Returns:
        (joints that are removed, joints that stay), ascending, on the CPU.

    Raises:
        BadInput: no joint may be left.
    """
    if not 0 < count < len(topology):
        raise BadInput(f"{count} joints cannot be removed from the {len(topology)} of topology {topology.name}")
    if threshold:
        among = [j for j, d in enumerate(topology.degrees) if (d >= HIGH_DEGREE) == high]
    else:
        among = [j for j, times in enumerate(degree_weights(topology, high)) for _ in range(times)]
    drawn = draws.numpy().permutation(len(among))[:count]
    gone = torch.zeros(len(topology), dtype=torch.bool, device="cpu")
    gone[[among[i] for i in drawn]] = True
    return gone.nonzero()[:, 0], (~gone).nonzero()[:, 0]


def frame_motion(
    joints: Float[Tensor, "row *person time joint 3"], observed: Bool[Tensor, "row *person time joint"]
) -> Float[Tensor, "row time"]:
    """Mean squared forward difference of each frame, over the coordinates of all joints and persons observed in it and
    in the next one; 0 in the last frame, as PSTL has it.

    Args:
        observed: must be False for absent persons.
    """
    time = joints.ndim - 3
    ahead, behind = (x.narrow(time, 1, x.shape[time] - 1) for x in (joints, observed))
    here, seen = (x.narrow(time, 0, x.shape[time] - 1) for x in (joints, observed))
    both = (behind & seen).to(joints.dtype)
    # where, not a product: what was made up may be anything
    square = torch.where(both[..., None] > 0, ahead - here, 0.0).square().sum(-1)
    others = tuple(d for d in range(1, square.ndim) if d != time)
    motion = square.sum(others) / (3 * both.sum(others)).clamp(min=1)
    return torch.cat([motion, torch.zeros_like(motion[:, :1])], 1)


def frame_counts(frames: int, patch: int) -> tuple[int, int]:
    """(frames left once a fifth is dropped by motion, frames that stay): shares 4/5 and 3/5 (PSTL: 50, 40, 30), the
    second rounded to a multiple of the encoder's patch, since fewer frames cannot be encoded."""
    kept = patch * max(1, round(0.6 * frames / patch))
    return min(frames, max(kept, round(0.8 * frames))), kept


def draw_frames(motion: Float[Tensor, "row time"], patch: int, high: bool, draws: Draws) -> Int[Tensor, "row kept"]:
    """Frames that stay, in their order: PSTL's motion-attention temporal masking.

    A fifth of the frames, those of highest motion (or, `high` False, of lowest), is dropped in each row; of the rest,
    in order of time, three quarters at random positions stay, the same positions for the whole batch. Frames of equal
    motion go in order of time. The last frame's motion is 0 by definition, so it is never among the fastest and always
    among the slowest.

    Args:
        motion: see `frame_motion`.
        patch: of the encoder, see `frame_counts`.
    """
    rest, kept = frame_counts(motion.shape[1], patch)
    order = motion.argsort(dim=1, descending=not high, stable=True)
    left = order[:, :rest].sort(1).values
    positions = torch.from_numpy(draws.numpy().permutation(rest)[:kept]).sort().values
    return left[:, positions.to(left.device)]


class DegreeMasking(Masking):
    """Tokens of joints of high (low) degree and of time patches of low (high) motion.

    Joints are ordered by a weighted draw without replacement, with weights as `degree_weights`, anew for each sequence;
    time patches by their motion, as in PSTL. Hidden are all tokens of the first joints and all tokens of the first time
    patches, shares of both growing together until the count is met (ASSUMPTION: both papers remove whole joints in one
    view and whole frames in another; here one mask holds both). What is left of the last joint or patch is random.
    """

    needs = frozenset({"patches", "topology"})
    high_degree: bool
    high_motion: bool

    def __call__(self, context: MaskContext, draws: Draws) -> Bool[Tensor, "sequence patch joint"]:
        times, count = context.grid
        u = context.uniform(draws.fork("joints"), count)
        weight = torch.tensor(degree_weights(context.topology, self.high_degree), dtype=u.dtype, device=u.device)
        joint = (-torch.log(1 - u) / weight).argsort(1).argsort(1)  # exponential clocks: a weighted order
        seen = context.observed.repeat_interleave(context.patch, 1)
        motion = frame_motion(context.joints, seen).unflatten(1, (times, context.patch)).mean(-1)
        time = motion.argsort(dim=1, descending=self.high_motion, stable=True).argsort(1)
        share = torch.minimum((time[:, :, None] + 1) / times, (joint[:, None] + 1) / count)
        # Shares differ by 1 / (times count) or not at all, so this only breaks ties.
        jitter = context.uniform(draws.fork("ties"), times, count) / (2 * times * count)
        return hide_lowest(share + jitter, context)


class HighDegreeLowMotion(DegreeMasking):
    """ASMa's first masking."""

    name, high_degree, high_motion = "degree_high_motion_low", True, False


class LowDegreeHighMotion(DegreeMasking):
    """ASMa's second masking."""

    name, high_degree, high_motion = "degree_low_motion_high", False, True


class HighDegreeHighMotion(DegreeMasking):
    """What earlier methods hide (PSTL)."""

    name, high_degree, high_motion = "degree_high_motion_high", True, True


class LowDegreeLowMotion(DegreeMasking):
    """The fourth pairing."""

    name, high_degree, high_motion = "degree_low_motion_low", False, False
