"""The demo set: its schema, its bodies, and that it is the one that was frozen."""

import hashlib

import numpy as np
import pytest

from skeletons.errors import BadInput
from skeletons.sources import demo20
from skeletons.sources.demo import FPS, DemoSpec, generate, perform, plan
from skeletons.sources.demo_actions import ACTIONS
from skeletons.sources.demo_body import cast
from skeletons.topology import KINECT_V1, KINECT_V2, topology_of

SMALL = DemoSpec(subjects=4, repetitions=1)
PAIRS = [k for k, action in enumerate(ACTIONS) if action.partner]


@pytest.fixture(scope="module")
def demo() -> dict[str, np.ndarray]:
    return generate()


def _clips(data: dict[str, np.ndarray]) -> list[np.ndarray]:
    return np.split(data["joints"], data["offsets"][1:-1])


def _bones(joints: np.ndarray) -> np.ndarray:
    child, parent = np.array(KINECT_V2.bones).T
    return np.linalg.norm(joints[..., child, :] - joints[..., parent, :], axis=-1)


def test_schema(demo):
    joints, clips = demo["joints"], len(demo["label"])
    assert joints.dtype == np.float32
    assert joints.shape == (demo["offsets"][-1], 2, 25, 3)
    assert 1000 <= clips <= 1400
    assert demo["offsets"].shape == (clips + 1,)
    assert demo["offsets"][0] == 0
    lengths = np.diff(demo["offsets"])
    assert lengths.min() >= 20
    assert lengths.max() <= 150
    assert len(np.unique(lengths)) > 50
    for name in ("offsets", "label", "subject", "camera", "repetition", "parents"):
        assert demo[name].dtype == np.int64
    assert len(set(demo["clip"])) == clips
    assert demo["clip"][0] == "S001C001P001R001A001"
    for i in (0, 17, clips - 1):
        s, c, p, r, a = (int(demo["clip"][i][k : k + 3]) for k in (1, 5, 9, 13, 17))
        row = [demo[k][i] for k in ("subject", "camera", "subject", "repetition", "label")]
        assert [s, c, p, r, a - 1] == row
    assert (len(set(demo["label"])), len(set(demo["subject"])), len(set(demo["camera"]))) == (12, 32, 3)
    assert len(demo["class_names"]) == len(ACTIONS) == demo["label"].max() + 1
    assert tuple(demo["joint_names"]) == KINECT_V2.joints
    assert tuple(demo["parents"]) == KINECT_V2.parents
    assert (float(demo["fps"]), str(demo["units"]), str(demo["license"])) == (FPS, "m", "MIT")
    assert np.isfinite(joints).all()
    assert (joints * 4096 == np.round(joints * 4096)).all()
    assert all(value.dtype.kind != "O" for value in demo.values())  # loads with allow_pickle=False


def test_people_are_in_front_of_the_sensor_and_of_human_size(demo):
    seen = demo["joints"][demo["joints"].any(-1)]
    assert (seen[:, 2] > 0.5).all()  # nearer, a Kinect v2 sees nothing
    assert np.abs(seen).max() < 6
    frames = demo["joints"][:, 0]
    head, foot = KINECT_V2.joints.index("head"), KINECT_V2.joints.index("foot_left")
    both = frames[:, [head, foot]].any(-1).all(-1)
    assert 1.2 < np.median(np.linalg.norm(frames[both, head] - frames[both, foot], axis=-1)) < 1.9


def test_two_person_classes_have_two_persons_and_the_absent_are_zeros(demo):
    two = np.array([clip[:, 1].any() for clip in _clips(demo)])
    pair = np.isin(demo["label"], PAIRS)
    assert len(PAIRS) >= 2
    assert two[pair].all()
    assert 0.05 < two[~pair].mean() < 0.3  # bystanders, so that a second body is no label
    for clip, present in zip(_clips(demo), two, strict=True):
        assert clip[:, 0].any((1, 2)).all()
        assert clip[:, 1].any((1, 2)).all() if present else not clip[:, 1].any()


def test_some_joints_are_lost_and_the_root_never(demo):
    first = demo["joints"][:, 0]
    lost = ~first.any(-1)
    assert 0.002 < lost.mean() < 0.05
    assert not lost[:, KINECT_V2.root].any()


def test_splits_hold_every_class_and_camera_alike(demo):
    for split in ("train_xsub", "train_xview"):
        train = demo[split]
        assert train.dtype == bool
        counts = [np.bincount(demo["label"][part]) for part in (train, ~train)]
        assert all(len(set(count)) == 1 for count in counts)
    assert not set(demo["subject"][demo["train_xsub"]]) & set(demo["subject"][~demo["train_xsub"]])
    assert set(demo["camera"][~demo["train_xview"]]) == {1}
    handed = cast(16, 0).left_handed
    assert handed[::2].sum() == handed[1::2].sum() > 0


