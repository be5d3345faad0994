"""The audit finds what is wrong with recordings themselves: units, joints, bones, frames, persons."""

from __future__ import annotations

import numpy as np
import pytest

from skeletons import audit
from skeletons.errors import BadInput
from skeletons.findings import NOTE, OK, PROBLEM
from skeletons.survey import blocks, survey
from skeletons.topology import KINECT_V2
from tests.skeletons.planted import JOINT, added, rows


def test_units_and_axes(found, people):
    joints = people["joints"]
    for scale, said in ((1000, "millimetres"), (100, "centimetres"), (7, "no unit makes that a person")):
        told = found(people | {"joints": joints * np.float32(scale)})["units"]
        assert told.status == PROBLEM and said in told.text
    for axes in ([0, 2, 1], [1, 0, 2]):
        assert found(people | {"joints": joints[..., axes]})["y up"].status == PROBLEM
    down = joints.copy()
    down[rows(people, 5)] *= np.float32([1, -1, 1])
    told = found(people | {"joints": down})["y up"]
    assert told.status == NOTE and told.names == (str(people["clip"][5]),)


def test_joints_in_another_order(found, people, rng):
    joints = people["joints"]
    told = found(people | {"joints": joints[:, :, rng.permutation(25)]})
    assert told["joint order"].status == PROBLEM and told["symmetry"].status == PROBLEM
    order = np.arange(25)
    order[[JOINT["elbow_left"], JOINT["knee_left"]]] = JOINT["knee_left"], JOINT["elbow_left"]
    told = found(people | {"joints": joints[:, :, order]})["joint order"]
    assert told.status == PROBLEM and "left" in told.text
    bad = joints.copy()
    bad[rows(people, 7)] = bad[rows(people, 7)][:, :, order]
    told = found(people | {"joints": bad})
    assert told["joint order"].status == OK and told["bone lengths"].names == (str(people["clip"][7]),)


@pytest.mark.parametrize(
    "change", [lambda x: x[:, :, list(KINECT_V2.mirror)], lambda x: x * np.float32([-1, 1, 1])], ids=["sides", "axis"]
)
def test_left_and_right_exchanged(found, people, change):
    everywhere = found(people | {"joints": change(people["joints"])})["left and right"]
    assert everywhere.status == PROBLEM and "left and right are exchanged" in everywhere.text
    one = people["joints"].copy()
    one[rows(people, 9)] = change(one[rows(people, 9)])
    told = found(people | {"joints": one})["left and right"]
    assert told.status == NOTE and told.names == (str(people["clip"][9]),)
    both = (people["joints"] * np.float32([-1, 1, 1]))[:, :, list(KINECT_V2.mirror)]
    assert found(people | {"joints": both})["left and right"].status == OK, "a mirrored action is an action"


def test_bones_and_jumps(found, people):
    clip, frames = str(people["clip"][4]), rows(people, 4)
    longer = people["joints"].copy()
    forearm = longer[frames, 0, JOINT["wrist_right"]] - longer[frames, 0, JOINT["elbow_right"]]
    for joint in ("wrist_right", "hand_right", "hand_tip_right", "thumb_right"):
        longer[frames, 0, JOINT[joint]] += forearm
    told = found(people | {"joints": longer})
    assert told["bone lengths"].names == (clip,) and "(wrist_right)" in told["bone lengths"].text
    assert told["rigid bones"].status == OK
    rubber = people["joints"].copy()
    wave = 1 + 0.7 * np.sin(np.arange(frames.stop - frames.start) / 5).astype(np.float32)[:, None]
    shin = rubber[frames, 0, JOINT["ankle_left"]] - rubber[frames, 0, JOINT["knee_left"]]
    for joint in ("ankle_left", "foot_left"):
        rubber[frames, 0, JOINT[joint]] += (wave - 1) * shin
    assert found(people | {"joints": rubber})["rigid bones"].names == (clip,)
    jump = people["joints"].copy()
    jump[frames.start + 6, 0, JOINT["hand_left"]] += 1.0
    told = found(people | {"joints": jump})["jumps"]
    assert told.names == (clip,) and "(hand_left, frame " in told.text and f" of {clip})" in told.text
    moved = people["joints"].copy()
    moved[frames.start + 9 : frames.stop, 0] += np.float32([0.5, 0, 0])
    assert found(people | {"joints": moved})["jumps"].names == (clip,), "15 m/s of the hips"
    start = people["joints"].copy()
    start[frames, 0] += np.float32([5, 0, 0])
    assert found(people | {"joints": start})["jumps"].status == OK, "from one clip to the next nobody moves"


