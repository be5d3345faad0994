"""Skeletal augmentations: SLiM, section 3.4 and algorithms 2-4."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from skeletons.augment import Augmentation, AugmentConfig, bone_scaling_matrices, rotation_matrices
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.topology import KINECT_V2, TOPOLOGIES, Topology
from tests.skeletons.augmented import KINDS, apply, bodies, only

SWAP = torch.tensor(KINECT_V2.mirror)
BACKWARDS = Topology(
    ("hand_left", "hand_right", "elbow_left", "elbow_right", "knee_left", "knee_right", "spine_mid", "spine_base"),
    (2, 3, 6, 6, 7, 7, 7, 7),
)


def turned(config: AugmentConfig, rows: int) -> Tensor:
    """The rotation of each row, (row, 3, 3), read off three joints at unit vectors."""
    joints = torch.zeros(rows, 1, 1, 25, 3)
    joints[:, 0, 0, :3] = torch.eye(3)
    return apply(config, joints)[:, 0, 0, :3].transpose(1, 2)


def angles_of(matrices: Tensor) -> Tensor:
    """(row, 3) angles about x, y, z of R = Rz Ry Rx; of the two solutions the one with |x| <= pi / 2."""
    r = matrices.double()
    y = torch.asin((-r[:, 2, 0]).clamp(-1, 1))
    x, z = torch.atan2(r[:, 2, 1], r[:, 2, 2]), torch.atan2(r[:, 1, 0], r[:, 0, 0])
    far = x.abs() > math.pi / 2
    x, y, z = (torch.where(far, a, b) for a, b in ((x - x.sign() * math.pi, x), (math.pi - y, y), (z + math.pi, z)))
    wrapped = [torch.remainder(a + math.pi, 2 * math.pi) - math.pi for a in (x, y, z)]
    return torch.stack(wrapped, 1)


# --- Rotation ---


def test_rotations_are_rz_ry_rx_orthonormal_and_proper():
    angles = (torch.rand(50, 3, dtype=torch.float64) - 0.5) * 2 * math.pi
    found = rotation_matrices(angles)
    one, zero = torch.ones(50, dtype=torch.float64), torch.zeros(50, dtype=torch.float64)
    (sx, sy, sz), (cx, cy, cz) = angles.sin().T, angles.cos().T

    def matrix(*rows: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([torch.stack(r, -1) for r in rows], -2)

    about_x = matrix((one, zero, zero), (zero, cx, -sx), (zero, sx, cx))
    about_y = matrix((cy, zero, sy), (zero, one, zero), (-sy, zero, cy))
    about_z = matrix((cz, -sz, zero), (sz, cz, zero), (zero, zero, one))
    torch.testing.assert_close(found, about_z @ about_y @ about_x, rtol=0, atol=1e-14)
    torch.testing.assert_close(found @ found.mT, torch.eye(3).double().expand(50, 3, 3), rtol=0, atol=1e-14)
    torch.testing.assert_close(torch.linalg.det(found), one, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("config", "limits"),
    [
        (only("rotation"), (math.pi / 6, math.pi, math.pi / 6)),
        (only("rotation", yaw=0.5, tilt=0.1), (0.1, 0.5, 0.1)),
        (only("rotation", "limited"), (0.3, 0.3, 0.3)),
        (only("rotation", "limited", limited_angle=0.1, yaw=3.0), (0.1, 0.1, 0.1)),
    ],
    ids=["aware", "aware, smaller", "limited", "limited, smaller"],
)
def test_angles_fill_their_range_about_each_axis(config, limits):
    matrices = turned(config, 2000)
    angles = angles_of(matrices)
    torch.testing.assert_close(rotation_matrices(angles), matrices.double(), rtol=0, atol=1e-4)
    for angle, limit in zip(angles.T, limits):
        assert angle.abs().max() <= limit + 1e-4
        assert angle.min() < -0.97 * limit
        assert angle.max() > 0.97 * limit
        assert abs(angle.mean()) < 0.05 * limit


def test_a_rotation_turns_all_persons_frames_and_joints_alike():
    joints, _ = bodies(6)
    rotated = apply(only("rotation"), joints)
    moved = torch.einsum("rdc,rptjc->rptjd", turned(only("rotation"), 6), joints)
    torch.testing.assert_close(rotated, moved, rtol=0, atol=1e-5)


# --- Mirroring ---


def test_mirroring_reflects_space_and_swaps_sides():
    joints, _ = bodies(3)
    expected = joints[..., SWAP, :] * torch.tensor([-1.0, 1.0, 1.0])
    assert torch.equal(apply(only("mirroring"), joints), expected)


def test_limited_mirroring_swaps_sides_without_reflecting_space():
    joints, _ = bodies(3)
    assert torch.equal(apply(only("mirroring", "limited"), joints), joints[..., SWAP, :])


@pytest.mark.parametrize("how", ["aware", "limited"])
@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=lambda t: t.name)
def test_mirroring_twice_is_the_identity(topology, how):
    joints, observed = bodies(3, topology)
    augment = Augmentation(only("mirroring", how), topology)
    once = augment(joints, observed, 1, Draws(0, 1))
    twice = augment(*once, 1, Draws(0, 2))
    assert not torch.equal(once[0], joints)
    assert torch.equal(twice[0], joints)
    assert torch.equal(twice[1], observed)


def test_observed_is_mirrored_with_the_joints():
    joints, observed = bodies(64)
    config = only("mirroring", probability=0.5)
    out, seen = Augmentation(config, KINECT_V2)(joints, observed, 1, Draws(0, 1))
    swapped = (out != joints).flatten(1).any(1)
    assert 0 < swapped.sum() < 64
    assert torch.equal(seen[swapped], observed[swapped][..., SWAP])
    assert torch.equal(seen[~swapped], observed[~swapped])


def mirrored(config: AugmentConfig, chiral: bool, step: int = 1) -> dict[str, Tensor]:
    """bool (view, clip) of two view groups of one step: which views were mirrored."""
    augment, found = Augmentation(config, KINECT_V2, chiral), {}
    for group, views in (("global", 2), ("local8", 6)):
        joints, observed = bodies(views * 32)
        out, _ = augment(joints, observed, views, Draws(0, step).fork("augment", group))
        found[group] = (out != joints).flatten(1).any(1).unflatten(0, (views, 32))
    return found


@pytest.mark.parametrize(("mirror_per", "chiral"), [("auto", True), ("clip", False), ("clip", True)])
def test_mirrors_are_drawn_once_for_a_clip_where_left_and_right_are_classes(mirror_per, chiral):
    found = mirrored(only("mirroring", probability=0.5, mirror_per=mirror_per), chiral)
    drawn = found["global"][0]
    assert 4 < drawn.sum() < 28
    for group in found.values():
        assert (group == drawn).all()
    other = mirrored(only("mirroring", probability=0.5, mirror_per=mirror_per), chiral, step=2)
    assert not torch.equal(other["global"][0], drawn)


@pytest.mark.parametrize(("mirror_per", "chiral"), [("auto", False), ("view", False), ("view", True)])
def test_mirrors_are_drawn_for_each_view_otherwise(mirror_per, chiral):
    found = mirrored(only("mirroring", probability=0.5, mirror_per=mirror_per), chiral)
    for group in found.values():
        assert (group[0] != group[1]).any()
    assert (found["global"][0] != found["local8"][0]).any()


# --- Scaling ---


def bones(joints: Tensor, topology: Topology) -> Tensor:
    child, parent = torch.tensor(topology.bones).T
    return joints[..., child, :] - joints[..., parent, :]


def rebuilt(topology: Topology, joints: Tensor, factors: Tensor) -> Tensor:
    """Algorithm 4, joint by joint in the tree's order."""
    out = joints.clone()
    for j in topology.order:
        if j != (p := topology.parents[j]):
            out[..., j, :] = out[..., p, :] + factors[:, None, None, j, None] * (joints[..., j, :] - joints[..., p, :])
    return out


