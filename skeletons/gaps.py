"""Gaps in recordings: what a sensor did not see is interpolated, held or put on its parent, clip by clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHORT_GAP = 5  # frames; an interpolated gap this short (1/6 s at 30 fps) still counts as observed


def fill_gaps(
    joints: np.ndarray, offsets: np.ndarray, parents: Sequence[int], order: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate what was not seen, so that any frame can be read.

    Inside a clip a missing joint is interpolated linearly between the frames around the gap, held at its ends, and put
    on its parent where it was never seen; a person who is absent throughout stays zero.

    Args:
        joints: float32 (frame, person, joint, 3), exact zeros where missing.
        offsets: int64 (clip + 1).
        parents, order: of the topology.

    Returns:
        (filled joints, observed): observed is bool (frame, person, joint), True where the joint was seen or the gap is
        at most `SHORT_GAP` frames long.
    """
    seen = (joints != 0).any(-1)
    if seen.all():
        return joints, seen
    clip_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    first, last = offsets[clip_of][:, None, None], offsets[clip_of + 1][:, None, None] - 1
    frame = np.arange(len(joints))[:, None, None]
    before = np.maximum.accumulate(np.where(seen, frame, -1), axis=0)
    after = np.minimum.accumulate(np.where(seen, frame, len(joints))[::-1], axis=0)[::-1]
    has_before, has_after = before >= first, after <= last
    low = np.where(has_before, before, np.where(has_after, after, frame))
    high = np.where(has_after, after, low)
    weight = np.where(high > low, (frame - low) / np.maximum(high - low, 1), 0.0).astype(np.float32)[..., None]
    person, joint = np.arange(joints.shape[1])[None, :, None], np.arange(joints.shape[2])[None, None, :]
    filled = joints[low, person, joint] * (1 - weight) + joints[high, person, joint] * weight
    observed = seen | (has_before & has_after & (after - before - 1 <= SHORT_GAP))
    never = ~(has_before | has_after)
    for j in order:  # a joint that its sensor never saw sits on its parent, a visible and harmless place
        if parents[j] != j and never[:, :, j].any():
            filled[:, :, j] = np.where(never[:, :, j, None], filled[:, :, parents[j]], filled[:, :, j])
    return filled.astype(np.float32), observed


def origins(frames: np.ndarray, observed: np.ndarray, offsets: np.ndarray, root: int) -> np.ndarray:
    """float32 (clip, 3): actor 1's root in its first valid frame, zero where it has none."""
    valid = observed[:, 0, root]
    where = np.where(valid, np.arange(len(frames)), len(frames))
    first = np.minimum.reduceat(where, offsets[:-1])
    found = first < offsets[1:]
    return np.where(found[:, None], frames[np.where(found, first, 0), 0, root], np.float32(0))
