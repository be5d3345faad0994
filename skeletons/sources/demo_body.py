"""The bodies of the demo set: proportions and style, forward kinematics, feet that stand on the floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skeletons.randomness import Draws
from skeletons.sources.demo_actions import ARM, LEG, Angles
from skeletons.topology import KINECT_V2 as BODY

# Each joint from its parent in the standing pose: metres, for a height of 1.7 m, facing +z, left is +x.
_MIDLINE = {
    "spine_base": (0, 0, 0), "spine_mid": (0, 0.31, 0), "spine_shoulder": (0, 0.22, -0.01),
    "neck": (0, 0.07, 0.01), "head": (0, 0.14, 0.03),
}  # fmt: skip
_LEFT = {
    "shoulder": (0.165, -0.04, 0), "elbow": (0, -0.28, 0), "wrist": (0, -0.245, 0), "hand": (0, -0.07, 0),
    "hand_tip": (0, -0.08, 0.01), "thumb": (-0.02, -0.04, 0.04),
    "hip": (0.085, -0.05, 0), "knee": (0, -0.41, 0), "ankle": (0, -0.4, 0), "foot": (0, -0.07, 0.13),
}  # fmt: skip
_SIDED = {f"{name}_left": at for name, at in _LEFT.items()}
_SIDED |= {f"{name}_right": (-x, y, z) for name, (x, y, z) in _LEFT.items()}
REST = np.array([(_MIDLINE | _SIDED)[name] for name in BODY.joints], dtype=float)
JOINT = {name: j for j, name in enumerate(BODY.joints)}
SOLE = 0.02  # height of a standing foot's joint above the floor, metres


@dataclass(frozen=True)
class Cast:
    """The subjects: a row each.

    Attributes:
        bones: (subjects, joints, 3) of each joint from its parent in the standing pose, metres.
        left_handed: bool (subjects,).
        tempo, amplitude, restless: (subjects,) factors of speed, of action angles and of idle motion.
        stoop, stance: (subjects,) degrees of the spine forward and of each leg outward.
        arms: (subjects, 4) degrees added to the angles of idle arms.
    """

    bones: np.ndarray
    left_handed: np.ndarray
    tempo: np.ndarray
    amplitude: np.ndarray
    stoop: np.ndarray
    stance: np.ndarray
    restless: np.ndarray
    arms: np.ndarray

    @property
    def reach(self) -> np.ndarray:
        """(subjects,) from the shoulder to the hand, metres."""
        arm = [JOINT[f"{name}_left"] for name in ("elbow", "wrist", "hand")]
        return np.linalg.norm(self.bones[:, arm], axis=-1).sum(-1)


def cast(n: int, seed: int) -> Cast:
    """Draw `n` subjects."""
    rng = Draws("demo", seed, "subjects").numpy()
    scale = rng.uniform(1.48, 1.95, (n, 1, 1)) / 1.7 * np.ones((n, len(BODY), 3))
    for group in ("torso", "arm", "leg"):
        members = [j for part, joints in BODY.parts.items() if part.startswith(group) for j in joints]
        scale[:, members] *= rng.uniform(0.92, 1.08, (n, 1, 1))
    for name in ("shoulder", "hip"):
        scale[:, [JOINT[f"{name}_left"], JOINT[f"{name}_right"]], 0] *= rng.uniform(0.85, 1.2, (n, 1))
    return Cast(
        bones=REST * scale,
        left_handed=np.isin(np.arange(n) % 8, (2, 3)),  # a quarter, as many of odd as of even number
        tempo=rng.uniform(0.78, 1.28, n),
        amplitude=rng.uniform(0.82, 1.15, n),
        stoop=rng.uniform(-2, 14, n),
        stance=rng.uniform(1, 9, n),
        restless=rng.uniform(0.4, 1.8, n),
        arms=rng.uniform(-1, 1, (n, len(ARM))) * (6, 15, 15, 14),
    )


def rotation(axis: int, degrees: np.ndarray) -> np.ndarray:
    """(..., 3, 3) right-handed rotations about axis 0 (x), 1 (y) or 2 (z)."""
    angle = np.radians(degrees)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.zeros((*angle.shape, 3, 3))
    matrix[..., axis, axis] = 1
    matrix[..., i, i] = matrix[..., j, j] = np.cos(angle)
    matrix[..., j, i] = np.sin(angle)
    matrix[..., i, j] = -matrix[..., j, i]
    return matrix


def forward_kinematics(angles: Angles, bones: np.ndarray) -> np.ndarray:
    """Joint positions about the root, facing +z.

    Args:
        angles: degrees, each (frames,), as `demo_actions` names them.
        bones: (frames, joints, 3) of each joint from its parent in the standing pose, metres.

    Returns:
        (frames, joints, 3) metres.
    """
    a = angles
    turn = {
        "spine_base": rotation(0, a["lean"]),
        "spine_mid": rotation(1, a["twist"]) @ rotation(2, a["side"]) @ rotation(0, a["bend"]),
        "neck": rotation(0, a["nod"]),
    }
    for side, sign in (("left", 1), ("right", -1)):
        out, up, roll, elbow = (a[f"{name}_{side}"] for name in ("out", "raise", "roll", "elbow"))
        hip, spread, knee, toe = (a[f"{name}_{side}"] for name in LEG)
        upper = rotation(1, sign * out) @ rotation(0, -up) @ rotation(1, -sign * roll)
        turn[f"shoulder_{side}"] = rotation(0, -a[f"hang_{side}"]) @ upper
        turn[f"elbow_{side}"] = rotation(0, -elbow)
        # A thigh is held against the vertical, so the pelvis' lean is taken back, and the sole is level.
        turn[f"hip_{side}"] = rotation(0, -a["lean"]) @ rotation(2, sign * spread) @ rotation(0, -hip)
        turn[f"knee_{side}"] = rotation(0, knee)
        turn[f"ankle_{side}"] = rotation(0, hip - knee + toe)
    joints, world = np.zeros_like(bones), {}
    for j in BODY.order:
        parent, local = BODY.parents[j], turn.get(BODY.joints[j])
        if j == BODY.root:
            world[j] = local
            continue
        joints[:, j] = joints[:, parent] + (world[parent] @ bones[:, j, :, None])[..., 0]
        world[j] = world[parent] if local is None else world[parent] @ local
    return joints


def plant(joints: np.ndarray, flight: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Put the person on the floor: the lower foot touches it, and the foot that bears weight does not slide.

    Args:
        joints: (frames, joints, 3) about the root.
        flight: (frames,) metres that both feet are off the floor.
        length: (performances,) frames of each; in its first frame the spine base is above the origin.

    Returns:
        (frames, joints, 3), y = 0 is the floor.
    """
    left, right = joints[:, JOINT["ankle_left"]], joints[:, JOINT["ankle_right"]]
    feet = joints[:, [JOINT["foot_left"], JOINT["foot_right"]], 1]
    weight = 1 / (1 + np.exp(np.clip((left - right)[:, 1] / 0.015, -40, 40)))[:, None]  # on the left foot
    step = np.zeros((len(joints), 3))
    middle = (weight[1:] + weight[:-1]) / 2
    step[1:] = -(middle * np.diff(left, axis=0) + (1 - middle) * np.diff(right, axis=0))
    path = np.cumsum(step, axis=0)
    path -= np.repeat(path[np.cumsum(length) - length], length, axis=0)
    path[:, 1] = flight - feet.min(axis=1) + SOLE
    return joints + path[:, None]
