"""AimCLR's extreme augmentations, one at a time, and the shear of its ordinary ones."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from skeletons.augment import Augmentation, AugmentConfig, rotation_matrices
from skeletons.augment_extreme import ExtremeConfig, blur_weights, extreme
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.topology import KINECT_V2

STILL = ExtremeConfig(probability=0.0, angle=0.0, side_angle=0.0)


def bodies(clips: int = 400, persons: int = 1, frames: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    joints = torch.randn(clips, persons, frames, 25, 3, generator=generator)
    return joints, torch.rand(clips, persons, frames, 25, generator=generator) < 0.8


class Only(Draws):
    """Draws in which one purpose happens always and the others never."""

    chosen = ""

    def fork(self, *purpose: object) -> Draws:
        made = super().fork(*purpose)
        if str(purpose[0]).endswith("?"):
            made.uniform = lambda *shape: torch.full(shape, 0.0 if purpose[0] == f"{self.chosen}?" else 1.0)
        return made


def one(chosen: str, joints: torch.Tensor, observed: torch.Tensor, **fields) -> tuple[torch.Tensor, torch.Tensor]:
    draws = Only(0, 0)
    draws.chosen = chosen
    return extreme(joints, observed, KINECT_V2, draws, replace(STILL, probability=0.5, **fields))


def test_nothing_happens_without_strength():
    joints, observed = bodies()
    found, seen = extreme(joints, observed, KINECT_V2, Draws(0, 0), STILL)
    torch.testing.assert_close(found, joints)
    assert torch.equal(seen, observed)


def test_the_flip_swaps_indices_only():
    joints, observed = bodies()
    found, seen = one("flip", joints, observed)
    swap = list(KINECT_V2.mirror)
    torch.testing.assert_close(found, joints[:, :, :, swap])
    assert torch.equal(seen, observed[..., swap])


def test_sides_stay_where_they_are_classes():
    joints, observed = bodies()
    draws = Only(0, 0)
    draws.chosen = "flip"
    found, seen = extreme(joints, observed, KINECT_V2, draws, replace(STILL, probability=0.5), chiral=True)
    torch.testing.assert_close(found, joints)
    assert torch.equal(seen, observed)


def test_time_runs_backwards():
    joints, observed = bodies()
    found, seen = one("time", joints, observed)
    torch.testing.assert_close(found, joints.flip(2))
    assert torch.equal(seen, observed.flip(2))


def test_one_axis_is_lost():
    joints, observed = bodies()
    found, seen = one("mask", joints, observed)
    gone = (found == 0).flatten(1, 3).all(1)
    assert (gone.sum(1) == 1).all() and (gone.float().mean(0) - 1 / 3).abs().max() < 0.1
    assert torch.equal(seen, observed)


def test_noise_is_white_and_of_each_person_alone():
    joints, observed = bodies(persons=2)
    noise = one("noise", joints, observed)[0] - joints
    assert noise.std() == pytest.approx(0.01, rel=0.01) and abs(float(noise.mean())) < 1e-4
    first, second = noise.unbind(1)
    assert abs(float((first * second).mean())) < 1e-6
    alone = one("noise", joints[:, :1], observed[:, :1])[0]
    torch.testing.assert_close(alone, one("noise", joints, observed)[0][:, :1])


@pytest.mark.parametrize("normalised", [True, False])
def test_the_blur_is_a_gaussian_over_time(normalised):
    sigma = torch.tensor([0.1, 1.0, 2.0], dtype=torch.float64)
    weights = blur_weights(20, sigma, 15, normalised)
    for s, width in enumerate(sigma.tolist()):
        for t in (0, 3, 10):
            row = [math.exp(-((t - u) ** 2) / (2 * width**2)) if abs(t - u) <= 7 else 0.0 for u in range(20)]
            total = sum(row) if normalised else 1
            assert weights[s, t].tolist() == pytest.approx([x / total for x in row], abs=1e-12)
    joints, observed = bodies(50, frames=20)
    found, _ = one("blur", joints, observed, blur_low=2.0, blur_high=2.0, blur_sums_to_one=normalised)
    kernel = blur_weights(20, torch.tensor([2.0]), 15, normalised)[0]
    torch.testing.assert_close(found, torch.einsum("tu,rpujc->rptjc", kernel, joints), rtol=1e-4, atol=1e-5)


def test_one_axis_turns_far_and_always_the_same_way():
    joints = torch.eye(3).repeat(500, 1, 1, 9, 1)[:, :, :, :25]
    observed = torch.ones(500, 1, 1, 25, dtype=torch.bool)
    config = replace(STILL, angle=30.0, side_angle=1.0)
    found, _ = extreme(joints, observed, KINECT_V2, Draws(0, 0), config)
    turns = found[:, 0, 0, :3].transpose(1, 2).double()
    y = torch.asin(-turns[:, 2, 0])
    angles = torch.stack([torch.atan2(turns[:, 2, 1], turns[:, 2, 2]), y, torch.atan2(turns[:, 1, 0], turns[:, 0, 0])])
    torch.testing.assert_close(rotation_matrices(angles.T), turns, rtol=0, atol=1e-6)
    degrees = -angles.T * 180 / math.pi
    assert (degrees > -0.01).all() and (degrees < 30).all()
    assert ((degrees > 1.01).sum(1) <= 1).all()
    main = degrees.max(1)
    assert main.values.mean() == pytest.approx(15, abs=1) and main.values.max() > 29
    assert (main.indices.bincount() / 500 - 1 / 3).abs().max() < 0.1


def test_draws_are_by_clip_and_happen_half_of_the_time():
    joints, observed = bodies(persons=2)
    found, _ = extreme(joints, observed, KINECT_V2, Draws(0, 0), replace(STILL, probability=0.5))
    again, _ = extreme(joints, observed, KINECT_V2, Draws(0, 0), replace(STILL, probability=0.5))
    assert torch.equal(found, again)
    masked = (found == 0).flatten(1, 3).all(1).any(1)
    assert masked.float().mean() == pytest.approx(0.5, abs=0.08)
    halves = [
        extreme(joints[at], observed[at], KINECT_V2, Draws(0, 0, rank=r, world=2), STILL)[0]
        for r, at in enumerate((slice(200), slice(200, 400)))
    ]
    torch.testing.assert_close(torch.cat(halves), joints)
    config = ExtremeConfig()
    whole, _ = extreme(joints, observed, KINECT_V2, Draws(0, 0), config)
    halves = [
        extreme(joints[at], observed[at], KINECT_V2, Draws(0, 0, rank=r, world=2), config)[0]
        for r, at in enumerate((slice(200), slice(200, 400)))
    ]
    torch.testing.assert_close(torch.cat(halves), whole, rtol=1e-5, atol=1e-6)


def test_shear_mixes_axes():
    joints = torch.eye(3).repeat(600, 1, 1, 9, 1)[:, :, :, :25]
    observed = torch.ones(600, 1, 1, 25, dtype=torch.bool)
    plain = AugmentConfig(rotation="none", mirroring="none", scaling="none", probability=1.0)

    def sheared(config: AugmentConfig) -> torch.Tensor:
        return Augmentation(config, KINECT_V2)(joints, observed, 2, Draws(0, 0))[0][:, 0, 0, :3].transpose(1, 2)

    assert torch.equal(sheared(plain), torch.eye(3).expand(600, 3, 3))
    found = sheared(replace(plain, shear=0.5))
    assert torch.equal(found.diagonal(dim1=1, dim2=2), torch.ones(600, 3))
    off = found[:, ~torch.eye(3, dtype=torch.bool)]
    assert off.abs().max() <= 0.5 and off.abs().mean() == pytest.approx(0.25, abs=0.02)
    assert (torch.corrcoef(off.T) - torch.eye(6)).abs().max() < 0.2
    half = sheared(replace(plain, shear=0.5, probability=0.5))
    untouched = (half == torch.eye(3)).flatten(1).all(1)
    assert untouched.float().mean() == pytest.approx(0.5, abs=0.08)
    with pytest.raises(BadInput, match=r"augment.shear=-0.1"):
        Augmentation(replace(plain, shear=-0.1), KINECT_V2)
