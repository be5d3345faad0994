"""What is measured of every clip for the audit: one pass over the frames, in blocks, so that memory does not grow with
the data set. Nothing is judged here; skeletons/checks.py does that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from skeletons.clips import Clips
from skeletons.topology import Topology

BLOCK = 8192  # frames measured at once: 10 MB of two Kinect v2 bodies
SAME_PLACE = 0.05  # metres: two bodies whose joints lie nearer than this in the mean cannot both be there


@dataclass(frozen=True)
class Survey:
    """Measures of all clips; distances in metres, speeds in m/s at the declared frame rate.

    Attributes:
        digest: uint64 (frame), hash of what was seen in a frame, byte for byte, all persons; 0 where that is nobody.
        bone_mean, bone_std: float32 (clip, person, bone), length over the frames in which both ends were seen; NaN
            where there is none. Bones in the order of `topology.bones`.
        speed, speed_at, speed_joint: float32, int64, int64 (clip), the fastest step of any joint seen in both frames:
            how fast, into which frame, which joint.
        root_speed: float32 (clip), the same of the roots.
        pace: float32 (clip), mean speed of the joint that moves most.
        frozen: int64 (clip), most steps in a row in which no coordinate of any person changed.
        repeated: int64 (clip), number of such steps.
        empty: int64 (clip), frames in which nobody is seen.
        unseen: float32 (clip), share of the present persons' joints that were not seen.
        never: bool (clip, joint), a present person's joint that was not seen in any frame of the clip.
        copied, ghost: bool (clip), the second person is byte for byte the first one in every frame; lies within
            `SAME_PLACE` of the first in half of the frames that show both.
        upright: float32 (clip), mean height of the highest joint of the trunk above the hips, or NaN.
        facing: float32 (clip), see `_facing`; NaN where it cannot be told.
    """

    digest: np.ndarray
    bone_mean: np.ndarray
    bone_std: np.ndarray
    speed: np.ndarray
    speed_at: np.ndarray
    speed_joint: np.ndarray
    root_speed: np.ndarray
    pace: np.ndarray
    frozen: np.ndarray
    repeated: np.ndarray
    empty: np.ndarray
    unseen: np.ndarray
    never: np.ndarray
    copied: np.ndarray
    ghost: np.ndarray
    upright: np.ndarray
    facing: np.ndarray


def survey(clips: Clips) -> Survey:
    """Measure every clip."""
    parts = [_measure(clips, first, last) for first, last in blocks(clips.offsets)]
    return Survey(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Survey)))


def blocks(offsets: np.ndarray, size: int = BLOCK) -> Iterator[tuple[int, int]]:
    """(first, last) clips of blocks of about `size` frames, a long clip alone."""
    first = 0
    while first < len(offsets) - 1:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + size, side="right")) - 1)
        yield first, last
        first = last


def seen_in(clips: Clips, start: int, stop: int) -> np.ndarray:
    """bool (frame, person, joint): what the sensor saw in these frames; the store's bridged gaps do not count."""
    seen = np.array(clips.observed[start:stop])
    per_frame = seen.shape[1] * seen.shape[2]
    low, high = np.searchsorted(clips.bridged, [start * per_frame, stop * per_frame])
    seen.reshape(-1)[clips.bridged[low:high] - start * per_frame] = False
    return seen


def _measure(clips: Clips, first: int, last: int) -> Survey:
    start, stop = int(clips.offsets[first]), int(clips.offsets[last])
    begins = clips.offsets[first:last] - start
    lengths = clips.lengths[first:last]
    joints = np.ascontiguousarray(clips.frames[start:stop])
    seen = seen_in(clips, start, stop)
    somebody = np.asarray(seen.any((1, 2)))
    topology = clips.topology

    def total(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, begins, axis=0)

    child, parent = np.array(topology.bones).T
    both = seen[:, :, child] & seen[:, :, parent]
    length = np.where(both, np.linalg.norm(joints[:, :, child] - joints[:, :, parent], axis=-1), 0).astype(np.float64)
    count = total(both.astype(np.int64))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total(length) / np.where(count, count, np.nan)
        spread = np.sqrt(np.maximum(total(length**2) / np.where(count, count, np.nan) - mean**2, 0))

    stays = np.ones(len(joints), bool)  # the step into this frame comes from the same clip
    stays[begins] = False
    step = np.zeros(seen.shape, np.float32)
    step[1:] = np.linalg.norm(joints[1:] - joints[:-1], axis=-1) * np.float32(clips.fps)
    known = np.zeros_like(seen)
    known[1:] = seen[1:] & seen[:-1]
    step[~(known & stays[:, None, None])] = 0
    fastest = step.reshape(len(step), -1).max(1)
    top = np.maximum.reduceat(fastest, begins)
    where = np.array([int(fastest[b : b + n].argmax()) for b, n in zip(begins, lengths)])
    which = step[begins + where].reshape(len(begins), -1).argmax(1) % seen.shape[2]
    still = np.zeros(len(joints), bool)
    still[1:] = (joints[1:] == joints[:-1]).all((1, 2, 3)) & somebody[1:] & somebody[:-1]
    still &= stays

    body = clips.present[first:last]
    there = np.repeat(body, lengths, axis=0)[:, :, None]
    asked = lengths * body.sum(1) * seen.shape[2]
    return Survey(
        digest=_digests(np.where(seen[..., None], joints, np.float32(0)), somebody),
        bone_mean=mean.astype(np.float32),
        bone_std=spread.astype(np.float32),
        speed=top,
        speed_at=where,
        speed_joint=which,
        root_speed=np.maximum.reduceat(step[:, :, topology.root].max(1), begins),
        pace=(total(step.astype(np.float64)).max((1, 2)) / np.maximum(lengths - 1, 1)).astype(np.float32),
        frozen=_longest_run(still, begins),
        repeated=total(still.astype(np.int64)),
        empty=total((~somebody).astype(np.int64)),
        unseen=(total(np.asarray((there & ~seen).sum((1, 2)))) / np.maximum(asked, 1)).astype(np.float32),
        never=np.asarray((body[:, :, None] & ~np.logical_or.reduceat(seen, begins)).any(1)),
        upright=_upright(joints[:, 0], seen[:, 0], topology, begins),
        facing=_facing(joints[:, 0], seen[:, 0], topology, begins),
        **_twice(joints, seen, begins),
    )


