"""Bones and motion, against plain loops, and everything that encoders are fed with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from protocols.features import raw_features
from skeletons.augment import Augmentation, AugmentConfig
from skeletons.clips import Clips
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch, ClipTensors, LocalView, Sampler, ViewConfig, centre_view
from skeletons.sources import DataConfig, open_clips
from skeletons.streams import STREAMS, as_stream
from skeletons.topology import KINECT_V1, KINECT_V2, OPENNI, Topology

VIEWS = ViewConfig(frames=16, locals=[LocalView(8, 2, 0.2, 0.5)])
TREES = [KINECT_V1, KINECT_V2, OPENNI, Topology(("tip", "middle", "root"), (1, 2, 2))]


def loops(stream: str, x: torch.Tensor, seen: torch.Tensor, topology: Topology) -> tuple[torch.Tensor, torch.Tensor]:
    """A stream, one value after another."""
    out, known = torch.zeros_like(x), torch.zeros_like(seen)
    rows, persons, frames, joints = seen.shape
    for r, p, t, j in np.ndindex(rows, persons, frames, joints):
        if stream == "joint":
            out[r, p, t, j], known[r, p, t, j] = x[r, p, t, j], seen[r, p, t, j]
        elif stream == "bone":
            parent = topology.parents[j]
            out[r, p, t, j] = x[r, p, t, j] - x[r, p, t, parent]
            known[r, p, t, j] = bool(seen[r, p, t, j]) and bool(seen[r, p, t, parent])
        elif t + 1 < frames:
            out[r, p, t, j] = x[r, p, t + 1, j] - x[r, p, t, j]
            known[r, p, t, j] = bool(seen[r, p, t, j]) and bool(seen[r, p, t + 1, j])
        else:
            known[r, p, t, j] = seen[r, p, t, j]
    return out, known


def view(topology: Topology, frames: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(3, 2, frames, len(topology), 3)
    return x, torch.rand(x.shape[:-1]) < 0.8


@pytest.mark.parametrize("topology", TREES, ids=lambda t: f"{t.name}{len(t)}")
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_streams_equal_plain_loops(stream, topology, frames):
    x, seen = view(topology, frames)
    given = x.clone(), seen.clone()
    out, known = as_stream(stream, x, seen, topology)
    expected = loops(stream, x, seen, topology)
    assert torch.equal(out, expected[0]) and torch.equal(known, expected[1])
    assert torch.equal(x, given[0]) and torch.equal(seen, given[1]), "what was given is left as it was"


@pytest.mark.parametrize("topology", TREES, ids=lambda t: f"{t.name}{len(t)}")
def test_bones_along_the_tree_add_up_to_the_joint_seen_from_the_root(topology):
    x, seen = view(topology)
    bones, _ = as_stream("bone", x, seen, topology)
    chain = torch.tensor(topology.ancestry, dtype=torch.float32)  # joint x joints on its way to the root, itself too
    whole = torch.einsum("jk,rptkc->rptjc", chain, bones)
    torch.testing.assert_close(whole, x - x[..., topology.root, :][..., None, :])
    assert (bones[..., topology.root, :] == 0).all()


def test_bones_do_not_feel_where_the_body_stands_and_motion_does_not_feel_where_it_began():
    x, seen = view(KINECT_V2)
    shift = torch.randn(3, 2, 5, 1, 3)  # another one in each frame
    moved = as_stream("bone", x + shift, seen, KINECT_V2)[0]
    torch.testing.assert_close(moved, as_stream("bone", x, seen, KINECT_V2)[0], atol=1e-5, rtol=0)
    constant = as_stream("motion", x + shift[:, :, :1], seen, KINECT_V2)[0]
    torch.testing.assert_close(constant, as_stream("motion", x, seen, KINECT_V2)[0], atol=1e-5, rtol=0)
    path = as_stream("motion", x, seen, KINECT_V2)[0]
    torch.testing.assert_close(path.cumsum(2)[:, :, :-1], x[:, :, 1:] - x[:, :, :1])
    assert (path[:, :, -1] == 0).all()


# --- Every way in which an encoder is fed ---


def sampled(clips: Clips, augment: AugmentConfig, one_person: bool) -> dict[str, Batch]:
    augmentation = Augmentation(augment, clips.topology, bool(clips.chiral))
    sampler = Sampler(ClipTensors(clips), VIEWS, augmentation, 2, True, one_person)
    return sampler(torch.arange(len(clips)), Draws(0, 3))


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("one_person", [True, False])
def test_training_views_are_the_stream_of_the_augmented_joints(clips, stream, one_person):
    augment = AugmentConfig(probability=1.0)
    joints = sampled(clips, augment, one_person)
    found = sampled(replace(clips, stream=stream), augment, one_person)
    assert joints.keys() == found.keys() and len(found) == 2
    for group, one in found.items():
        expected = as_stream(stream, joints[group].joints, joints[group].observed, clips.topology)
        assert torch.equal(one.joints, expected[0]) and torch.equal(one.observed, expected[1])
        assert torch.equal(one.present, joints[group].present)
        assert (one.joints[~one.present] == 0).all() and not one.observed[~one.present].any()
        assert one.joints.abs().sum() > 0


@pytest.mark.parametrize("stream", STREAMS)
def test_the_evaluation_view_and_the_raw_floor_are_the_stream(clips, stream):
    rows = torch.arange(len(clips))
    joints, store = ClipTensors(clips), ClipTensors(replace(clips, stream=stream))
    plain, found = (centre_view(s, rows, VIEWS) for s in (joints, store))
    expected = as_stream(stream, plain.joints, plain.observed, clips.topology)
    assert torch.equal(found.joints, expected[0]) and torch.equal(found.observed, expected[1])
    assert (found.joints[~found.present] == 0).all() and not found.observed[~found.present].any()
    bodies = centre_view(store, rows, VIEWS, stream="joint")
    assert torch.equal(bodies.joints, plain.joints), "on request, whatever the store's stream is"
    raw = raw_features(joints, rows).unflatten(1, (2, 64, 25, 3))
    of_raw = as_stream(stream, raw, torch.ones(raw.shape[:-1], dtype=torch.bool), clips.topology)[0]
    assert torch.equal(raw_features(store, rows), of_raw.flatten(1))


def test_a_gap_is_unobserved_in_what_is_made_of_it(clips):
    """clip08 misses a knee (joint 13) for 20 frames: so its bone, and the ankle's, which hangs on it."""
    rows = torch.tensor([8])
    seen = {s: centre_view(ClipTensors(replace(clips, stream=s)), rows, VIEWS).observed[0, 0] for s in STREAMS}
    gap = ~seen["joint"][:, 13]
    assert gap.any() and seen["joint"][:, 14].all()
    ankle = KINECT_V2.parents.index(13)
    assert torch.equal(~seen["bone"][:, 13], gap) and torch.equal(~seen["bone"][:, ankle], gap)
    assert seen["bone"].sum() == seen["bone"].numel() - 2 * gap.sum()
    grown = gap | torch.cat([gap[1:], gap[-1:]])
    assert torch.equal(~seen["motion"][:, 13], grown)


def test_the_data_choice_reaches_the_clips_and_a_typing_error_is_named(arrays, tmp_path):
    np.savez(tmp_path / "some.npz", **arrays)
    data = DataConfig("archive", file=str(tmp_path / "some.npz"))
    one, other = open_clips(data), open_clips(replace(data, stream="bone"))
    assert (one.stream, other.stream) == ("joint", "bone")
    assert one.fingerprint == other.fingerprint and ClipTensors(other).stream == "bone"
    with pytest.raises(BadInput, match="did you mean 'bone'"):
        open_clips(replace(data, stream="bones"))
