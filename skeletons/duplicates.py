"""Clips that are the same recording twice: byte for byte, cut, moved, resampled, or with a little noise.

Equal frames are found by their hashes. Near-duplicates are searched with bodies centred on actor 1's middle in every
frame: a coarse descriptor (eight moments of a clip, projected onto few axes, which never makes a distance larger) rules
out nearly all pairs in blocks, the descriptor itself most of the others, and the rest are compared frame by frame. Two
sensors' views of one performance, and a clip and its mirror image, are not duplicates here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from skeletons.clips import Clips
from skeletons.survey import seen_in

# Metres: the largest distance of any joint in any frame. Joints of Kinects err by 5 to 20 mm each, frame by frame, and
# the largest of thousands of such errors is taken, so two recordings differ by more even of a person who holds still
# (the nearest two of the four public sets and the demo that are not one recording: 52 mm). Rounding, compression and
# noise of 1 mm stay below.
NEAR = 0.020
SHIFT = 2  # frames by which a copy may begin or end earlier or later
MOMENTS, AXES, ROWS = 8, 48, 512  # of the descriptor; axes it is projected onto; clips compared with all at once
RESAMPLED = 32  # moments at which clips of different rates are compared
HALF = 0.5  # of the shorter clip's frames: with so many in common two clips are one recording
GROUP = 100  # clips that share one frame are paired with each other up to so many, and beyond that with the first

Body = tuple[np.ndarray, np.ndarray]  # (frame, person * joint, 3) and which of that was seen


@dataclass(frozen=True)
class Duplicates:
    """Pairs of clips, first < second, int64 (pair).

    Attributes:
        first, second: numbers of clips.
        shared: frames that both have byte for byte.
        share: shared, of the shorter clip's frames; 1: one clip is the other or a piece of it.
        distance: metres, largest distance of a joint where they were found by nearness; 0 where by equal frames.
    """

    first: np.ndarray
    second: np.ndarray
    shared: np.ndarray
    share: np.ndarray
    distance: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def duplicates(clips: Clips, digest: np.ndarray) -> Duplicates:
    """All pairs that share a frame, and all near-duplicates.

    Args:
        digest: uint64 (frame), hashes of the frames (`Survey.digest`); 0 is nobody and equal to nothing.
    """
    first, second, shared, distinct = equal_frames(clips.offsets, digest)
    share = shared / np.maximum(np.minimum(distinct[first], distinct[second]), 1)
    known = set(zip(first[share >= HALF].tolist(), second[share >= HALF].tolist()))
    whole = (share == 1) & (clips.lengths[first] == clips.lengths[second])
    leader = np.arange(len(clips))  # of several equal clips one is compared with others
    np.minimum.at(leader, second[whole], first[whole])
    alike: dict[int, list[int]] = {}
    for clip, one in enumerate(leader.tolist()):
        alike.setdefault(one, []).append(clip)
    near = [
        (min(a, b), max(a, b), apart)
        for i, j, apart in near_pairs(clips, np.array(list(alike)))
        for a, b in product(alike[i], alike[j])
        if (min(a, b), max(a, b)) not in known
    ]
    a, b, d = (np.array(column) for column in zip(*near)) if near else (np.empty(0, int),) * 3
    again = set(zip(a.tolist(), b.tolist()))
    kept = np.array([p not in again for p in zip(first.tolist(), second.tolist())], bool)
    zeros = np.zeros(len(a))
    return Duplicates(
        np.concatenate([first[kept], a]).astype(np.int64),
        np.concatenate([second[kept], b]).astype(np.int64),
        np.concatenate([shared[kept], zeros]).astype(np.int64),
        np.concatenate([share[kept], zeros]),
        np.concatenate([np.zeros(kept.sum()), d]),
    )


def equal_frames(offsets: np.ndarray, digest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of clips with common frames.

    Returns:
        (first, second, shared, distinct): int64 (pair) three times, `shared` counting different frames that both have;
        distinct, int64 (clip), different frames of each clip.
    """
    clip = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((clip, digest))
    order = order[digest[order] != 0]
    value, owner = digest[order], clip[order]
    new = np.ones(len(order) + 1, bool)  # one frame that a clip shows twice counts once
    new[1:-1] = (value[1:] != value[:-1]) | (owner[1:] != owner[:-1])
    value, owner = value[new[:-1]], owner[new[:-1]]
    bounds = np.flatnonzero(np.concatenate([[True], value[1:] != value[:-1], [True]]))
    count: dict[tuple[int, int], int] = {}
    for start, stop in pairwise(bounds.tolist()):
        if stop - start < 2:
            continue
        members = owner[start:stop].tolist()
        for i, one in enumerate(members[: GROUP if stop - start <= GROUP else 1]):
            for other in members[i + 1 :]:
                count[one, other] = count.get((one, other), 0) + 1
    pairs = np.array(sorted(count), dtype=np.int64).reshape(-1, 2)
    shared = np.array([count[p] for p in sorted(count)], dtype=np.int64)
    return pairs[:, 0], pairs[:, 1], shared, np.bincount(owner, minlength=len(offsets) - 1)


def near_pairs(clips: Clips, rows: np.ndarray) -> list[tuple[int, int, float]]:
    """(first, second, metres) of clips, of these rows, that are nowhere further apart than `NEAR`."""
    described, slack = _described(clips, rows)
    found = []
    for a, b in _candidates(described, slack):
        near = (np.abs(described[a] - described[b]) <= NEAR + slack[a] + slack[b]).all((1, 2))
        for i, j in zip(rows[a[near]].tolist(), rows[b[near]].tolist()):
            apart = _distance(_body(clips, i), _body(clips, j))
            if apart <= NEAR:
                found.append((i, j, apart))
    return found