def test_frozen_and_empty_frames(found, people):
    clip, frames = str(people["clip"][4]), rows(people, 4)
    still = people["joints"].copy()
    still[frames.start + 5 : frames.start + 11] = still[frames.start + 5]
    told = found(people | {"joints": still})["frozen frames"]
    assert told.names == (clip,) and "6 frames or more (up to 6)" in told.text
    still[frames.start + 5] += np.float32(0.001)
    told = found(people | {"joints": still})["frozen frames"]
    assert told.status == OK and told.text.endswith(": 4")
    nobody = people["joints"].copy()
    nobody[frames.start + 3 : frames.start + 6] = 0  # short enough to be bridged in the store
    told = found(people | {"joints": nobody})
    assert told["empty frames"].names == (clip,) and "3 in all" in told["empty frames"].text
    assert told["frozen frames"].status == OK


def test_unseen_joints(found, people):
    gone = people["joints"].copy()
    gone[rows(people, 4), 0, JOINT["head"]] = 0
    told = found(people | {"joints": gone})["unseen joints"]
    assert told.status == NOTE and told.names == (str(people["clip"][4]),)
    gone[:, :, JOINT["thumb_left"]] = 0
    told = found(people | {"joints": gone})["unseen joints"]
    assert told.status == PROBLEM and "never seen in any clip: thumb_left" in told.text


def test_one_person_twice(found, people):
    for clip in (4, 5):
        frames = rows(people, clip)
        people["joints"][frames, 1] = people["joints"][frames, 0]
    told = found(people)["two persons"]
    assert told.status == PROBLEM and told.count == 2 and "byte for byte" in told.text
    for clip in (4, 5):
        people["joints"][rows(people, clip), 1, :, 0] += np.float32(0.02)
    told = found(people)["two persons"]
    assert told.status == NOTE and told.count == 2 and "one body tracked twice" in told.text


def test_rates_and_lengths(found, people):
    assert found(people | {"fps": np.float64(0.5)})["frame rate"].status == PROBLEM
    frames = np.concatenate([people["joints"][rows(people, 4)]] * 10)
    told = found(added(people, frames, 4))["clip lengths"]
    assert told.status == NOTE and told.names == ("planted",)
    told = found(added(people, people["joints"][rows(people, 4)][:4], 4))["clip lengths"]
    assert told.status == NOTE and "shorter than 10 (1)" in told.text


def test_measures_do_not_depend_on_blocks(stored, people, monkeypatch):
    clips = stored(people)
    whole = survey(clips)
    monkeypatch.setattr("skeletons.survey.blocks", lambda offsets: blocks(offsets, 100))
    for name, value in vars(survey(clips)).items():
        assert np.array_equal(value, getattr(whole, name), equal_nan=value.dtype.kind == "f"), name
    assert list(blocks(np.array([0, 5, 10, 300, 301]), 20)) == [(0, 2), (2, 3), (3, 4)]


def test_other_bodies_are_audited_too(stored, rng):
    """A tree of three joints without anatomical names, one clip of one frame, no subjects and no split."""
    arrays = {
        "joints": np.cumsum(rng.normal(0.3, 0.01, (31, 1, 3, 3)), 2).astype(np.float32),
        "offsets": np.array([0, 30, 31]),
        "label": np.array([0, 1]),
        "clip": np.array(["a", "b"]),
        "class_names": np.array(["x", "y"]),
        "joint_names": np.array(["base", "middle", "tip"]),
        "parents": np.array([0, 0, 1]),
    }
    clips = stored(arrays)
    told, verdicts = audit.audit(clips)
    assert verdicts == {} and len(told) > 8
    assert "there is no split to check" in audit.page(clips, told, verdicts, "")
    with pytest.raises(BadInput, match="no split 'xsub'"):
        audit.audit(clips, "xsub")
