"""Tubes: subsets of a body part that are hidden for a stretch of time, and how much they hide in all."""

from __future__ import annotations

import pytest
import torch

from methods.masking import MaskContext, MaskingConfig, strategy
from skeletons.randomness import Draws
from skeletons.topology import KINECT_V1, KINECT_V2, OPENNI
from tests.methods.masked import context_of, masks


def realised(topology=KINECT_V2, ratio=(0.9, 0.9), count=400, patches=8) -> tuple[torch.Tensor, MaskContext]:
    context = context_of(torch.zeros(count, patches, len(topology), 3), ratio, topology=topology)
    return masks("tube", context), context


# --- how much is hidden


@pytest.mark.parametrize("topology", [KINECT_V2, KINECT_V1, OPENNI], ids=lambda t: t.name)
@pytest.mark.parametrize("ratio", [(0.5, 0.5), (0.8, 0.8), (0.5, 0.9)])
def test_tubes_do_not_overshoot_and_rarely_fall_short(topology, ratio):
    mask, context = realised(topology, ratio)
    count = mask.sum((1, 2))
    assert (count <= context.hidden).all()
    tolerance = 0.004 if ratio[1] < 0.9 else 0.01
    assert mask.float().mean() == pytest.approx(float((context.hidden / mask[0].numel()).mean()), abs=tolerance)


def test_tubes_at_ninety_percent_end_a_little_short():
    context = context_of(torch.zeros(1000, 8, 25, 3))
    context.hidden = torch.full((1000,), 180)
    assert masks("tube", context).float().mean() == pytest.approx(0.890, abs=0.003)


@pytest.mark.parametrize("patches", [1, 2, 4])
def test_tubes_fit_short_views(patches):
    mask, context = realised(ratio=(0.5, 0.9), patches=patches)
    assert (mask.sum((1, 2)) <= context.hidden).all()
    assert mask.float().mean() == pytest.approx(0.7, abs=0.04)


def test_joints_are_hidden_about_equally_often():
    mask, _ = realised(ratio=(0.5, 0.9), count=2000)
    rate = mask.float().mean((0, 1))
    assert rate.min() > 0.5 and rate.max() < 0.85
    twin = rate[list(KINECT_V2.mirror)]
    torch.testing.assert_close(rate, twin, rtol=0, atol=0.04)
    times = mask.float().mean((0, 2))
    torch.testing.assert_close(times, times.flip(0), rtol=0, atol=0.02)


# --- subsets of joints


@pytest.mark.parametrize("topology", [KINECT_V2, OPENNI], ids=lambda t: t.name)
def test_subsets_are_connected_parts_drawn_by_size(topology):
    table, cumulative = strategy("tube", MaskingConfig()).subsets(topology)
    chance = torch.diff(cumulative, prepend=cumulative.new_zeros(1))
    assert cumulative[-1] == pytest.approx(1, abs=1e-5)
    assert len({tuple(row.tolist()) for row in table}) == len(table)
    by_part: dict[tuple[str, int], float] = {}
    for row, p in zip(table, chance):
        members = set(row.nonzero().flatten().tolist())
        (part,) = [name for name, joints in topology.parts.items() if members <= set(joints)]
        reached, frontier = set(), {min(members)}
        while frontier:
            reached |= frontier
            near = {b for bone in topology.bones for a, b in (bone, bone[::-1]) if a in frontier}
            frontier = (near & members) - reached
        assert reached == members, [topology.joints[j] for j in members]
        by_part[part, len(members)] = by_part.get((part, len(members)), 0) + float(p)
    for (part, _), p in by_part.items():
        assert p == pytest.approx(1 / len(topology.parts) / len(topology.parts[part]), abs=1e-5)


def test_any_subset_of_a_part_may_be_a_tube():
    table, cumulative = strategy("tube", MaskingConfig(subsets="any")).subsets(KINECT_V2)
    assert len(table) == sum(2 ** len(members) - 1 for members in KINECT_V2.parts.values())
    assert len({tuple(row.tolist()) for row in table}) == len(table)
    size = torch.diff(cumulative, prepend=cumulative.new_zeros(1))
    of_four = size[(table.sum(1) == 2) & table[:, list(KINECT_V2.parts["leg_left"])].any(1)]
    assert of_four.tolist() == pytest.approx([1 / 5 / 4 / 6] * 6, abs=1e-6)


