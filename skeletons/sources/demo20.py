"""The embedded data set `demo20`: the demo's actions by other people, as a Kinect v1 would record them.

Sixteen new subjects before two cameras, 384 clips, and Kinect v1's 20 joints instead of 25: a second set to transfer
to, across bodies and people, for those who have no recordings at hand.
"""

from __future__ import annotations

import numpy as np

from skeletons.sources import demo
from skeletons.topology import KINECT_V1

SPEC = demo.DemoSpec(subjects=16, cameras=2, seed=1)


def generate() -> dict[str, np.ndarray]:
    """The data set in the exchange schema, see `demo.generate`."""
    arrays = demo.generate(SPEC)
    names = arrays["joint_names"].tolist()
    arrays["joints"] = np.ascontiguousarray(arrays["joints"][:, :, [names.index(joint) for joint in KINECT_V1.joints]])
    arrays["joint_names"] = np.array(KINECT_V1.joints)
    arrays["parents"] = np.array(KINECT_V1.parents, dtype=np.int64)
    arrays["sensor"] = np.array("Kinect v1 (simulated)")
    return arrays
