"""Input streams: what of a skeleton is fed to an encoder, its joints, its bones or its motion.

Three-stream papers train the same method on each and add the scores (see protocols/fusion.py):

    bone[j] = x[j] - x[parent of j]        the root's is zero
    motion[t] = x[t + 1] - x[t]            the last frame's is zero

They are made last, from a view that was cropped, resampled and augmented: AimCLR (processor/pretrain_aimclr.py and
linear_evaluation.py) converts the batches that its feeder augmented, CTR-GCN (feeders/feeder_ntu.py) converts after
crop, resize and rotation. So scaling, noise and whatever else an augmentation does to joints reaches bones and motion
as it would in a body (a method that augments its views further is handed joints for that: `Batch.in_stream`); and a
method that makes its targets or masks from motion (MAMP's) makes them from the motion of its stream. Bones follow the
topology's tree, outwards from its root. AimCLR's and CTR-GCN's table for Kinect v2 does so too, but with three
differences: it starts at the joint between the shoulders, so that the two bones of the trunk point the other way and
the zero is there; and a hand tip hangs on the thumb, the thumb on the hand.

A bone is observed where both its joints are, a motion where both its frames are; absent persons stay zero.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from skeletons.topology import Topology

JOINT = "joint"
STREAMS = (JOINT, "bone", "motion")


def as_stream(
    stream: str,
    joints: Float[Tensor, "row person time joint 3"],
    observed: Bool[Tensor, "row person time joint"],
    topology: Topology,
) -> tuple[Float[Tensor, "row person time joint 3"], Bool[Tensor, "row person time joint"]]:
    """Values of a stream in metres (motion: in metres a frame of the view), and which of them are observed.

    Args:
        stream: one of STREAMS.
        joints, observed: a view.
    """
    assert stream in STREAMS, stream
    if stream == "bone":
        parents = torch.tensor(topology.parents, device=joints.device)
        return joints - joints.index_select(-2, parents), observed & observed.index_select(-1, parents)
    if stream == "motion":
        # The last frame counts as its own next one: its motion is zero, and observed where the frame is.
        motion, seen = torch.zeros_like(joints), observed.clone()
        torch.sub(joints[:, :, 1:], joints[:, :, :-1], out=motion[:, :, :-1])
        seen[:, :, :-1] &= observed[:, :, 1:]
        return motion, seen
    return joints, observed