def _body(clips: Clips, clip: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 (frame, person * joint, 3) of a clip, centred, and bool (frame, person * joint), what was seen."""
    start, stop = int(clips.offsets[clip]), int(clips.offsets[clip + 1])
    seen = seen_in(clips, start, stop)
    return _in_place(np.asarray(clips.frames[start:stop]), clips.present[clip]), seen.reshape(len(seen), -1)


def _in_place(joints: np.ndarray, present: np.ndarray) -> np.ndarray:
    """(..., person, joint, 3) to (..., person * joint, 3), the mean of actor 1's joints at the origin in every frame;
    absent persons are zero."""
    moved = (joints - joints[..., :1, :, :].mean(-2, keepdims=True)) * present[..., None, None]
    return moved.reshape(*moved.shape[:-3], -1, 3)


def _resampled(clips: Clips, rows: np.ndarray, moments: int, head: int, tail: int) -> np.ndarray:
    """float32 (row, moment, person * joint, 3): clips without `head` and `tail` frames, at the middles of equal parts,
    linearly interpolated and centred; frames are dropped as long as three quarters of the clip remain."""
    length = clips.lengths[rows]
    least = length // 8
    head_, tail_ = np.minimum(head, least), np.minimum(tail, least)
    left = length - head_ - tail_
    time = np.maximum((np.arange(moments) + 0.5) / moments * left[:, None] - 0.5, 0)
    time = np.minimum(time, left[:, None] - 1) + head_[:, None]
    low = np.floor(time).astype(np.int64)
    high = np.minimum(low + 1, length[:, None] - 1)
    weight = (time - low).astype(np.float32)[..., None, None, None]
    start = clips.offsets[rows][:, None]
    joints = clips.frames[start + low] * (1 - weight) + clips.frames[start + high] * weight
    return _in_place(joints, clips.present[rows][:, None])


def _described(clips: Clips, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each clip at its moments, and how far that moves where up to `SHIFT` frames are cut off.

    Returns:
        float32 (clip, moment * person * joint, 3), and by how many metres each coordinate of it may differ:
        float32 (clip, moment * person * joint, 3)
    """
    whole, slack = [], []
    for rows in np.array_split(chosen, max(1, len(chosen) // 1024)):
        base = _resampled(clips, rows, MOMENTS, 0, 0)
        moved = np.zeros_like(base)
        for head, tail in ((SHIFT, 0), (0, SHIFT), (SHIFT, SHIFT)):
            np.maximum(moved, np.abs(_resampled(clips, rows, MOMENTS, head, tail) - base), out=moved)
        whole.append(base.reshape(len(rows), -1, 3))
        slack.append(moved.reshape(len(rows), -1, 3))
    return np.concatenate(whole), np.concatenate(slack)


def _candidates(described: np.ndarray, slack: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(first, second) of pairs whose descriptors may be within `NEAR` and their slack, first < second."""
    flat = described.reshape(len(described), -1)
    sample = flat[:: max(1, len(flat) // 4096)]
    centre = sample.mean(0)
    axes = np.linalg.svd(sample[:: max(1, len(sample) // 512)] - centre, full_matrices=False)[2][:AXES].T
    point = (flat - centre) @ axes
    square = (point**2).sum(1)
    # |a - b| <= NEAR at every joint and slack at every coordinate: so far apart the whole can be at most
    reach = np.linalg.norm(slack.reshape(len(slack), -1), axis=1) + 0.5 * NEAR * np.sqrt(described.shape[1])
    for start in range(0, len(point), ROWS):
        rows = slice(start, start + ROWS)
        apart = square[rows, None] + square[None, start:] - 2 * point[rows] @ point[start:].T
        limit = (reach[rows, None] + reach[None, start:]) ** 2
        a, b = np.nonzero(apart <= limit + 1e-5 * (square[rows, None] + 1))
        keep = b > a
        yield a[keep] + start, b[keep] + start


def _distance(one: Body, other: Body) -> float:
    """Metres: the largest distance of a joint seen by both in any frame, with the shift or the resampling that makes it
    least; infinite where both see fewer than half of the joints."""
    best = np.inf
    longest = max(len(one[0]), len(other[0]))
    for shift in range(-SHIFT, SHIFT + 1):
        a, b = ([x[max(s, 0) :] for x in body] for s, body in ((shift, one), (-shift, other)))
        length = min(len(a[0]), len(b[0]))
        if length and max(len(a[0]), len(b[0])) - length <= SHIFT and 4 * length >= 3 * longest:
            best = min(best, _largest((a[0][:length], a[1][:length]), (b[0][:length], b[1][:length])))
    if len(one[0]) != len(other[0]):
        best = min(best, _largest(_in_time(one, RESAMPLED), _in_time(other, RESAMPLED)))
    return best


def _largest(one: Body, other: Body) -> float:
    both = one[1] & other[1]
    if 2 * both.sum() < max(one[1].sum(), other[1].sum(), 1):
        return np.inf
    return float(np.sqrt((((one[0] - other[0]) ** 2).sum(-1) * both).max()))


def _in_time(body: Body, moments: int) -> Body:
    """The same at `moments` from the first frame to the last, linearly interpolated."""
    joints, seen = body
    time = np.linspace(0, len(joints) - 1, moments)
    low = np.floor(time).astype(int)
    high = np.minimum(low + 1, len(joints) - 1)
    weight = (time - low).astype(np.float32)[:, None, None]
    return joints[low] * (1 - weight) + joints[high] * weight, seen[low] & seen[high]