def test_bones_keep_their_length_but_for_the_sensor():
    true, noisy = generate(DemoSpec(**{**vars(SMALL), "noise": 0.0})), generate(SMALL)
    for clean, seen in zip(_clips(true), _clips(noisy), strict=True):
        length = _bones(clean[:, 0])
        assert np.ptp(length, axis=0).max() < 2e-3  # the rounding to 1/4096 m
        child, parent = np.array(KINECT_V2.bones).T
        there = (seen[:, 0, child].any(-1)) & seen[:, 0, parent].any(-1)
        error = np.abs(_bones(seen[:, 0]) - length)[there]
        assert np.median(error) < 0.03
        assert error.max() > 1e-3


def test_the_cameras_see_one_performance():
    clean = generate(DemoSpec(**{**vars(SMALL), "noise": 0.0}))
    clips, third = _clips(clean), len(clean["label"]) // 3
    for i in range(third):
        spans = [np.linalg.norm(c[:, 0, :, None] - c[:, 0, None], axis=-1) for c in clips[i::third]]
        assert len(spans) == 3
        assert max(np.abs(span - spans[0]).max() for span in spans) < 2e-3
        assert np.abs(clips[i] - clips[i + third]).max() > 0.05


def test_feet_stand_on_the_floor_and_elbows_and_knees_bend_one_way():
    people = cast(SMALL.subjects, SMALL.seed)
    takes = plan(SMALL, people)
    joints, there = perform(SMALL, people, takes)
    where = {name: j for j, name in enumerate(KINECT_V2.joints)}
    feet = joints[there][:, [where["foot_left"], where["foot_right"]], 1].min(1)
    assert feet.min() > 0.0
    assert np.median(feet) == pytest.approx(0.02)  # only who jumps is higher
    assert joints[there][..., 1].min() > -0.05
    actor = joints[:, 0]
    for side in ("left", "right"):
        hip, knee, ankle, foot = (actor[:, where[f"{k}_{side}"]] for k in ("hip", "knee", "ankle", "foot"))
        ahead = (foot - ankle) * (1, 0, 1)
        bulge = ((knee - (hip + ankle) / 2) * ahead).sum(-1)
        assert bulge.min() > -0.01


def test_the_set_is_a_function_of_its_spec():
    once, again = generate(SMALL), generate(SMALL)
    assert all((once[key] == again[key]).all() for key in once)
    other = generate(DemoSpec(**{**vars(SMALL), "seed": 1}))
    assert other["joints"].shape != once["joints"].shape
    one = generate(DemoSpec(subjects=1, cameras=1, repetitions=1))
    assert len(one["label"]) == len(ACTIONS)


def test_a_spec_that_cannot_be_is_refused():
    with pytest.raises(BadInput, match="subjects must be between 1 and 999, not 0"):
        DemoSpec(subjects=0)


def test_raw_nearest_neighbour_is_no_solution(demo):
    """The floor: 64 frames, centred on the first person's root in the first frame, Euclidean distance."""
    rows = []
    for clip in _clips(demo):
        place = (clip - clip[0, 0, 0]) * clip.any((2, 3), keepdims=True)
        at = np.linspace(0, len(clip) - 1, 64)
        low = at.astype(int)
        high, part = np.minimum(low + 1, len(clip) - 1), (at - low)[:, None, None, None]
        rows.append((place[low] * (1 - part) + place[high] * part).astype(np.float32).ravel())
    x, train = np.stack(rows), demo["train_xsub"]
    distance = (x[train] ** 2).sum(1) - 2 * x[~train] @ x[train].T
    found = demo["label"][train][distance.argmin(1)]
    assert 0.4 < (found == demo["label"][~train]).mean() < 0.72


def test_the_set_is_frozen(demo):
    """Tables made before a change here cannot be compared with tables made after it."""
    table = hashlib.sha256()
    for name in ("offsets", "label", "subject", "camera", "repetition"):
        table.update(demo[name].astype("<i8").tobytes())
    assert table.hexdigest()[:16] == "992ef3ef38eb2efe"
    # Coordinates to a centimetre, not to the bit: sines differ between machines in their last one.
    mean = np.stack([clip[:, 0].mean((0, 1)) for clip in _clips(demo)[::97]])
    np.testing.assert_allclose(mean, FROZEN, atol=0.01)


FROZEN = np.array(
    [
        [0.078, -0.104, 2.954],
        [0.203, 0.031, 2.949],
        [0.071, 0.346, 3.531],
        [0.162, 0.269, 2.51],
        [0.007, -0.406, 2.657],
        [0.086, 0.229, 3.114],
        [-0.182, 0.021, 3.24],
        [-0.091, -0.232, 2.84],
        [0.068, 0.321, 2.919],
        [0.082, -0.244, 3.696],
        [-0.05, -0.531, 3.665],
        [0.191, -0.17, 2.761],
    ]
)


def test_demo20_shows_other_people_with_twenty_joints():
    found, whole = demo20.generate(), generate(demo20.SPEC)
    assert topology_of(found["joint_names"], found["parents"]) is KINECT_V1
    at = [KINECT_V2.joints.index(joint) for joint in KINECT_V1.joints]
    assert (found["joints"] == whole["joints"][:, :, at]).all() and len(found["label"]) == 384
    assert hashlib.sha256(found["joints"].tobytes()).hexdigest()[:16] == "547408c478dd8af2"
