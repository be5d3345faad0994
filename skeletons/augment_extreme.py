"""AimCLR's extreme augmentations (Guo et al., AAAI 2022; github Levigty/AimCLR, feeder/ntu_feeder.py, feeder/tools.py).

On top of a view's ordinary crop and shear, in this order: left-right flip (joints' indices alone are swapped, space is
not reflected; never on data with classes that are each other's mirror image), rotation (one random main axis by up to
30 degrees, the other two by up to 1, always), time flip, Gaussian noise, Gaussian blur over time, and one coordinate
axis set to zero; each with probability 1/2 but the rotation. A clip's persons share every draw but the noise.

The released blur kernel is not normalised (at its widest it multiplies coordinates by 5) and meets zeros beyond the
ends. Here the weights of the frames that exist sum to 1; `blur_sums_to_one=false` is the release's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from skeletons.augment import rotation_matrices
from skeletons.randomness import Draws
from skeletons.topology import Topology


@dataclass
class ExtremeConfig:
    """Their strength.

    Attributes:
        probability: of each but the rotation.
        angle, side_angle: largest rotation about the main axis and about the other two, degrees.
        noise: standard deviation, metres.
        blur_frames: length of the blur's kernel.
        blur_low, blur_high: range of its standard deviation, frames.
        blur_sums_to_one: see the module's text.
    """

    probability: float = 0.5
    angle: float = 30.0
    side_angle: float = 1.0
    noise: float = 0.01
    blur_frames: int = 15
    blur_low: float = 0.1
    blur_high: float = 2.0
    blur_sums_to_one: bool = True


def extreme(
    joints: Float[Tensor, "clip person time joint 3"],
    observed: Bool[Tensor, "clip person time joint"],
    topology: Topology,
    draws: Draws,
    config: ExtremeConfig,
    chiral: bool = False,
) -> tuple[Float[Tensor, "clip person time joint 3"], Bool[Tensor, "clip person time joint"]]:
    """One view of each clip, augmented in the order above; the time flip and the swap move `observed` too.

    Args:
        chiral: the data has classes that are each other's mirror image.
    """
    clips, persons, frames = joints.shape[:3]
    device = joints.device

    def draw(what: str, *shape: int) -> Tensor:  # drawn by clip, so that ranks can slice
        return draws.fork(what).uniform(clips, *shape).to(device)

    def happens(what: str) -> Tensor:
        return (draw(f"{what}?") < config.probability)[:, None, None, None]

    swap = torch.tensor(topology.mirror, device=device)
    at = happens("flip") & (not chiral)
    joints = torch.where(at[..., None], joints.index_select(3, swap), joints)
    observed = torch.where(at, observed.index_select(3, swap), observed)

    main = (3 * draw("axis")).long()[:, None] == torch.arange(3, device=device)
    angles = draw("rotate", 3) * torch.where(main, config.angle, config.side_angle)
    turn = rotation_matrices(-angles * (math.pi / 180))
    joints = torch.einsum("rdc,rptjc->rptjd", turn.to(joints.dtype), joints)

    at = happens("time")
    joints = torch.where(at[..., None], joints.flip(2), joints)
    observed = torch.where(at, observed.flip(2), observed)

    # Each person's own stream: an empty place for a second person changes nothing.
    noise = [draws.fork("noise", p).normal(clips, *joints.shape[2:]).to(device) for p in range(persons)]
    joints = joints + torch.where(happens("noise")[..., None], config.noise * torch.stack(noise, 1), 0.0)

    sigma = config.blur_low + (config.blur_high - config.blur_low) * draw("blur")
    weights = blur_weights(frames, sigma, config.blur_frames, config.blur_sums_to_one)
    weights = torch.where(happens("blur")[:, 0], weights, torch.eye(frames, device=device))
    joints = torch.einsum("rtu,rpujc->rptjc", weights.to(joints.dtype), joints)

    lost = (3 * draw("mask")).long()[:, None, None, None, None] == torch.arange(3, device=device)
    return torch.where(happens("mask")[..., None] & lost, 0.0, joints), observed


def blur_weights(
    frames: int, sigma: Float[Tensor, " clip"], length: int, sums_to_one: bool
) -> Float[Tensor, "clip frame frame"]:
    """Weight of frame u in blurred frame t: exp(-(t - u)^2 / (2 sigma^2)) within the kernel's length, 0 beyond."""
    time = torch.arange(frames, device=sigma.device)
    apart = time[:, None] - time
    weights = torch.exp(-(apart**2) / (2 * sigma[:, None, None] ** 2)) * (apart.abs() <= length // 2)
    return weights / weights.sum(2, keepdim=True) if sums_to_one else weights
