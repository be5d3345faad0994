"""Corruptions: each does what it says, as strongly as it says, and nothing at its clean strength."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from skeletons.corruptions import CORRUPTIONS, change_speed, drop_frames, drop_joints, fill, noise, occlude, turn
from skeletons.gaps import fill_gaps
from skeletons.randomness import Draws
from skeletons.sampling import Batch
from skeletons.topology import KINECT_V1, KINECT_V2, OPENNI

ROWS, PERSONS, TIME = 40, 2, 32


def view_of(topology=KINECT_V2, rows: int = ROWS, time: int = TIME) -> Batch:
    """Smooth bodies, never zero; every other row has one person."""
    joints = torch.randn(rows, PERSONS, 1, len(topology), 3) + 0.1 * torch.randn(
        rows, PERSONS, time, len(topology), 3
    ).cumsum(2)
    present = torch.ones(rows, PERSONS, dtype=torch.bool)
    present[::2, 1] = False
    joints[~present] = 0
    observed = (torch.rand(rows, PERSONS, time, len(topology)) < 0.9) & present[:, :, None, None]
    return Batch(joints, observed, present)


def draws(*path) -> Draws:
    return Draws(3, "test", *path)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_clean_strength_changes_nothing_and_the_view_is_left_as_it_was(name):
    view, c = view_of(), CORRUPTIONS[name]
    same = c.apply(view, c.clean, draws(), KINECT_V2)
    torch.testing.assert_close(same.joints, view.joints, rtol=0, atol=0)
    assert torch.equal(same.observed, view.observed) and torch.equal(same.present, view.present)
    before = view.joints.clone(), view.observed.clone()
    worse = c.apply(view, {"rotation": 40.0, "speed": 2.0}.get(name, 0.5), draws(), KINECT_V2)
    assert torch.equal(view.joints, before[0]) and torch.equal(view.observed, before[1])
    there = view.present
    assert not torch.equal(worse.joints[there], view.joints[there]) and worse.joints.isfinite().all()
    assert not worse.joints[~there].any() and not (worse.observed & ~view.observed)[~there].any()


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("topology", [KINECT_V1, OPENNI], ids=lambda t: t.name)
def test_the_draws_decide_and_any_body_serves(name, topology):
    view, c = view_of(topology, 12), CORRUPTIONS[name]
    strength = {"rotation": 40.0, "speed": 2.0}.get(name, 0.5)
    first, again, other = (c.apply(view, strength, draws(n), topology).joints for n in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_clips_do_not_touch_each_other(name):
    view, c = view_of(), CORRUPTIONS[name]
    strength = {"rotation": 40.0, "speed": 2.0}.get(name, 0.5)
    other = replace(view, joints=view.joints.clone())
    other.joints[::2] *= -3
    first, second = (c.apply(v, strength, draws(), KINECT_V2).joints for v in (view, other))
    assert torch.equal(first[1::2], second[1::2]) and not torch.equal(first[::2], second[::2])


@pytest.mark.parametrize("sigma", [0.01, 0.1])
def test_noise_has_the_variance_that_was_asked_for(sigma):
    view = view_of()
    added = (noise(view, sigma, draws(), KINECT_V2).joints - view.joints)[view.present]
    assert float(added.std()) == pytest.approx(sigma, rel=0.01) and abs(float(added.mean())) < 0.01 * sigma
    assert (added.std((0, 1)) - sigma).abs().max() < 0.1 * sigma  # every joint and coordinate


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 1.0])
def test_so_many_joints_are_never_seen_as_were_asked_for(share):
    view = replace(view_of(), observed=torch.ones(ROWS, PERSONS, TIME, 25, dtype=torch.bool))
    worse = drop_joints(view, share, draws(), KINECT_V2)
    assert set((~worse.observed).sum(-1).flatten().tolist()) == {min(round(25 * share), 24)}
    lost = ~worse.observed[:, :, 0]
    assert torch.equal(lost[:, :, None].expand_as(worse.observed), ~worse.observed)
    assert torch.equal(worse.joints[worse.observed], view.joints[worse.observed])
    assert lost.sum((0, 1)).gt(0).sum() > 20 and not torch.equal(
        lost[:, 0], lost[:, 1]
    )  # any joint; persons on their own
    with_root = 0
    for row, person in ((r, p) for r in range(0, ROWS, 3) for p in range(PERSONS)):
        mean = view.joints[row, person][:, ~lost[row, person]].mean(1)
        for j in range(25):
            at = j
            while lost[row, person, at] and at != KINECT_V2.root:
                at = KINECT_V2.parents[at]
            rooted = bool(lost[row, person, at])
            with_root += rooted
            expected = mean if rooted else view.joints[row, person, :, at]
            torch.testing.assert_close(worse.joints[row, person, :, j], expected)
    assert with_root > 0


@pytest.mark.parametrize("share", [0.25, 0.5, 0.95, 1.0])
def test_dropped_frames_are_interpolated_from_those_that_arrived(share):
    view = view_of()
    worse = drop_frames(view, share, draws(), KINECT_V2)
    lost = min(round(TIME * share), TIME - 1)
    same = (worse.joints == view.joints).all(-1).all(-1)[:, 0]  # (row, time): of the first person
    if 0 < lost < TIME - 1:
        assert set((~same).sum(1).tolist()) == {lost}
    for row in range(0, ROWS, 5):
        kept = np.flatnonzero(same[row].numpy()) if lost < TIME - 1 else None
        if kept is None:
            assert (worse.joints[row] == worse.joints[row][:, :1]).all()
            continue
        for person, joint, axis in ((0, 0, 0), (0, 24, 2), (1, 7, 1)):
            series = view.joints[row, person, :, joint, axis].numpy()
            expected = np.interp(np.arange(TIME), kept, series[kept])
            np.testing.assert_allclose(worse.joints[row, person, :, joint, axis], expected, rtol=0, atol=1e-5)
        after = kept[np.minimum(np.searchsorted(kept, np.arange(TIME)), len(kept) - 1)]
        before = kept[np.maximum(np.searchsorted(kept, np.arange(TIME), side="right") - 1, 0)]
        seen = view.observed[row]
        expected = seen[:, np.maximum(before, kept[0])] & seen[:, after]
        assert torch.equal(worse.observed[row], expected)


@pytest.mark.parametrize("topology", [KINECT_V2, OPENNI], ids=lambda t: t.name)
@pytest.mark.parametrize("share", [0.25, 0.6, 1.0])
def test_one_whole_part_is_not_seen_in_one_stretch(topology, share):
    view = view_of(topology)
    view = replace(view, observed=torch.ones_like(view.observed))
    lost = ~occlude(view, share, draws(), topology).observed
    parts, begins = set(), set()
    for row in range(ROWS):
        for person in range(PERSONS):
            frames, joints = (lost[row, person].any(d).nonzero()[:, 0].tolist() for d in (1, 0))
            assert lost[row, person].sum() == len(frames) * len(joints)
            assert frames == list(range(frames[0], frames[0] + round(share * TIME)))
            assert tuple(joints) in topology.parts.values()
            parts.add(tuple(joints))
            begins.add(frames[0])
    assert parts == set(topology.parts.values())
    assert begins == {0} if share == 1 else len(begins) > 5


def test_what_is_lost_is_made_up_as_in_recordings():
    """Against the gap filling of the clip store, on gaps of joints, at the ends, and of joints never seen."""
    view = view_of(rows=8)
    kept = torch.rand(8, PERSONS, TIME, 25) < 0.5
    kept[..., TIME // 3 : TIME // 2, 4] = False
    kept[:, :, :, [3, 9, 10, 11]] = False
    kept[..., 0] = True  # the root: the store gives one that was never seen no place
    kept &= view.present[:, :, None, None]
    shown = (view.joints * kept[..., None]).transpose(1, 2).reshape(-1, PERSONS, 25, 3).numpy()
    expected, _ = fill_gaps(shown, np.arange(9) * TIME, KINECT_V2.parents, KINECT_V2.order)
    found = fill(view.joints, kept, KINECT_V2).transpose(1, 2).reshape(-1, PERSONS, 25, 3)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-5)
    assert torch.equal(found[:, 0, 10], found[:, 0, 8])  # shoulder_right, past the elbow and the wrist


def test_a_turn_is_about_the_vertical_to_either_side():
    view = view_of()
    worse = turn(view, 90.0, draws(), KINECT_V2).joints[view.present]
    x, y, z = view.joints[view.present].unbind(-1)
    sides = [torch.stack(side, -1) for side in ((z, y, -x), (-z, y, x))]
    to = [((worse - side).abs().amax((1, 2, 3)) < 1e-5) for side in sides]
    assert (to[0] ^ to[1]).all() and to[0].any() and to[1].any()
    both = turn(view, 90.0, draws(), KINECT_V2).joints
    persons = view.present.all(1)
    torch.testing.assert_close(  # a camera turns all persons alike
        (both[persons, 0] * both[persons, 1]).sum(-1), (view.joints[persons, 0] * view.joints[persons, 1]).sum(-1)
    )
    whole = turn(view, 360.0, draws(), KINECT_V2)
    torch.testing.assert_close(whole.joints, view.joints, rtol=0, atol=1e-5)
    assert torch.equal(whole.observed, view.observed)
    a = math.radians(30)
    matrix = torch.tensor([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    some = turn(view, 30.0, draws(), KINECT_V2).joints
    for row in range(ROWS):
        either = [view.joints[row] @ m for m in (matrix, matrix.T)]
        assert min(float((some[row] - e).abs().max()) for e in either) < 1e-5


@pytest.mark.parametrize("power", [1.25, 2.0, 4.0])
def test_an_uneven_clip_keeps_its_ends_and_its_order(power):
    view = view_of()
    clock = torch.arange(TIME, dtype=torch.float32)[:, None, None].expand(ROWS, PERSONS, TIME, 25, 3)
    shown = change_speed(replace(view, joints=clock.contiguous()), power, draws(), KINECT_V2).joints[:, 0, :, 0, 0]
    assert (shown[:, 0] == 0).all() and (shown[:, -1] == TIME - 1).all() and (shown.diff(dim=1) > 0).all()
    share = np.linspace(0, 1, TIME)
    ways = [(TIME - 1) * share**power, (TIME - 1) * (1 - (1 - share) ** power)]
    taken = [int(np.argmin([np.abs(shown[r].numpy() - w).max() for w in ways])) for r in range(ROWS)]
    assert set(taken) == {0, 1}
    worse = change_speed(view, power, draws(), KINECT_V2)
    for row in range(ROWS):
        at = ways[taken[row]]
        np.testing.assert_allclose(shown[row], at, rtol=0, atol=1e-4)
        for person, joint, axis in ((0, 3, 0), (1, 20, 2)):
            series = view.joints[row, person, :, joint, axis].numpy()
            expected = np.interp(at, np.arange(TIME), series)
            np.testing.assert_allclose(worse.joints[row, person, :, joint, axis], expected, rtol=0, atol=1e-5)
        low, high = np.floor(at + 1e-9).astype(int), np.ceil(at - 1e-9).astype(int)
        assert torch.equal(worse.observed[row], view.observed[row][:, low] & view.observed[row][:, high])
