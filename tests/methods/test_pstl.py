"""PSTL against its formula, and its two rules for what is taken away."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from methods.backbone import Transformer
from methods.base import build
from methods.encoder import EncoderConfig
from methods.masking import MaskingConfig, mask_context, strategy
from methods.masking.degree import degree_weights, draw_frames, draw_joints, frame_counts, frame_motion
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch
from skeletons.topology import KINECT_V2, OPENNI, Topology

BODY = Topology(("spine_base", "spine_mid", "head", "hand_left", "hand_right"), (0, 0, 1, 1, 1), "small")
MAMP = {"position": "learned", "class_token": False, "registers": 0, "init": "xavier", "norm_eps": 1e-5}


# --- joints


def test_degrees_weigh_as_bones_or_their_inverse():
    assert BODY.degrees == (1, 4, 1, 1, 1)
    assert degree_weights(BODY, True) == [1, 4, 1, 1, 1]
    assert degree_weights(BODY, False) == [4, 1, 4, 4, 4]
    high = [KINECT_V2.joints[j] for j, d in enumerate(KINECT_V2.degrees) if d >= 3]
    assert high == ["spine_base", "hand_left", "hand_right", "spine_shoulder"]


@pytest.mark.parametrize("topology", [KINECT_V2, OPENNI], ids=lambda t: t.name)
@pytest.mark.parametrize("high", [True, False])
def test_joints_are_drawn_as_from_a_list_without_replacement(topology, high):
    entries = torch.tensor(degree_weights(topology, high), dtype=torch.float64)
    gone = torch.zeros(len(topology))
    for step in range(1500):
        removed, kept = draw_joints(topology, 5, high, Draws(0, step))
        assert sorted([*removed.tolist(), *kept.tolist()]) == list(range(len(topology)))
        assert 1 <= len(removed) <= 5 and kept.tolist() == sorted(kept.tolist())
        gone[removed] += 1
    total = int(entries.sum())
    for j, times in enumerate(entries.int().tolist()):  # hypergeometric: 1 - P(none of its entries)
        expected = 1 - math.comb(total - times, 5) / math.comb(total, 5)
        assert float(gone[j]) / 1500 == pytest.approx(expected, abs=5 * math.sqrt(expected / 1500))


def test_a_threshold_takes_joints_of_that_degree_alone():
    removed, _ = draw_joints(KINECT_V2, 8, True, Draws(0, 0), threshold=True)
    assert removed.tolist() == [0, 7, 11, 20]
    for step in range(20):
        removed, _ = draw_joints(KINECT_V2, 8, False, Draws(0, step), threshold=True)
        assert len(removed) == 8 and not {0, 7, 11, 20} & set(removed.tolist())
    with pytest.raises(BadInput, match="25 joints cannot be removed from the 25"):
        draw_joints(KINECT_V2, 25, True, Draws(0, 0))


def test_joints_that_are_removed_are_not_there():
    torch.manual_seed(0)
    encoder = Transformer(EncoderConfig(16, 2, 2, 4), BODY, 16)
    joints, keep = torch.randn(3, 16, 5, 3), torch.tensor([0, 2, 3])
    tokens = encoder.encode_joints(joints, keep)
    assert tokens.patches.shape == (3, 4, 3, 16)
    other = joints.clone()
    other[:, :, [1, 4]] += 1
    assert torch.equal(encoder.encode_joints(other, keep).patches, tokens.patches)
    everything = encoder.encode_joints(joints, torch.arange(5))
    torch.testing.assert_close(everything.patches, encoder(joints).patches)


# --- frames


def test_motion_is_the_mean_square_of_observed_differences():
    joints, observed = torch.randn(3, 2, 7, 5, 3, dtype=torch.float64), torch.rand(3, 2, 7, 5) < 0.7
    observed[1, 1] = False
    found = frame_motion(joints, observed)
    for row in range(3):
        assert found[row, 6] == 0
        for t in range(6):
            squares = [
                float((joints[row, p, t + 1, j, c] - joints[row, p, t, j, c]) ** 2)
                for p in range(2)
                for j in range(5)
                for c in range(3)
                if observed[row, p, t, j] and observed[row, p, t + 1, j]
            ]
            assert float(found[row, t]) == pytest.approx(sum(squares) / max(1, len(squares)), rel=1e-12)
    joints[~observed] = torch.nan
    assert torch.equal(frame_motion(joints, observed), found)


@pytest.mark.parametrize(("frames", "patch", "counts"), [(50, 1, (40, 30)), (48, 4, (38, 28)), (32, 4, (26, 20))])
def test_shares_of_frames_are_the_papers(frames, patch, counts):
    assert frame_counts(frames, patch) == counts


@pytest.mark.parametrize("high", [True, False])
def test_the_fastest_or_slowest_fifth_goes_and_a_quarter_at_random(high):
    motion = torch.rand(6, 50)
    motion[:, -1] = 0
    kept = draw_frames(motion, 1, high, Draws(0, 0))
    assert kept.shape == (6, 30)
    again = draw_frames(motion, 1, high, Draws(0, 1))
    assert not torch.equal(kept, again)
    positions = set()
    for row in range(6):
        order = sorted(range(50), key=lambda t: float(motion[row, t]), reverse=not high)
        rest = sorted(order[:40])  # high: without the ten fastest
        assert (49 in rest) == high  # the last frame counts as still
        assert kept[row].tolist() == sorted(set(kept[row].tolist()))
        positions.add(tuple(rest.index(t) for t in kept[row].tolist()))
    assert len(positions) == 1


# --- the loss


@pytest.fixture
def model(parts, reference):
    torch.manual_seed(0)
    made = build(parts("pstl", BODY, backbone=MAMP, views={"frames": 16})).to(torch.get_default_dtype())
    reference.scramble(made)
    return made


@pytest.fixture
def clip(batch, model):
    made = batch(model, BODY)["clip"]
    made.observed[0, 0, :9, 3:] = False
    return replace(made, joints=made.joints.to(torch.get_default_dtype()))


def stream(model, clip, reference, view, joints=None, frames=None):
    """One stream's outputs, clip by clip, person by person."""
    clips, rows = len(clip) // 3, []
    for c in range(clips):
        row, persons = view * clips + c, []
        for person in clip.present[row].nonzero().flatten().tolist():
            times = list(range(16)) if frames is None else frames[c].tolist()
            x, seen = clip.joints[row, person][times], clip.observed[row, person][times]
            among = list(range(5)) if joints is None else joints.tolist()
            patches = len(times) // 4
            visible = torch.tensor([[t * 5 + j for t in range(patches) for j in among]])
            tokens = reference.encode(model.encoder, x[None], visible=visible)[0]
            flags = [seen[4 * t : 4 * t + 4, j].double().mean() >= 0.5 for t in range(patches) for j in among]
            chosen = [token for token, flag in zip(tokens, flags) if flag]
            persons.append(sum(chosen) / len(chosen))
        rows.append(sum(persons) / len(persons))
    x = torch.stack(rows)
    for layer in model.projector.layers:
        if isinstance(layer, torch.nn.Linear):
            x = torch.einsum("ni,oi->no", x, layer.weight)
        elif isinstance(layer, torch.nn.BatchNorm1d):
            variance = ((x - x.mean(0)) ** 2).mean(0)
            x = (x - x.mean(0)) / torch.sqrt(variance + 1e-5) * layer.weight + layer.bias
        else:
            x = x.clamp(min=0)
    return x


