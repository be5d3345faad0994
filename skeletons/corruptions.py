"""What can be wrong with a skeleton, at any strength: a view of clips becomes a worse one.

Each corruption is a function of a view, a strength in physical units, draws and the body. It works on the view that an
encoder would be given (resampled, centred on the clip's first root) and on all of the batch at once; the given view is
left as it was, absent persons stay zero.

What is lost is made up as it is for recordings (`clips.fill_gaps`): a joint is interpolated linearly between the frames
around a gap, held at the clip's ends, and stands on its nearest ancestor that was seen where it was never seen. Lost
joints and occluded parts count as unobserved, so that encoders which heed that may leave them out. Dropped frames do
not: what never arrived is nobody's gap, the clip is resampled from the frames that did, and a frame made between two
observed ones is observed (as in `sampling.resample`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from skeletons.augment import rotation_matrices
from skeletons.randomness import Draws
from skeletons.sampling import Batch
from skeletons.topology import Topology


def noise(view: Batch, sigma: float, draws: Draws, topology: Topology) -> Batch:
    """Normal noise on every coordinate of every frame, independent.

    Args:
        sigma: standard deviation, metres.
    """
    drawn = draws.noise(*view.joints.shape) * view.present[:, :, None, None, None]
    return replace(view, joints=view.joints + sigma * drawn)


def drop_joints(view: Batch, share: float, draws: Draws, topology: Topology) -> Batch:
    """Random joints of each person are never seen.

    Args:
        share: of the joints, rounded to whole ones; one stays.
    """
    rows, persons, _, count = view.observed.shape
    lost = min(round(share * count), count - 1)
    place = draws.uniform(rows, persons, count).argsort(-1).argsort(-1)
    return _lose(view, (place < lost)[:, :, None].expand_as(view.observed), topology)


def drop_frames(view: Batch, share: float, draws: Draws, topology: Topology) -> Batch:
    """Random frames never arrive; they are interpolated linearly from those that do, and held at the ends.

    Args:
        share: of the frames, rounded to whole ones; one stays.
    """
    rows, _, time, _ = view.observed.shape
    lost = min(round(share * time), time - 1)
    place = draws.uniform(rows, time).argsort(-1).argsort(-1)
    return _read(view, *_around((place >= lost)[:, None, :, None]))


def occlude(view: Batch, share: float, draws: Draws, topology: Topology) -> Batch:
    """One random part of each person's body (a limb, or the torso) is not seen for a stretch of the clip.

    Args:
        share: of the clip's frames, one stretch that begins anywhere.
    """
    rows, persons, time, _ = view.observed.shape
    part = (draws.uniform(rows, persons) * len(topology.parts)).long().clamp(max=len(topology.parts) - 1)
    length = round(share * time)
    begin = (draws.uniform(rows, persons) * (time - length + 1)).long().clamp(max=time - length)[..., None]
    frame, part_of = torch.arange(time, device=part.device), torch.tensor(topology.part_of, device=part.device)
    when = (frame >= begin) & (frame < begin + length)
    return _lose(view, when[..., None] & (part_of == part[..., None])[:, :, None], topology)


def turn(view: Batch, degrees: float, draws: Draws, topology: Topology) -> Batch:
    """The camera walks round the clip's centre, to either side: a turn about the vertical (y).

    Args:
        degrees: of the turn.
    """
    side = torch.where(draws.uniform(len(view)) < 0.5, -1.0, 1.0)
    angles = torch.stack([torch.zeros_like(side), side * math.radians(degrees), torch.zeros_like(side)], -1)
    turned = torch.einsum("rdc,rptjc->rptjd", rotation_matrices(angles), view.joints)
    return replace(view, joints=turned)


def change_speed(view: Batch, power: float, draws: Draws, topology: Topology) -> Batch:
    """The clip is played unevenly: at the share t of its time it shows what was at t ** power, slow first and fast at
    the end, or at 1 - (1 - t) ** power, the other way round. Both ends stay.

    A clip that is faster throughout would be the same view, for all clips are resampled to as many frames; so the speed
    changes within the clip, between 0 and `power` times the even one.

    Args:
        power: at least 1.
    """
    time = view.joints.shape[2]
    share = torch.linspace(0, 1, time, dtype=torch.float64, device=view.joints.device)
    slow_first = (draws.uniform(len(view)) < 0.5)[:, None]
    at = torch.where(slow_first, share**power, 1 - (1 - share) ** power) * (time - 1)
    at = at.round(decimals=9)  # whole where it should be, so that power 1 changes nothing
    low = at.long()
    high = (low + (at > low)).clamp(max=time - 1)
    return _read(view, *(t[:, None, :, None] for t in (low, high, at - low)))


@dataclass(frozen=True)
class Corruption:
    """A way in which skeletons get worse.

    Attributes:
        apply: (view, strength, draws, topology) -> the worse view.
        unit: of the strength, in words.
        clean: the strength that changes nothing; the least.
        most: the largest strength there is.
    """

    apply: Callable[[Batch, float, Draws, Topology], Batch]
    unit: str
    clean: float = 0.0
    most: float = math.inf


CORRUPTIONS = {
    "noise": Corruption(noise, "standard deviation on every coordinate, metres"),
    "joints": Corruption(drop_joints, "share of the joints never seen", most=1.0),
    "frames": Corruption(drop_frames, "share of the frames dropped", most=1.0),
    "occlusion": Corruption(occlude, "share of the clip in which one part of the body is not seen", most=1.0),
    "rotation": Corruption(turn, "turn of the camera about the vertical, degrees"),
    "speed": Corruption(change_speed, "power of time by which the clip is played unevenly", clean=1.0),
}


def _lose(view: Batch, lost: Bool[Tensor, "row person time joint"], topology: Topology) -> Batch:
    """The view without these coordinates, which are made up and unobserved."""
    return replace(view, joints=fill(view.joints, ~lost, topology), observed=view.observed & ~lost)


def fill(
    joints: Float[Tensor, "row person time joint 3"], kept: Bool[Tensor, "row person time joint"], topology: Topology
) -> Float[Tensor, "row person time joint 3"]:
    """Make up what was not kept, see the module's text.

    A joint none of whose ancestors was ever kept stands at the mean of those joints that were (in a recording it would
    be zero, in the sensor's frame: a place that says nothing of the body).
    """
    x = _between(joints, *_around(kept))
    seen = kept.any(2)
    known = seen[:, :, None, :, None]
    mean = (x * known).sum(3, keepdim=True) / known.sum(3, keepdim=True).clamp(min=1)
    above = torch.tensor(_ancestors(topology), device=joints.device)
    there = torch.cat([seen, torch.ones_like(seen[..., :1])], -1)[..., above]
    first = there.to(torch.int8).argmax(-1, keepdim=True)
    stand = above.expand(there.shape).gather(-1, first)[..., 0]
    return torch.cat([x, mean], 3).gather(3, stand[:, :, None, :, None].expand_as(joints))


@cache
def _ancestors(topology: Topology) -> list[list[int]]:
    """Each joint, its parent and so on to the root; then the number of joints, as often as needed."""
    deepest = max(topology.depths)
    chains: dict[int, list[int]] = {}
    for j in topology.order:
        chains[j] = [j] if j == topology.root else [j, *chains[topology.parents[j]]]
    return [chains[j] + [len(topology)] * (deepest + 2 - len(chains[j])) for j in range(len(topology))]


def _around(kept: Bool[Tensor, "row person time joint"]) -> tuple[Tensor, Tensor, Tensor]:
    """(the kept frame at or before each frame, the one at or after it, how far it lies between them from 0 to 1).

    At the ends both are the nearest kept frame; both are the frame itself where none is kept.
    """
    time = kept.shape[2]
    frame = torch.arange(time, device=kept.device)[:, None]
    before = torch.where(kept, frame, -1).cummax(2).values
    after = torch.where(kept, frame, time).flip(2).cummin(2).values.flip(2)
    low = torch.where(before >= 0, before, torch.where(after < time, after, frame))
    high = torch.where(after < time, after, low)
    return low, high, (frame - low).double() / (high - low).clamp(min=1)


def _between(joints: Tensor, low: Int[Tensor, "..."], high: Int[Tensor, "..."], weight: Float[Tensor, "..."]) -> Tensor:
    """Coordinates between two frames each; the frames (row, person or 1, time, joint or 1)."""
    first, last = (joints.gather(2, t[..., None].expand_as(joints)) for t in (low, high))
    return first.lerp(last, weight[..., None].to(joints.dtype))


def _read(view: Batch, low: Int[Tensor, "..."], high: Int[Tensor, "..."], weight: Float[Tensor, "..."]) -> Batch:
    """The view with frames between two of its frames each, observed where both are."""
    first, last = (view.observed.gather(2, t.expand_as(view.observed)) for t in (low, high))
    return replace(view, joints=_between(view.joints, low, high, weight), observed=first & last)