@pytest.mark.parametrize("topology", [*TOPOLOGIES.values(), BACKWARDS], ids=lambda t: t.name)
def test_bone_scaling_rebuilds_the_body_from_the_root(topology):
    """Also where a parent has a larger index than its child: Kinect v2's joint 20, and all of `custom`."""
    joints = bodies(5, topology)[0].double()
    factors = 0.85 + 0.3 * torch.rand(5, len(topology), dtype=torch.float64)
    found = torch.einsum("rjk,rptkc->rptjc", bone_scaling_matrices(topology, factors), joints)
    torch.testing.assert_close(found, rebuilt(topology, joints, factors), rtol=0, atol=1e-12)


@pytest.mark.parametrize("topology", [KINECT_V2, BACKWARDS], ids=lambda t: t.name)
def test_scaling_keeps_directions_and_the_roots_path_and_scales_each_part_by_its_factor(topology):
    joints, _ = bodies(300, topology)
    out = apply(only("scaling"), joints, topology=topology)
    torch.testing.assert_close(out[..., topology.root, :], joints[..., topology.root, :], rtol=0, atol=1e-6)
    before, after = bones(joints, topology), bones(out, topology)
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(unit(after, dim=-1), unit(before, dim=-1), rtol=0, atol=2e-3)
    ratio = after.norm(dim=-1) / before.norm(dim=-1)
    factor = ratio.flatten(1, 2).median(1).values
    torch.testing.assert_close(ratio, factor[:, None, None].expand_as(ratio), rtol=0, atol=2e-3)
    assert factor.min() >= 0.85 - 1e-4
    assert factor.max() <= 1.15 + 1e-4
    assert factor.min() < 0.86
    assert factor.max() > 1.14
    children = [child for child, _ in topology.bones]
    of_part = [[children.index(j) for j in part if j != topology.root] for part in topology.parts.values()]
    of_part = [members for members in of_part if members]
    assert len(of_part) >= 3
    for members in of_part:
        torch.testing.assert_close(
            factor[:, members], factor[:, members[:1]].expand(-1, len(members)), rtol=0, atol=1e-3
        )
    for a, b in pairwise(of_part):
        assert (factor[:, a[0]] - factor[:, b[0]]).abs().max() > 0.1


