"""Faithful `.skeleton` files: what a Kinect v2 recorder writes of people that walk about, with a sensor's habits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skeletons.topology import KINECT_V2

FIRST_ID = 72057594037931101  # IDs are so large that float64 cannot tell neighbours apart
LINE = " ".join(["%.7g"] * 11 + ["%d"])

Seen = tuple[int, np.ndarray, np.ndarray]  # bodyID, joints (25, 3), states (25)


def person(frames: int, seed: int, x: float = 0.0, speed: float = 1.0, wide: bool = False) -> np.ndarray:
    """float32 (frames, 25, 3): somebody at `x` metres who swings; `wide` lies, as a piece of furniture does."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames)[:, None, None]
    bones = rng.normal(0, 0.02, (25, 3)) + np.array([0.0, 0.12, 0.0]) * (KINECT_V2.ancestry.sum(1)[:, None] > 1)
    bones[[12, 13, 14, 15, 16, 17, 18, 19], 1] *= -1
    swing = bones + 0.01 * speed * np.sin(0.2 * time + rng.uniform(0, 6, (25, 3)))
    body = KINECT_V2.ancestry.astype(float) @ swing
    if wide:
        body = body[..., [1, 0, 2]]
    return (body + [x, 0.2, 3.0] + 0.01 * speed * time * [0.1, 0, 0.3]).astype(np.float32)


def states(frames: int, seed: int) -> np.ndarray:
    """uint8 (frames, 25): mostly tracked, some inferred, few not at all."""
    return np.random.default_rng(seed).choice(np.array([2, 1, 0], np.uint8), (frames, 25), p=[0.9, 0.08, 0.02])


def scene(frames: int, *people: tuple[int, Sequence[int], np.ndarray]) -> list[list[Seen]]:
    """Who is in each frame, from (bodyID, frames it is in, joints of those frames)."""
    found: list[list[Seen]] = [[] for _ in range(frames)]
    for ident, when, joints in people:
        state = states(len(joints), ident % 1000)
        for number, frame in enumerate(when):
            found[frame].append((ident, joints[number], state[number]))
    return found


def text(seen: list[list[Seen]], newline: str = "\r\n") -> bytes:
    """The file's content."""
    lines = [str(len(seen))]
    for bodies in seen:
        lines.append(str(len(bodies)))
        for ident, joints, state in bodies:
            lines += [f"{ident} 0 1 1 1 1 0 0.02764709 0.05745083 2", "25"]
            depth = joints[:, :2] * 100 / joints[:, 2:] + 200
            rest = np.concatenate([joints, depth, 3.7 * depth, np.tile(joints[:1, :1], (1, 4)) * np.ones((25, 4))], 1)
            lines += [LINE % (*row, s) for row, s in zip(rest.tolist(), state.tolist())]
    return (newline.join(lines) + newline).encode()


def name(number: int = 1, action: int = 1, setup: int = 1, camera: int = 1, repetition: int = 1) -> str:
    """SsssCcccPpppRrrrAaaa of subject `number`."""
    return f"S{setup:03d}C{camera:03d}P{number:03d}R{repetition:03d}A{action:03d}"


def write(folder: Path, stem: str, seen: list[list[Seen]], newline: str = "\r\n") -> Path:
    """Write a recording; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.skeleton"
    path.write_bytes(text(seen, newline))
    return path


def collection(folder: Path, count: int, frames: int = 85) -> list[Path]:
    """Recordings of one person or two, of about 230 kB a person at 85 frames; every seventh has a second person."""
    paths = []
    for n in range(count):
        people = [(FIRST_ID + n, range(frames), person(frames, n))]
        if n % 7 == 6:
            people.append((FIRST_ID + 500 + n, range(frames), person(frames, n + 500, x=0.8, speed=0.5)))
        stem = name(1 + n % 40, 1 + n // 40 % 60, 1 + n // 2400, 1 + n % 3)
        paths.append(write(folder, stem, scene(frames, *people)))
    return paths