def release_subsets() -> tuple[torch.Tensor, torch.Tensor]:
    """Subsets of SLiM's release: contiguous stretches of a list of joints, of uniform length."""
    groups = ((0, 1, 20, 2, 3), (4, 5, 6, 7, 21, 22), (8, 9, 10, 11, 23, 24), (12, 13, 14, 15), (16, 17, 18, 19))
    rows, chances = [], []
    for group in groups:
        for size in range(1, len(group) + 1):
            places = len(group) - size + 1
            rows += [[j in group[at : at + size] for j in range(25)] for at in range(places)]
            chances += [1 / len(groups) / len(group) / places] * places
    return torch.tensor(rows), torch.tensor(chances).cumsum(0)


def test_contiguous_subsets_are_the_releases():
    found, expected = strategy("tube", MaskingConfig(subsets="contiguous")).subsets(KINECT_V2), release_subsets()

    def chances(table: torch.Tensor, cumulative: torch.Tensor) -> dict[tuple, float]:
        each = torch.diff(cumulative, prepend=cumulative.new_zeros(1)).tolist()
        return {tuple(row.nonzero().flatten().tolist()): chance for row, chance in zip(table, each)}

    assert chances(*found) == pytest.approx(chances(*expected), abs=1e-6)


def test_with_the_releases_subsets_the_statistics_are_the_releases():
    tube = strategy("tube", MaskingConfig(subsets="contiguous"))
    context = context_of(torch.zeros(1500, 8, 25, 3), (0.5, 0.9))
    rate = tube(context, Draws(0, 0, "mask")).float().mean((0, 1))
    for joints, expected in (((13, 14, 17, 18), 0.80), ((24, 8, 4, 22), 0.545)):  # ours, simulated from its code
        assert float(rate[list(joints)].mean()) == pytest.approx(expected, abs=0.02)
    context.hidden = torch.full((1500,), 180)
    assert tube(context, Draws(0, 1, "mask")).float().mean() == pytest.approx(0.890, abs=0.002)


# --- volume


def test_one_tube_is_a_subset_for_a_stretch_of_time_of_constant_volume():
    tube = strategy("tube", MaskingConfig())
    tube.rounds = 1
    table = {tuple(row.tolist()) for row in tube.subsets(KINECT_V2)[0]}
    context = context_of(torch.zeros(3000, 8, 25, 3), (0.5, 0.9))
    mask = tube(context, Draws(0, 0, "mask"))
    volume: dict[int, list[int]] = {}
    begins = set()
    for one in mask[mask.any((1, 2))]:
        joints, during = one.any(0), one.any(1).nonzero().flatten()
        width, duration = int(joints.sum()), len(during)
        assert tuple(joints.tolist()) in table
        assert during.tolist() == list(range(int(during[0]), int(during[0]) + duration))
        assert int(one.sum()) == width * duration  # all its joints, all the while
        begins.add((duration, int(during[0])))
        volume.setdefault(width, []).append(duration)
    assert begins >= {(4, t) for t in range(5)} | {(5, t) for t in range(4)} | {(8, 0)}  # any time
    for width, durations in volume.items():
        areas = range(8, 101)  # SLiM: at least 8 tokens, at most half of them
        possible = {min(8, max(1, int(torch.tensor(a / width).round()))) for a in areas}
        assert set(durations) <= possible
    assert set(volume[1]) == {8}  # eight tokens of one joint: the whole view
    mean = [sum(v) / len(v) for _, v in sorted(volume.items())]
    assert mean == sorted(mean, reverse=True)


def test_without_constant_volume_the_duration_does_not_depend_on_the_width():
    tube = strategy("tube", MaskingConfig(volume="free"))
    tube.rounds = 1
    context = context_of(torch.zeros(4000, 8, 25, 3), (0.5, 0.5))
    mask = tube(context, Draws(0, 0, "mask"))
    widths, durations = mask.any(1).sum(1), mask.any(2).sum(1)
    for width in (1, 3, 6):
        mine = durations[widths == width].float()
        assert set(mine.tolist()) == set(range(1, 9))
        assert float(mine.mean()) == pytest.approx(4.5, abs=5 * 2.3 / len(mine) ** 0.5)
    full = masks("tube", context, volume="free")
    assert (full.sum((1, 2)) <= 100).all() and float(full.float().mean()) == pytest.approx(0.5, abs=0.01)