def test_limited_scaling_scales_coordinates_by_their_parts_factor():
    joints, _ = bodies(200)
    ratio = apply(only("scaling", "limited"), joints) / joints
    factor = ratio[:, 0, 0, :, 0]
    torch.testing.assert_close(ratio, factor[:, None, None, :, None].expand_as(ratio), rtol=1e-5, atol=0)
    assert factor.min() >= 0.85 - 1e-5
    assert factor.max() <= 1.15 + 1e-5
    for members in KINECT_V2.parts.values():
        assert (factor[:, list(members)].std(1) < 1e-5).all()
    assert factor[:, [0, 4]].diff().abs().max() > 0.1


# --- All of them ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_each_is_applied_with_its_probability_view_by_view(kind, probability):
    joints, _ = bodies(2000)
    out = apply(only(kind, probability=probability), joints, views=2)
    changed = (out != joints).flatten(1).any(1).unflatten(0, (2, 1000)).float()
    assert changed.mean() == pytest.approx(probability, abs=0.04)
    if probability == 0.5:
        assert (changed[0] == changed[1]).float().mean() == pytest.approx(0.5, abs=0.05)


def test_augmentations_are_drawn_apart_from_each_other():
    joints, _ = bodies(2000)
    changed = [(apply(only(kind, probability=0.5), joints) != joints).flatten(1).any(1) for kind in KINDS]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (changed[a] == changed[b]).float().mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("how", ["aware", "limited"])
def test_the_order_is_mirroring_scaling_rotation(how):
    joints, _ = bodies(16)
    expected = joints
    for kind in ("mirroring", "scaling", "rotation"):
        expected = apply(only(kind, how), expected)
    together = apply(AugmentConfig(rotation=how, mirroring=how, scaling=how, probability=1.0), joints)
    torch.testing.assert_close(together, expected, rtol=0, atol=1e-5)
    wrong = joints
    for kind in ("scaling", "mirroring", "rotation"):
        wrong = apply(only(kind, how), wrong)
    assert not torch.allclose(wrong, together, atol=1e-2)


@pytest.mark.parametrize("how", ["aware", "limited"])
def test_absent_persons_stay_zero(how):
    joints, observed = bodies(16)
    joints[::2, 1], observed[::2, 1] = 0, False
    config = AugmentConfig(rotation=how, mirroring=how, scaling=how, probability=1.0)
    out, seen = Augmentation(config, KINECT_V2)(joints, observed, 2, Draws(0, 1))
    assert (out[::2, 1] == 0).all()
    assert not seen[::2, 1].any()
    assert (out[1::2, 1] != 0).any((1, 2, 3)).all()


def test_none_of_them_changes_nothing():
    joints, observed = bodies(4)
    config = AugmentConfig(rotation="none", mirroring="none", scaling="none", probability=1.0)
    out, seen = Augmentation(config, KINECT_V2)(joints, observed, 2, Draws(0, 1))
    assert torch.equal(out, joints)
    assert torch.equal(seen, observed)


def test_a_body_without_partners_can_be_augmented_but_not_mirrored():
    one_armed = Topology(("spine_base", "spine_mid", "hand_left"), (0, 0, 1))
    joints, _ = bodies(2, one_armed)
    assert not torch.equal(apply(only("rotation"), joints, topology=one_armed), joints)
    with pytest.raises(BadInput, match=r"no partner 'hand_right'; name it or set augment\.mirroring=none"):
        apply(only("mirroring"), joints, topology=one_armed)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rotation": "awares"}, "unknown augment.rotation 'awares'; did you mean 'aware'\\? known: aware, limited"),
        ({"scaling": "full"}, "unknown augment.scaling 'full'"),
        ({"mirror_per": "clips"}, "unknown augment.mirror_per 'clips'; did you mean 'clip'"),
    ],
)
def test_unknown_kinds_name_the_nearest(wrong, message):
    with pytest.raises(BadInput, match=message):
        Augmentation(AugmentConfig(**wrong), KINECT_V2)
