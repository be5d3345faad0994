"""Bodies drawn from the front: a topology's bones, one colour a person, left limbs lighter than the rest; or, to check
joints, the sides in colours of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from reports.style import BLUE, VERMILLION
from skeletons.topology import Topology

PERSONS = (("#004c78", "#56b4e9"), ("#a03f00", "#f0a860"))  # the body, and its left limbs
TRUNKS = ("#222222", "#909090")  # of the first person and the second, where sides have colours
LEFT, RIGHT, DASHES = BLUE, VERMILLION, (0, (2.2, 0.9))  # distinct to the colour-blind; dashes in grey print


def from_the_front(joints: np.ndarray, observed: np.ndarray, topology: Topology, turn: float = 0.0) -> np.ndarray:
    """(..., 2): x to the right and y up, as someone sees it who looks at the body's front.

    One clip is turned about the vertical once, all its frames alike: of one person the line from right to left
    shoulders and hips points to the right, so the left is where a face-to-face viewer sees it; two persons stand side
    by side, the first one left.

    Args:
        joints: (frame, person, joint, 3), y up.
        observed: bool (frame, person, joint).
        turn: radians by which the body is turned from there, its front to the viewer's left.
    """
    seen = observed[..., None]
    if observed.shape[1] > 1 and observed[:, 1].any():
        where = (joints * seen).sum((0, 2)) / seen.sum((0, 2)).clip(1)
        across = where[1] - where[0]
    else:
        across = np.zeros(3)
        for name in ("shoulder", "hip"):
            if f"{name}_left" in topology.joints and f"{name}_right" in topology.joints:
                left, right = (topology.joints.index(f"{name}_{side}") for side in ("left", "right"))
                both = (seen[:, 0, left] & seen[:, 0, right]).astype(joints.dtype)
                across = across + ((joints[:, 0, left] - joints[:, 0, right]) * both).sum(0)
    length = float(np.hypot(across[0], across[2]))
    x, z = (across[0] / length, across[2] / length) if length > 1e-6 else (1.0, 0.0)
    x, z = x * np.cos(turn) + z * np.sin(turn), z * np.cos(turn) - x * np.sin(turn)
    return np.stack([joints[..., 0] * x + joints[..., 2] * z, joints[..., 1]], -1)


def draw_bodies(
    axes: Axes, points: np.ndarray, observed: np.ndarray, topology: Topology, width: float = 1.1, sides: bool = False
) -> None:
    """Bones between joints that were observed, and the head as a dot.

    Args:
        points: (frame, person, joint, 2), already beside each other.
        observed: bool (frame, person, joint).
        sides: left limbs in one colour, right ones in another and dashed, whoever's they are.
    """
    left, right = (
        np.array([side in list(topology.parts)[part] for part in topology.part_of]) for side in ("left", "right")
    )
    child, parent = np.array(topology.bones).T
    for person in range(points.shape[1]):
        bones = np.stack([points[:, person, child], points[:, person, parent]], -2)
        there = observed[:, person, child] & observed[:, person, parent]
        dark, light = PERSONS[person % len(PERSONS)]
        looks: list[tuple[np.ndarray, str, Any]] = [(~left, dark, "-"), (left, light, "-")]
        if sides:
            dark = TRUNKS[person % len(TRUNKS)]
            looks = [(~left & ~right, dark, "-"), (left, LEFT, "-"), (right, RIGHT, DASHES)]
        for joints, colour, style in looks:
            lines = bones[:, joints[child]][there[:, joints[child]]]
            cap = "round" if style == "-" else "butt"
            axes.add_collection(
                LineCollection(list(lines), colors=colour, linewidths=width, linestyles=[style], capstyle=cap)
            )
            if sides:
                spots = points[:, person, joints][observed[:, person, joints]]
                axes.plot(spots[:, 0], spots[:, 1], "o", color=colour, markersize=1.3 * width, markeredgewidth=0)
        if "head" in topology.joints:
            head = topology.joints.index("head")
            spots = points[:, person, head][observed[:, person, head]]
            axes.plot(spots[:, 0], spots[:, 1], "o", color=dark, markersize=2.4 * width, markeredgewidth=0)
