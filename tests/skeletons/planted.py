"""Defects to plant in recordings that have none."""

from __future__ import annotations

import numpy as np

from skeletons.topology import KINECT_V2

Arrays = dict[str, np.ndarray]
JOINT = {name: j for j, name in enumerate(KINECT_V2.joints)}


def rows(arrays: Arrays, clip: int) -> slice:
    return slice(int(arrays["offsets"][clip]), int(arrays["offsets"][clip + 1]))


def added(arrays: Arrays, joints: np.ndarray, like: int, name: str = "planted") -> Arrays:
    """One more clip; its columns are those of clip `like`."""
    made = {k: np.array(v) for k, v in arrays.items()}
    columns = {"label", "subject", "camera", "repetition", "train_xsub", "train_xview"}
    made["joints"] = np.concatenate([arrays["joints"], joints.astype(np.float32)])
    made["offsets"] = np.append(arrays["offsets"], arrays["offsets"][-1] + len(joints))
    for key in columns & arrays.keys():
        made[key] = np.append(arrays[key], arrays[key][like])
    made["clip"] = np.append(arrays["clip"], name)
    return made


def where_seen(joints: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values`, and zeros where a joint is not seen."""
    return np.where((joints != 0).any(-1, keepdims=True), values, 0)


def a_pair(arrays: Arrays) -> tuple[int, int]:
    """A training clip and a test clip, both long."""
    long = np.diff(arrays["offsets"]) > 40
    return tuple(int(np.flatnonzero(long & (arrays["train_xsub"] == side))[0]) for side in (True, False))