def correlation_loss(a, b, weight):
    a, b = ((x - x.mean(0)) / torch.sqrt(((x - x.mean(0)) ** 2).mean(0) + 1e-5) for x in (a, b))
    c, total = a.T @ b / len(a), 0.0
    for i in range(len(c)):
        for j in range(len(c)):
            total += float((1 - c[i, j]) ** 2 if i == j else weight * c[i, j] ** 2)
    return total


@pytest.mark.usefixtures("double")
def test_the_loss_is_the_published_one(model, clip, reference):
    draws = Draws(0, 3)
    _, kept = draw_joints(BODY, 2, True, draws.fork("joints"))
    third = clip.joints.chunk(3)[2]
    seen = (clip.observed & clip.present[:, :, None, None]).chunk(3)[2]
    frames = draw_frames(frame_motion(third, seen), 4, True, draws.fork("frames"))
    assert frames.shape[1] == 8 and 3 <= len(kept) < 5
    with torch.no_grad():
        found = model.loss({"clip": clip}, draws)
        z = stream(model, clip, reference, 0)
        z_s = stream(model, clip, reference, 1, joints=kept)
        z_t = stream(model, clip, reference, 2, frames=frames)
    weight = 2e-4 * 6144 / 8
    assert float(found["spatial"]) == pytest.approx(correlation_loss(z, z_s, weight), rel=1e-9)
    assert float(found["temporal"]) == pytest.approx(correlation_loss(z, z_t, weight), rel=1e-9)
    assert float(found["loss"]) == pytest.approx(float(found["spatial"] + found["temporal"]), rel=1e-12)


