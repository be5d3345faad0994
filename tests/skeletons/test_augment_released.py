"""What SLiM's release adds to the paper's augmentations: noise, a dropped axis, other bone scaling."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from skeletons.augment import Augmentation, AugmentConfig, Corruption, bone_scaling_matrices
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.topology import KINECT_V2
from tests.skeletons.augmented import apply, bodies, only

NOTHING = {"rotation": "none", "mirroring": "none", "scaling": "none"}


def corrupted(joints: Tensor, group: str, views: int, step: int = 0, **fields) -> Tensor:
    seen = joints.abs().sum(-1) > 0
    config = AugmentConfig(**NOTHING, **fields)
    return Augmentation(config, KINECT_V2)(joints, seen, views, Draws(0, step).fork("augment", group), group)[0]


def test_each_view_gets_the_noise_of_its_group():
    joints, _ = bodies(2000, persons=1, frames=2)
    fields = {
        "global_1": Corruption(noise=0.01),
        "global_2": Corruption(noise=0.05, noise_probability=0.1),
        "local": Corruption(noise=0.02, noise_probability=0.5),
    }
    for group, expected in (
        ("global", [(0.01, 1.0), (0.05, 0.1)]),
        ("local8", [(0.02, 0.5)] * 4),
        ("clip", [(0.01, 1.0)]),  # the one global view of who has no local ones
        ("", [(0.0, 0.0)]),
    ):
        views = len(expected)
        change = (corrupted(joints, group, views, **fields) - joints).unflatten(0, (views, -1))
        for view, (sigma, chance) in zip(change, expected):
            happened = view.flatten(1).any(1)
            assert float(happened.float().mean()) == pytest.approx(chance, abs=5 * (0.25 / len(view)) ** 0.5)
            if sigma:
                assert float(view[happened].std()) == pytest.approx(sigma, rel=0.02)
                assert float(view[happened].mean()) == pytest.approx(0, abs=sigma / 50)
        assert (group == "") == (not change.any())


def test_one_axis_is_dropped_from_the_whole_view():
    joints, _ = bodies(3000, persons=1, frames=2)
    found = corrupted(joints, "global", 2, global_2=Corruption(axis_drop=0.3)).unflatten(0, (2, -1))
    given = joints.unflatten(0, (2, -1))
    assert torch.equal(found[0], given[0])
    gone = (found[1] == 0).flatten(1, 3).all(1)  # clip, axis
    assert (gone.sum(1) <= 1).all()
    assert gone.float().mean(0).tolist() == pytest.approx([0.1] * 3, abs=0.04)
    assert torch.equal(found[1], given[1] * ~gone[:, None, None, None])


def test_noise_leaves_absent_persons_at_zero_and_is_cut_over_ranks():
    joints, _ = bodies(8)
    joints[::3, 1] = 0
    noisy = {"global_1": Corruption(0.01), "global_2": Corruption(0.05)}
    found = corrupted(joints, "global", 2, **noisy)
    assert not found[::3, 1].any() and (found != joints)[:, 0].all()
    by_view, given = found.unflatten(0, (2, 4)), joints.unflatten(0, (2, 4))
    augmentation = Augmentation(AugmentConfig(**NOTHING, **noisy), KINECT_V2)
    for rank in range(2):
        mine = given[:, 2 * rank : 2 * rank + 2].flatten(0, 1)
        draws = Draws(0, 0, rank=rank, world=2).fork("augment", "global")
        part = augmentation(mine, mine.abs().sum(-1) > 0, 2, draws, "global")[0]
        assert torch.equal(part.unflatten(0, (2, 2)), by_view[:, 2 * rank : 2 * rank + 2])


def test_sides_may_share_a_factor():
    joints, _ = bodies(50, persons=1)
    apart, together = (apply(only("scaling", scale_sides=s), joints) for s in ("apart", "together"))

    def factor(scaled: Tensor, child: str, parent: str) -> Tensor:
        a, b = KINECT_V2.joints.index(child), KINECT_V2.joints.index(parent)
        return (
            (scaled[..., a, :] - scaled[..., b, :]).norm(dim=-1) / (joints[..., a, :] - joints[..., b, :]).norm(dim=-1)
        )[:, 0, 0]

    for inner, outer in (("elbow", "wrist"), ("knee", "ankle")):
        sides = [factor(together, f"{outer}_{s}", f"{inner}_{s}") for s in ("left", "right")]
        torch.testing.assert_close(*sides, rtol=1e-3, atol=0)
        sides = [factor(apart, f"{outer}_{s}", f"{inner}_{s}") for s in ("left", "right")]
        assert not torch.allclose(*sides, rtol=1e-3)
    arm, leg = (
        factor(together, f"{outer}_left", f"{inner}_left") for inner, outer in (("elbow", "wrist"), ("knee", "ankle"))
    )
    assert not torch.allclose(arm, leg, rtol=1e-3) and bool((arm > 0.84).all() and (arm < 1.16).all())


def test_rebuilding_by_index_is_the_releases_bug():
    x = torch.randn(25, 3, dtype=torch.float64)
    factors = 0.85 + 0.3 * torch.rand(25, dtype=torch.float64)
    expected = torch.zeros_like(x)  # as the release goes: joint by joint, parents that come later are still zero
    expected[0] = x[0]
    for joint in range(1, 25):
        parent = KINECT_V2.parents[joint]
        expected[joint] = expected[parent] + factors[joint] * (x[joint] - x[parent])
    found = bone_scaling_matrices(KINECT_V2, factors[None], "index")[0] @ x
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    right = bone_scaling_matrices(KINECT_V2, factors[None])[0] @ x
    wrong = ((found - right).abs().amax(1) > 1e-9).nonzero().flatten().tolist()
    assert wrong == [2, 3, *range(4, 12), 21, 22, 23, 24]  # head and both arms


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale_sides": "aparte"}, "did you mean 'apart'"),
        ({"rebuild": "indx"}, "did you mean 'index'"),
        ({"global_2": Corruption(axis_drop=2.0)}, "augment.global_2: noise must not be negative"),
        ({"local": Corruption(noise=-1.0)}, "augment.local: noise must not be negative"),
    ],
)
def test_wrong_corruptions_are_refused(wrong, message):
    with pytest.raises(BadInput, match=message):
        AugmentConfig(**wrong).check()