def _digests(joints: np.ndarray, somebody: np.ndarray) -> np.ndarray:
    """uint64 (frame), never 0 but where nobody is there."""
    each = joints.reshape(len(joints), -1) + np.float32(0)  # -0.0 becomes 0.0
    made = b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in each)
    return np.where(somebody, np.maximum(np.frombuffer(made, np.uint64), 1), 0)


def _longest_run(flags: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """int64 (clip): most True in a row; the first frame of each clip is False."""
    place = np.arange(len(flags))
    run = place - np.maximum.accumulate(np.where(flags, -1, place))
    return np.maximum.reduceat(run, begins)


def _twice(joints: np.ndarray, seen: np.ndarray, begins: np.ndarray) -> dict[str, np.ndarray]:
    """`copied` and `ghost` of clips (of the first two slots)."""
    if joints.shape[1] < 2:
        return {"copied": np.zeros(len(begins), bool), "ghost": np.zeros(len(begins), bool)}
    both = seen[:, 0] & seen[:, 1]
    shown = both.any(1)
    apart = (np.linalg.norm(joints[:, 0] - joints[:, 1], axis=-1) * both).sum(1) / np.maximum(both.sum(1), 1)
    together = np.add.reduceat((shown & (apart < SAME_PLACE)).astype(int), begins)
    equal = (joints[:, 0] == joints[:, 1]).all((1, 2))
    copied = np.logical_and.reduceat(equal, begins) & np.logical_or.reduceat(shown, begins)
    return {"copied": copied, "ghost": ~copied & (2 * together >= np.add.reduceat(shown, begins)) & (together > 0)}


def _mean_where(values: np.ndarray, known: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """float32 (clip): mean of the known frames' values, NaN where there are none."""
    count = np.add.reduceat(known.astype(np.int64), begins)
    with np.errstate(invalid="ignore"):
        total = np.add.reduceat(np.where(known, values, 0).astype(np.float64), begins)
        return (total / np.where(count, count, np.nan)).astype(np.float32)


def _upright(joints: np.ndarray, seen: np.ndarray, topology: Topology, begins: np.ndarray) -> np.ndarray:
    """float32 (clip): metres by which the head (or the upper spine) is above the middle of the hips."""
    where = {name: j for j, name in enumerate(topology.joints)}
    top = next((where[n] for n in ("head", "neck", "spine_shoulder") if n in where), None)
    if top is None or not {"hip_left", "hip_right"} <= where.keys():
        return np.full(len(begins), np.nan, np.float32)
    hips = [where["hip_left"], where["hip_right"]]
    return _mean_where(joints[:, top, 1] - joints[:, hips, 1].mean(1), seen[:, top] & seen[:, hips].all(1), begins)


def _facing(joints: np.ndarray, seen: np.ndarray, topology: Topology, begins: np.ndarray) -> np.ndarray:
    """float32 (clip), -1 to 1: do feet point (where there are none: do hands reach) to the front that hips and
    shoulders say the body has?

    With y up in a right-handed frame a body's front is (left minus right) x up. Toes point there and forearms are
    bent there whoever stands where, so the mean cosine is positive; it is negative where left and right are exchanged
    or the clip is mirrored.
    """
    where = {name: j for j, name in enumerate(topology.joints)}
    pairs = [(f"{n}_left", f"{n}_right") for n in ("hip", "shoulder")]
    pairs = [p for p in pairs if set(p) <= where.keys()]
    cues = [(f"foot_{s}", f"ankle_{s}") for s in ("left", "right")]
    if not set(sum(cues, ())) <= where.keys():
        hand = "hand" if "hand_left" in where else "wrist"
        cues = [(f"{hand}_{s}", f"elbow_{s}") for s in ("left", "right")]
    if not pairs or not set(sum(cues, ())) <= where.keys():
        return np.full(len(begins), np.nan, np.float32)
    left, right = ([where[p[i]] for p in pairs] for i in (0, 1))
    tips, roots = ([where[c[i]] for c in cues] for i in (0, 1))
    across = (joints[:, left] - joints[:, right]).sum(1)
    front = np.stack([-across[:, 2], across[:, 0]], -1)  # x and z of (left - right) x up
    reach = (joints[:, tips] - joints[:, roots]).sum(1)[:, [0, 2]]
    size = np.linalg.norm(front, axis=-1) * np.linalg.norm(reach, axis=-1)
    known = seen[:, [*left, *right, *tips, *roots]].all(1) & (size > 1e-6)
    return _mean_where((front * reach).sum(-1) / np.where(size > 1e-6, size, 1), known, begins)