def test_every_step_takes_other_joints_and_frames_away(model, clip):
    losses = [float(model.loss({"clip": clip}, Draws(0, step))["loss"].detach()) for step in range(3)]
    assert len(set(losses)) == 3


def test_settings_and_batches_that_cannot_be_used_are_refused(parts, model, clip):
    with pytest.raises(BadInput, match=r"method.joints=1.0 removes all 5 joints"):
        build(parts("pstl", BODY, method={"joints": 1.0}))
    one = Batch(*(t[:3] for t in (clip.joints, clip.observed, clip.present)), views=3)
    with pytest.raises(BadInput, match=r"train.batch=1: .* at least 2"):
        model.loss({"clip": one}, Draws(0, 0))
    short = replace(clip, joints=clip.joints[:, :, :4], observed=clip.observed[:, :, :4])
    with pytest.raises(BadInput, match=r"views.frames=4 leaves no frame to remove"):
        model.loss({"clip": short}, Draws(0, 0))


# --- as token masks


def token_masks(name, joints, ratio=0.6):
    seen = torch.ones(len(joints), 1, *joints.shape[1:3], dtype=torch.bool)
    batch = Batch(joints[:, None], seen, torch.ones(len(joints), 1, dtype=torch.bool))
    context = mask_context(batch, 4, KINECT_V2, (ratio, ratio), Draws(0, 0))
    return strategy(name, MaskingConfig())(context, Draws(0, 0, "mask"))


@pytest.mark.parametrize("degree", ["high", "low"])
@pytest.mark.parametrize("motion", ["high", "low"])
def test_token_masks_hide_whole_joints_by_degree_and_whole_times_by_motion(degree, motion):
    speed = torch.arange(8.0).repeat_interleave(4)  # patch 7 moves most
    joints = speed.cumsum(0)[None, :, None, None].expand(800, -1, 25, 3)
    mask = token_masks(f"degree_{degree}_motion_{motion}", joints)
    assert set(mask.sum((1, 2)).tolist()) == {200 - int(200 * 0.4)}
    whole_times, whole_joints = mask.all(2), mask.all(1)
    covered = whole_times[:, :, None] | whole_joints[:, None]
    assert ((mask & ~covered).sum((1, 2)) < 25).all()  # but for what is left of the last one
    assert (whole_times.sum(1) >= 2).all() and (whole_joints.sum(1) >= 7).all()
    first = [7, 6] if motion == "high" else [0, 1]
    assert whole_times[:, first].all() and whole_times[:, [7 - t for t in first]].sum() == 0
    rate = whole_joints.float().mean(0)
    high = torch.tensor(KINECT_V2.degrees) >= 3
    end = torch.tensor(KINECT_V2.degrees) == 1
    assert (rate[high].min() > rate[end].max()) == (degree == "high")
    assert (rate[end].min() > rate[high].max()) == (degree == "low")
