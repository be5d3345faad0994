"""Robustness: curves of readers that see one thing fall where that thing is corrupted, and nowhere else."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from methods.encoder import Encoder, EncoderConfig, Tokens
from protocols import robustness
from protocols.base import Subject
from protocols.robustness import ProbeConfig, Robustness, RobustnessConfig, choose, corrupted
from skeletons.clips import Clips, open_store, write_store
from skeletons.corruptions import noise
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import ClipTensors, ViewConfig, centre_view
from skeletons.splits import split
from skeletons.streams import STREAMS
from skeletons.topology import KINECT_V2
from tests.conftest import synthetic

FRAMES, CLIPS, CLASSES = 16, 120, 3
VIEWS = ViewConfig(frames=FRAMES)
PROBE = replace(ProbeConfig(), crops=0, batch=16)
CLEAN = {name: [0.0] for name in ("noise", "joints", "frames", "occlusion", "rotation")} | {"speed": [1.0]}
NONE: dict[str, list[float]] = {name: [] for name in CLEAN}
HAND = KINECT_V2.joints.index("hand_left")


class Reader(Encoder):
    """Sees one coordinate of one hand over time, in every token."""

    def __init__(self, axis: int):
        super().__init__(EncoderConfig(width=FRAMES, patch=4, heads=2), KINECT_V2, FRAMES)
        self.axis = axis

    def forward(self, joints, hidden=None, visible=None):
        seen = joints[:, :, HAND, self.axis]
        return Tokens(None, seen[:, None, None].expand(-1, FRAMES // 4, 25, -1))

    def on(self, topology):
        return self


def where(label: np.ndarray, share: np.ndarray, axis: int, step: bool) -> np.ndarray:
    """The hand's place (frame, 3), metres: a class is a place on one axis, or the time when it is left."""
    place = np.zeros((len(label), 3))
    place[:, axis] = np.where(share > (1 + label) / 4, 0.5, -0.5) if step else 0.4 * (label - 1)
    return place


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Clips by (axis, step), see `where`."""

    def make(axis: int, step: bool = False) -> Clips:
        arrays = synthetic((20,) * CLIPS)
        label = np.random.default_rng(1).permutation(arrays["label"])
        joints, root = arrays["joints"], arrays["joints"][::20, 0, KINECT_V2.root].repeat(20, 0)
        joints[:, 1] = 0
        hand = root + where(np.repeat(label, 20), np.tile(np.linspace(0, 1, 20), CLIPS), axis, step)
        joints[:, 0, HAND] = hand + 0.005 * np.random.default_rng(0).normal(size=hand.shape)
        arrays["label"] = label
        folder = tmp_path_factory.mktemp("robust") / "store"
        write_store(folder, arrays, KINECT_V2, {"name": "hands", "source": "generated", "chiral": ()})
        return open_store(folder)

    return make


def subject_of(data: Clips, encoder: Encoder | None) -> Subject:
    return Subject(encoder, data, split(data, "xsub"), ClipTensors(data), VIEWS, "mean", seed=2)


def judge(subject: Subject, **strengths):
    settings = RobustnessConfig(**strengths)
    return Robustness(SimpleNamespace(probe=PROBE, robustness=settings))(subject)


STEP = {"speed", "frames", "noise", "joints", "occlusion"}


@pytest.mark.parametrize(
    ("axis", "step", "falls"),
    [
        (1, False, {"noise", "joints", "occlusion"}),
        (0, False, {"noise", "joints", "occlusion", "rotation"}),
        (1, True, STEP),
    ],
    ids=["height", "side", "moment"],
)
def test_curves_fall_where_what_is_read_is_corrupted_and_stay_elsewhere(made, axis, step, falls):
    strengths = {
        "noise": [0.2, 1.0, 5.0],
        "frames": [0.5, 0.8, 1.0],
        "speed": [1.02, 1.15, 1.4],
        "joints": [0.2, 0.5, 0.9],
    }
    result = judge(subject_of(made(axis, step), Reader(axis)), **strengths)
    assert result.metrics["clean"] == 100
    for name, of in result.details["strengths"].items():
        curve = [result.metrics[f"{name}_{s:g}"] for s in of]
        if name in falls:
            assert curve[-1] < 90 and all(a >= b - 8 for a, b in itertools.pairwise(curve)), (name, curve)
        else:
            assert curve == [100] * len(of), (name, curve)


@pytest.mark.parametrize("encoder", [Reader(0), None], ids=["encoder", "raw"])
@pytest.mark.parametrize("stream", STREAMS)
def test_at_clean_strengths_nothing_is_lost(made, encoder, stream):
    subject = subject_of(replace(made(0), stream=stream), encoder)
    result = judge(subject, **CLEAN)
    cut = subject.withheld(PROBE.validation)
    probe, chosen = choose(subject.crops(0), subject.labels[0], *cut, CLASSES, PROBE, subject.seed)
    expected = probe.predict(subject.features[1])[0]
    assert torch.equal(result.predicted, expected.expand(6, -1))
    clean = 100 * float((expected == subject.labels[1]).float().mean())
    assert result.metrics["robust"] == pytest.approx(clean) == result.metrics["clean"]
    assert result.metrics["retained"] == pytest.approx(100) and chosen.items() <= result.details.items()


def test_bodies_are_corrupted_before_bones_or_motion_are_made_of_them(made):
    subject = subject_of(replace(made(0), stream="bone"), None)
    rows = torch.arange(5)
    view = centre_view(subject.store, rows, VIEWS, stream="joint")
    found = corrupted(view, "joints", 0.4, subject, 0)
    worse = corrupted(view, "joints", 0.4, subject_of(made(0), None), 0)
    bones = worse.joints - worse.joints[..., KINECT_V2.parents, :]
    assert torch.equal(found.joints, bones) and not torch.equal(worse.joints, view.joints)


def test_numbers_are_means_of_the_predictions(made):
    subject = subject_of(made(0), Reader(0))
    result = judge(subject, noise=[0.2, 0.9], joints=[], frames=[], occlusion=[1.0], rotation=[45], speed=[])
    names = list(zip(result.arrays["corruption"].tolist(), result.arrays["strength"].tolist()))
    assert names == [("noise", 0.2), ("noise", 0.9), ("occlusion", 1.0), ("rotation", 45.0)]
    right = 100 * (result.predicted == subject.labels[1]).double().mean(1)
    assert next(iter(result.metrics)) == "robust" and result.metrics["robust"] == pytest.approx(float(right.mean()))
    assert result.metrics["retained"] == pytest.approx(100 * float(right.mean()) / result.metrics["clean"])
    for (name, strength), value in zip(names, right.tolist()):
        assert result.metrics[f"{name}_{strength:g}"] == pytest.approx(value)
    assert result.metrics["robust_noise"] == pytest.approx(float(right[:2].mean()))
    assert result.predicted.shape == (4, CLIPS / 2) and "speed_2" not in result.metrics


def test_the_probe_never_sees_a_corrupted_clip(made, monkeypatch):
    subject, fitted = subject_of(made(0), Reader(0)), []

    def watched(x, *rest):
        fitted.append(x)
        return choose(x, *rest)

    monkeypatch.setattr(robustness, "choose", watched)
    result = judge(subject, **NONE | {"noise": [3.0]})
    assert len(fitted) == 1 and torch.equal(fitted[0], subject.features[0][None])
    view = centre_view(subject.store, torch.from_numpy(subject.part.test), VIEWS, FRAMES)
    worse = corrupted(view, "noise", 3.0, subject, 0).joints[:, 0, :, HAND, 0]
    probe = choose(fitted[0], subject.labels[0], *subject.withheld(0.25), CLASSES, PROBE, subject.seed)[0]
    assert torch.equal(probe.predict(worse)[0], result.predicted[0])


def test_batches_are_worse_on_their_own(made, monkeypatch):
    subject = subject_of(made(0), Reader(0))
    settings = NONE | {"noise": [0.0, 1.0]}
    one, again = (judge(subject, **settings).predicted for _ in range(2))
    monkeypatch.setattr(robustness, "BATCH", 7)
    parts = judge(subject, **settings).predicted
    assert torch.equal(one, again) and torch.equal(one[0], parts[0]) and not torch.equal(one[1], parts[1])


@pytest.mark.parametrize(
    ("strengths", "named"),
    [
        ({"noise": [-0.1]}, "noise"),
        ({"joints": [0.5, 1.5]}, "joints"),
        ({"speed": [0.5]}, "speed"),
        (NONE, "empty"),
    ],
)
def test_strengths_that_make_no_sense_are_refused(strengths, named):
    with pytest.raises(BadInput, match=rf"protocol\.robustness.*{named}"):
        Robustness(SimpleNamespace(robustness=RobustnessConfig(**strengths)))


@pytest.mark.parametrize("stream", ["bone", "motion"])
@pytest.mark.parametrize("encoder", [Reader(0), None], ids=["encoder", "raw"])
def test_joints_are_corrupted_before_other_streams_are_made_of_them(made, stream, encoder):
    subject = subject_of(replace(made(0), stream=stream), encoder)
    result = judge(subject, **CLEAN)
    for row in result.predicted:
        assert torch.equal(row, result.predicted[0])
    assert result.metrics["robust"] == pytest.approx(result.metrics["clean"])
    view = centre_view(ClipTensors(made(0)), torch.from_numpy(subject.part.test), VIEWS, FRAMES)
    moved = noise(view, 0.3, Draws(subject.seed, "robustness", "noise", 0.3, 0), KINECT_V2)
    worse = corrupted(view, "noise", 0.3, subject, 0)
    if stream == "bone":
        parents = list(KINECT_V2.parents)
        assert torch.equal(worse.joints, moved.joints - moved.joints[:, :, :, parents])
    else:
        assert torch.equal(worse.joints[:, :, :-1], moved.joints.diff(dim=2))
