"""Skeletal augmentations (SLiM, section 3.4 and algorithms 2-4), each `aware`, `limited` or `none`.

`limited` is what earlier papers did: rotation by a small angle about every axis (MAMP's +-0.3 rad), mirroring by
swapping indices without reflecting space, scaling of coordinates instead of bones. Every one of them is linear, so a
view's augmentation is two small matrices: one that mixes joints (mirroring and scaling) and one that turns space.
The paper's order: mirroring, scaling, rotation (the order of the released code).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from skeletons.errors import BadInput, check_choices
from skeletons.randomness import Draws
from skeletons.topology import Topology

VERSION = 1
KINDS = ("aware", "limited", "none")


@dataclass
class Corruption:
    """What is done to a view after its geometry (SLiM's release; not in the paper).

    Attributes:
        noise: standard deviation of normal noise on every coordinate, metres.
        noise_probability: of the noise, for each view.
        axis_drop: probability that one of the three axes, drawn uniformly, is set to zero.
    """

    noise: float = 0.0
    noise_probability: float = 1.0
    axis_drop: float = 0.0


@dataclass
class AugmentConfig:
    """Augmentations and their strength.

    Attributes:
        rotation, mirroring, scaling: aware, limited or none.
        probability: of each, independently for each view (SLiM, appendix D: 0.5).
        yaw: largest angle about the vertical, radians (aware).
        tilt: largest angle about the other axes, radians (aware).
        limited_angle: largest angle about every axis, radians (limited; MAMP's feeder).
        scale_low, scale_high: range of the factor of each part's bones.
        mirror_per: view, clip (all views of a clip alike) or auto (clip where the data declares chiral classes).
        shear: largest off-diagonal entry of a random shear of space, each of the six drawn uniformly on its own, last
            of all (SkeletonCLR, AimCLR: 0.5); 0 means none.
        scale_sides: apart (each part of the body has its factor) or together (both arms share one, both legs too).
        rebuild: order in which scaled bones become a body again: tree (root outwards), or index, the release's bug:
            joints numbered before their parent (neck, shoulders) are put where the root of the coordinates is.
        global_1, global_2, local: corruption of the first global view, the other ones, and local views.
    """

    rotation: str = "aware"
    mirroring: str = "aware"
    scaling: str = "aware"
    probability: float = 0.5
    yaw: float = float(np.pi)
    tilt: float = float(np.pi / 6)
    limited_angle: float = 0.3
    scale_low: float = 0.85
    scale_high: float = 1.15
    mirror_per: str = "auto"
    shear: float = 0.0
    scale_sides: str = "apart"
    rebuild: str = "tree"
    global_1: Corruption = field(default_factory=Corruption)
    global_2: Corruption = field(default_factory=Corruption)
    local: Corruption = field(default_factory=Corruption)

    def check(self) -> None:
        """Raises BadInput for an unknown kind, or a corruption that makes no sense."""
        check_choices(
            "augment",
            self,
            rotation=KINDS,
            mirroring=KINDS,
            scaling=KINDS,
            mirror_per=("auto", "view", "clip"),
            scale_sides=("apart", "together"),
            rebuild=("tree", "index"),
        )
        if self.shear < 0:
            raise BadInput(f"augment.shear={self.shear} must not be negative")
        for name in ("global_1", "global_2", "local"):
            c = getattr(self, name)
            if c.noise < 0 or not (0 <= c.noise_probability <= 1 and 0 <= c.axis_drop <= 1):
                raise BadInput(f"augment.{name}: noise must not be negative, probabilities lie between 0 and 1")

    def corruptions(self, group: str, views: int) -> list[Corruption]:
        """The corruption of each view of a group: `global`, or `clip` where there are no local ones, and `local...`."""
        if group in ("global", "clip"):
            return [self.global_1, *[self.global_2] * (views - 1)]
        return [self.local if group.startswith("local") else Corruption()] * views


def rotation_matrices(angles: Float[Tensor, "row 3"]) -> Float[Tensor, "row 3 3"]:
    """R = Rz Ry Rx for angles (about x, y, z) in radians (algorithm 2)."""
    (sx, sy, sz), (cx, cy, cz) = angles.sin().unbind(-1), angles.cos().unbind(-1)
    rows = (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )
    return torch.stack([torch.stack(r, -1) for r in rows], -2)


def bone_scaling_matrices(
    topology: Topology, factors: Float[Tensor, "row joint"], rebuild: str = "tree"
) -> Float[Tensor, "row joint joint"]:
    """Matrices that scale each joint's bone by its factor and rebuild the body from the root (algorithm 4).

    x' = x_root + A (s * (x - x_parent)), A the ancestry without the root: the sum over a joint's ancestors is the
    topological order, whatever the joints' numbering. Directions of bones and the root's path are kept.

    Args:
        rebuild: tree; or index: ancestors count only along a path of parents that have lower numbers (the release).
    """
    count, root = len(topology), topology.root
    ancestry = torch.from_numpy(topology.ancestry).to(factors)
    if rebuild == "index":
        for j in range(count):
            own = ancestry.new_zeros(count)
            own[j] = 1
            built = topology.parents[j] < j or topology.parents[j] == root
            ancestry[j] = own + (ancestry[topology.parents[j]] if built and j != root else 0)
    reached = ancestry[:, root].clone()
    ancestry[:, root] = 0
    bone = torch.eye(count, dtype=factors.dtype, device=factors.device)
    bone[torch.arange(count), torch.tensor(topology.parents)] -= 1
    from_root = torch.zeros_like(bone)
    from_root[:, root] = reached
    return from_root + ancestry @ (factors[:, :, None] * bone)


def for_labels(config: AugmentConfig, chiral: bool) -> AugmentConfig:
    """For clips that are classified: none is mirrored where the mirror image of a class is another one."""
    return replace(config, mirroring="none") if chiral else config


class Augmentation:
    """Draws and applies the augmentations of `config` for one data set.

    Args:
        topology: of the joints.
        chiral: the data declares classes that are each other's mirror image.
    """

    def __init__(self, config: AugmentConfig, topology: Topology, chiral: bool = False):
        config.check()
        self.config, self.topology = config, topology
        self.mirror_once = config.mirror_per == "clip" or (config.mirror_per == "auto" and chiral)
        self.swap = torch.tensor(topology.mirror if config.mirroring != "none" else range(len(topology)))
        names = list(topology.parts)
        if config.scale_sides == "together":
            names = [name.removesuffix("_left").removesuffix("_right") for name in names]
        self.factors = len(names)  # drawn; with sides together the first of each pair counts
        self.part_of = torch.tensor([names.index(names[part]) for part in topology.part_of])

    def __call__(
        self,
        joints: Float[Tensor, "row person time joint 3"],
        observed: Bool[Tensor, "row person time joint"],
        views: int,
        draws: Draws,
        group: str = "",
    ) -> tuple[Tensor, Tensor]:
        """Augment every view of every clip on its own.

        Args:
            joints, observed: row = view x clip, all clips of the first view first.
            views: how many views of each clip there are.
            draws: keyed by step and view group; `mirror` is shared between groups where it is drawn once for a clip.
            group: of views, for what differs between groups.
        """
        c, clips, device = self.config, len(joints) // views, joints.device
        count = len(self.topology)

        def draw(what: str, *shape: int) -> Tensor:  # drawn by clip, so that ranks can slice
            return draws.fork(what).uniform(clips, views, *shape).transpose(0, 1).flatten(0, 1).to(device)

        space = torch.eye(3, device=device).expand(len(joints), 3, 3)
        mix = None
        if c.mirroring != "none":
            if self.mirror_once:
                mirrored = (draws.shared("mirror").uniform(clips) < c.probability).repeat(views).to(device)
            else:
                mirrored = draw("mirror") < c.probability
            plain = torch.eye(count, device=device)
            swap = self.swap.to(device)
            mix = torch.where(mirrored[:, None, None], plain[swap], plain)
            observed = torch.where(mirrored[:, None, None, None], observed[..., swap], observed)
            if c.mirroring == "aware":
                flip = torch.tensor([-1.0, 1.0, 1.0], device=device)
                space = torch.where(mirrored[:, None, None], torch.diag(flip), space)
        if c.scaling != "none":
            factors = c.scale_low + (c.scale_high - c.scale_low) * draw("scale", self.factors)
            factors = torch.where(draw("scale?")[:, None] < c.probability, factors, 1.0)
            of_joint = factors[:, self.part_of.to(device)]
            if c.scaling == "aware":
                scale = bone_scaling_matrices(self.topology, of_joint, c.rebuild)
            else:
                scale = torch.diag_embed(of_joint)
            mix = scale if mix is None else scale @ mix
        if c.rotation != "none":
            limit = torch.tensor([c.tilt, c.yaw, c.tilt] if c.rotation == "aware" else [c.limited_angle] * 3)
            angles = (2 * draw("rotate", 3) - 1) * limit.to(device)
            angles = torch.where(draw("rotate?")[:, None] < c.probability, angles, 0.0)
            space = rotation_matrices(angles) @ space
        if c.shear:
            off_diagonal = c.shear * (2 * draw("shear", 3, 3) - 1) * (1 - torch.eye(3, device=device))
            off_diagonal = torch.where(draw("shear?")[:, None, None] < c.probability, off_diagonal, 0.0)
            space = (torch.eye(3, device=device) + off_diagonal) @ space
        if mix is not None:
            joints = torch.einsum("rjk,rptkc->rptjc", mix, joints)
        joints = torch.einsum("rdc,rptjc->rptjd", space, joints)
        return self._corrupt(joints, observed, c.corruptions(group, views), draws), observed

    def _corrupt(self, joints: Tensor, observed: Tensor, each: list[Corruption], draws: Draws) -> Tensor:
        """Noise, then axes that are dropped; each view has its own strengths."""
        views, device = len(each), joints.device
        shape = (len(joints) // views, views)

        def happens(what: str, chance: list[float]) -> Tensor:
            drawn = draws.fork(what).uniform(*shape).to(device) < torch.tensor(chance, device=device)
            return drawn.T.flatten()

        if any(c.noise for c in each):
            sigma = torch.tensor([c.noise for c in each], device=device).repeat_interleave(shape[0])
            sigma = sigma * happens("noise?", [c.noise_probability for c in each])
            noise = draws.fork("noise").noise(*shape, *joints.shape[1:]).transpose(0, 1).flatten(0, 1).to(device)
            there = observed.flatten(2).any(2)[..., None, None, None]  # absent persons stay zero
            joints = joints + sigma[:, None, None, None, None] * noise * there
        if any(c.axis_drop for c in each):
            axis = (3 * draws.fork("axis").uniform(*shape)).long().clamp(max=2).T.flatten().to(device)
            dropped = happens("axis?", [c.axis_drop for c in each])[:, None] & (
                axis[:, None] == torch.arange(3, device=device)
            )
            joints = joints.masked_fill(dropped[:, None, None, None], 0)
        return joints
