"""Which of the bodies that a Kinect saw are the actors: the common pipeline's steps, each of which can be left out.

The pipeline is CTR-GCN's, which MAMP, HA-CM and SLiM use (MAMP, data/ntu/get_raw_skes_data.py and
get_raw_denoised_data.py, as described in our notes on it). Some of its habits are odd and are kept, because published
numbers rest on them; `Selection` says which and lets them be switched off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from skeletons.sources.ntu_text import JOINTS, Body

FEW_FRAMES = 11  # a body in no more frames than these is noise
WIDE = 0.8  # a frame is noisy where the body is wider than this share of its height
NOISY = 0.69754  # a body is noise where this share of its frames is
STILL, WILD = 0.089925, 2.0  # square metres; variance of an actor's joints, of those who are not the most moving one


@dataclass
class Selection:
    """Attributes:
    drop_empty: frames without any body are dropped and time closes up.
    close_gaps: when a body vanishes and returns, its later frames move up and close the gap (a habit of the
        pipeline: they are then too early against another body's). False keeps everyone's frames in their time.
    length_filter: of several bodies, those in 11 frames or fewer are dropped.
    spread_filter: of several bodies, those are dropped that are wider than 0.8 of their height in 70 % of their
        frames; of the others, only the narrow frames' motion counts.
    motion_filter: of several bodies, those but the most moving are dropped whose motion is outside (0.09, 2) square
        metres. The pipeline defines this step and does not use it.
    merge: bodies that are not there at the same time share a place, the most moving ones first (a person who was
        lost and found has a new bodyID). False: the two most moving bodies have a place each.
    drop_unseen: frames in which no actor is left are dropped.
    hide_untracked: joints with tracking state 0 count as not seen.
    centre: subtract the middle of actor 1's spine in that actor's first frame. Training centres each clip anyway,
        so that it makes a difference only to those who read the archive with programs of their own.
    """

    drop_empty: bool = True
    close_gaps: bool = True
    length_filter: bool = True
    spread_filter: bool = True
    motion_filter: bool = False
    merge: bool = True
    drop_unseen: bool = True
    hide_untracked: bool = False
    centre: bool = False


def motion(joints: np.ndarray) -> float:
    """Variance of x, y and z over all joints and frames (n, 25, 3), added up; square metres."""
    return float(joints.reshape(-1, 3).astype(np.float64).var(0).sum()) if len(joints) else 0.0


def narrow(joints: np.ndarray) -> np.ndarray:
    """bool (n), frames in which a body (n, 25, 3) is not too wide to be a person."""
    size = joints.max(1) - joints.min(1)
    return size[:, 0] <= WIDE * size[:, 1]


def actors(frames: int, bodies: list[Body], steps: Selection) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Two places for actors from any number of bodies.

    Args:
        frames: of the recording.
        bodies: at least one, in the order in which they appear.

    Returns:
        joints float32 (frame, 2, 25, 3), tracking uint8 (frame, 2, 25), and what was done, in words.
    """
    notes: list[str] = []
    if steps.drop_empty:
        frames, bodies = _without_empty(frames, bodies, notes)
    if steps.close_gaps:
        bodies = _without_gaps(bodies, notes)
    if len(bodies) > 1:
        bodies = _chosen(bodies, steps, notes)
    joints = np.zeros((frames, 2, JOINTS, 3), np.float32)
    tracking = np.zeros((frames, 2, JOINTS), np.uint8)
    for body, place in zip(bodies, _places(bodies, steps.merge, notes)):
        if place is not None:
            joints[body.frames, place], tracking[body.frames, place] = body.joints, body.tracking
    if steps.hide_untracked:
        hidden = (tracking == 0) & (joints != 0).any(-1)
        joints[hidden] = 0
        if hidden.any():
            notes.append(f"hid {int(hidden.sum())} joints that were not tracked")
    if steps.drop_unseen:
        somebody = (joints != 0).any((1, 2, 3))
        if not somebody.all():
            notes.append(f"dropped {int((~somebody).sum())} frames in which no actor is left")
            joints, tracking = joints[somebody], tracking[somebody]
    if steps.centre:
        _centre(joints)
    return joints, tracking, notes


def _without_empty(frames: int, bodies: list[Body], notes: list[str]) -> tuple[int, list[Body]]:
    there = np.zeros(frames, bool)
    for body in bodies:
        there[body.frames] = True
    if there.all():
        return frames, bodies
    notes.append(f"dropped {int((~there).sum())} frames without a body")
    new = np.cumsum(there) - 1
    return int(there.sum()), [replace(body, frames=new[body.frames]) for body in bodies]


def _without_gaps(bodies: list[Body], notes: list[str]) -> list[Body]:
    closed = [replace(body, frames=body.frames[0] + np.arange(len(body.frames))) for body in bodies]
    moved = sum(bool((a.frames != b.frames).any()) for a, b in zip(bodies, closed))
    if moved:
        notes.append(f"{_bodies(moved)} vanished and returned: the gap was closed")
    return closed


def _chosen(bodies: list[Body], steps: Selection, notes: list[str]) -> list[Body]:
    """The bodies that are no noise, the most moving first."""
    moves = {body.ident: motion(body.joints) for body in bodies}
    if steps.length_filter:
        long = [body for body in bodies if len(body.frames) > FEW_FRAMES]
        if not long:  # the pipeline has no guard here and would lose the clip
            long = [max(bodies, key=lambda body: len(body.frames))]
        if len(long) < len(bodies):
            notes.append(f"dropped {_bodies(len(bodies) - len(long))} by length")
        bodies = long
    if steps.spread_filter:
        kept = list(bodies)
        for body in bodies:
            if len(kept) == 1:
                break
            good = narrow(body.joints)
            if good.all():
                continue
            if 1 - good.mean() >= NOISY:
                kept.remove(body)
            else:
                moves[body.ident] = min(moves[body.ident], motion(body.joints[good]))
        if len(kept) < len(bodies):
            notes.append(f"dropped {_bodies(len(bodies) - len(kept))} by spread")
        bodies = kept
    bodies = sorted(bodies, key=lambda body: moves[body.ident], reverse=True)
    if steps.motion_filter:
        kept = [body for n, body in enumerate(bodies) if n == 0 or STILL <= moves[body.ident] <= WILD]
        if len(kept) < len(bodies):
            notes.append(f"dropped {_bodies(len(bodies) - len(kept))} by motion")
        bodies = kept
    return bodies


def _places(bodies: list[Body], merge: bool, notes: list[str]) -> list[int | None]:
    """The place of each body, most moving first: 0, 1 or none."""
    if not merge:
        if len(bodies) > 2:
            notes.append(f"left out {_bodies(len(bodies) - 2)}: the two that move most are kept")
        return [n if n < 2 else None for n in range(len(bodies))]
    places: list[int | None] = []
    taken = [None, (0, 0)]  # type: list[tuple[int, int] | None]
    for body in bodies:
        start, end = int(body.frames[0]), int(body.frames[-1])
        for place, span in enumerate(taken):
            if span is None or min(span[1], end) - max(span[0], start) <= 0:
                # Actor 2's place is taken from frame 0 on as soon as it is used: so the pipeline does it.
                taken[place] = (start, end) if span is None else (min(span[0], start), max(span[1], end))
                places.append(place)
                break
        else:
            places.append(None)
    shared = sum(p is not None for p in places) - len({*places} - {None})
    if shared:
        notes.append(f"{_bodies(shared)} put in the place of another that was there at another time")
    if None in places:
        notes.append(f"left out {_bodies(places.count(None))}: both places are taken by more moving ones")
    return places


def _centre(joints: np.ndarray) -> None:
    """In place: the middle of actor 1's spine in its first frame becomes the origin (MAMP, seq_transformation.py)."""
    first = (joints[:, 0] != 0).any((1, 2))
    if not first.any():
        return
    seen = (joints != 0).any(-1)
    joints -= joints[int(np.argmax(first)), 0, 1].copy()
    joints[~seen] = 0
    joints[..., 0][seen & (joints == 0).all(-1)] = np.float32(1e-9)  # exact zeros would read as not seen


def _bodies(count: int) -> str:
    return f"{count} bodies" if count > 1 else "1 body"
