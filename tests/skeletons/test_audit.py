"""The audit finds each planted defect, is quiet without it, and says so in one page and by its exit status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skeletons import audit, duplicates
from skeletons.clips import Clips, open_store, write_store
from skeletons.errors import BadInput
from skeletons.findings import NOTE, OK, PROBLEM, Finding
from skeletons.sources import DataConfig, open_clips
from skeletons.sources.demo import DemoSpec, generate
from skeletons.survey import blocks, survey
from skeletons.topology import KINECT_V2, topology_of

Arrays = dict[str, np.ndarray]
JOINT = {name: j for j, name in enumerate(KINECT_V2.joints)}


@pytest.fixture(scope="module")
def crowd() -> Arrays:
    """48 clips of 4 persons, half of them in training, by a sensor without errors."""
    made = generate(DemoSpec(subjects=4, cameras=1, repetitions=1, noise=0.0))
    return made | {"fps": np.float64(24)}  # slow enough for the quickest of them to be possible


@pytest.fixture
def people(crowd: Arrays) -> Arrays:
    """A copy to damage."""
    return {k: np.array(v) for k, v in crowd.items() if k != "train_xview"}  # there is one camera


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[Arrays], Clips]:
    def store(arrays: Arrays) -> Clips:
        folder = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        topology = topology_of(arrays["joint_names"], arrays["parents"])
        write_store(folder, arrays, topology, {"name": "planted", "source": "generated"})
        return open_store(folder)

    return store


@pytest.fixture
def found(stored) -> Callable[..., dict[str, Finding]]:
    """All findings on arrays, by check."""

    def look(arrays: Arrays, asked: str = "xsub") -> dict[str, Finding]:
        return {f.check.strip() if f.check != "  subjects" else "both sides": f for f in _audit(arrays, asked)[0]}

    def _audit(arrays: Arrays, asked: str):
        return audit.audit(stored(arrays), asked)

    return look


def rows(arrays: Arrays, clip: int) -> slice:
    return slice(int(arrays["offsets"][clip]), int(arrays["offsets"][clip + 1]))


def added(arrays: Arrays, joints: np.ndarray, like: int, name: str = "planted") -> Arrays:
    """One more clip; its columns are those of clip `like`."""
    made = {k: np.array(v) for k, v in arrays.items()}
    columns = {"label", "subject", "camera", "repetition", "train_xsub", "train_xview"}
    made["joints"] = np.concatenate([arrays["joints"], joints.astype(np.float32)])
    made["offsets"] = np.append(arrays["offsets"], arrays["offsets"][-1] + len(joints))
    for key in columns & arrays.keys():
        made[key] = np.append(arrays[key], arrays[key][like])
    made["clip"] = np.append(arrays["clip"], name)
    return made


def where_seen(joints: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values`, and zeros where a joint is not seen."""
    return np.where((joints != 0).any(-1, keepdims=True), values, 0)


def a_pair(arrays: Arrays) -> tuple[int, int]:
    """A training clip and a test clip, both long."""
    long = np.diff(arrays["offsets"]) > 40
    return tuple(int(np.flatnonzero(long & (arrays["train_xsub"] == side))[0]) for side in (True, False))


def test_people_without_defects_are_found_to_have_none(found, people):
    told = found(people)
    assert {f.status for f in told.values()} == {OK}, [f for f in told.values() if f.status != OK]
    assert len(told) >= 18


COPIES: dict[str, tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], str]] = {
    "as it is": (lambda x, rng: x, "have an identical training clip"),
    "without its last frames": (lambda x, rng: x[:-7], "are a piece of a training clip"),
    "its end": (lambda x, rng: x[len(x) // 2 :], "are a piece of a training clip"),
    "with zeros at its end": (lambda x, rng: np.concatenate([x, 0 * x[:9]]), "are a piece of a training clip"),
    "its end, and its own": (
        lambda x, rng: np.concatenate([x[12:], x[:8] + np.float32(0.5)]),
        "share half of their frames or more",
    ),
    "centred": (lambda x, rng: where_seen(x, x - x[0, 0, 0]), "are within 20 mm of a training clip"),
    "centred in every frame": (lambda x, rng: where_seen(x, x - x[:, :1, :1]), "are within 20 mm"),
    "with 1 mm of noise": (
        lambda x, rng: where_seen(x, x + rng.normal(0, 0.001, x.shape)),
        "are within 20 mm of a training clip",
    ),
    "one frame later, rounded": (lambda x, rng: np.round(x[1:] * 1000) / 1000, "are within 20 mm"),
    "ends a frame apart, rounded": (lambda x, rng: np.round(x[:-1] * 512) / 512, "are within 20 mm"),
    "at four fifths of the rate": (
        lambda x, rng: x[np.linspace(0, len(x) - 1, len(x) * 4 // 5).round().astype(int)] * 0.999,
        "are within 20 mm",
    ),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_across_a_split_are_found(found, people, rng, how):
    train, test = a_pair(people)
    change, said = COPIES[how]
    if "rate" in how:  # slow enough that a rounded moment is within the limit
        piece = people["joints"][rows(people, train)]
        people["joints"][rows(people, train)] = piece[:1] + 0.1 * (piece - piece[:1])
    copy = change(people["joints"][rows(people, train)], rng)
    leak = found(added(people, copy, test))["split xsub"]
    assert leak.status == PROBLEM and f"1 of 25 test clips {said}" in leak.text, leak.text
    assert leak.names == (f"planted = {people['clip'][train]}",)
    within = found(added(people, copy, train))
    assert within["split xsub"].status == OK and within["same recording"].status == NOTE


OTHERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored": lambda x: (x * np.float32([-1, 1, 1]))[:, :, list(KINECT_V2.mirror)],
    "seen from elsewhere": lambda x: x[..., [2, 1, 0]] * np.float32([1, 1, -1]),
    "played backwards and moved": lambda x: x[::-1] + np.float32(0.01),
    "a tenth larger": lambda x: x * np.float32(1.1),
    "a quarter of it, moved": lambda x: where_seen(x, x + np.float32(0.3))[: len(x) // 4],
}


@pytest.mark.parametrize("how", OTHERS)
def test_what_is_no_copy_is_not_called_one(found, people, how):
    train, test = a_pair(people)
    other = OTHERS[how](people["joints"][rows(people, train)])
    assert found(added(people, other, test))["split xsub"].status == OK


def test_copies_with_other_labels_are_a_problem(found, people):
    train, _ = a_pair(people)
    made = added(people, people["joints"][rows(people, train)], train)
    made["label"][-1] = (made["label"][-1] + 1) % 12
    told = found(made)["same recording"]
    assert told.status == PROBLEM and "1 of these pairs bear different classes" in told.text
    assert "planted" in told.names[0] and people["class_names"][made["label"][-1]] in told.names[0]


def test_single_common_frames_are_a_note(found, people):
    train, test = a_pair(people)
    piece = people["joints"][rows(people, test)].copy()
    piece[:3] = people["joints"][rows(people, train)][-3:]
    people["joints"][rows(people, test)] = piece
    told = found(people)
    assert told["split xsub"].status == NOTE and "1 share single frames" in told["split xsub"].text
    assert "single frames" in told["same recording"].text


def test_pairs_are_those_of_a_plain_search(stored, people, rng):
    """The descriptor and the blocks rule nothing out that comparing all with all finds."""
    train, test = a_pair(people)
    clip = people["joints"][rows(people, train)]
    for k, noise in enumerate((0.0005, 0.001, 0.002)):
        copy = where_seen(clip, clip + rng.normal(0, noise, clip.shape))[k:]
        people = added(people, copy, test, f"planted{k}")
    clips = stored(people)
    bodies = [duplicates._body(clips, i) for i in range(len(clips))]
    plain = {
        (i, j)
        for i in range(len(clips))
        for j in range(i + 1, len(clips))
        if duplicates._distance(bodies[i], bodies[j]) <= duplicates.NEAR
    }
    assert {(i, j) for i, j, _ in duplicates.near_pairs(clips, np.arange(len(clips)))} == plain and len(plain) >= 3


def test_many_copies_of_one_clip_are_all_found(found, people):
    train, test = a_pair(people)
    clip = people["joints"][rows(people, train)]
    for k in range(130):
        people = added(people, clip, test if k % 2 else train, f"copy{k}")
    leak = found(added(people, where_seen(clip, clip + np.float32(0.3)), test, "moved"))["split xsub"]
    assert "65 of 90 test clips have an identical training clip; 1 of 90 test clips are within 20 mm" in leak.text


def test_persons_on_both_sides(found, people):
    assert found(people)["both sides"].text == "none on both sides (2 train, 2 test)"
    people["subject"][a_pair(people)[1]] = people["subject"][a_pair(people)[0]]
    told = found(people)["both sides"]
    assert told.status == PROBLEM and "1 of 3 persons" in told.text and "in a split by subjects" in told.text
    people["camera"] = 2 - people["train_xsub"].astype(int)
    told = found(people)["both sides"]
    assert told.status == OK and "as expected: the split is by camera" in told.text
    people["active_subject"] = np.ones(len(people["label"]), np.int64)
    people["subject"] = 2 - people["train_xsub"].astype(int)
    people["camera"][:] = 1
    told = found(people)["both sides"]
    assert told.status == NOTE and "which here is a group" in told.text


def test_classes_that_nobody_trains(found, people):
    people["label"][people["train_xsub"] & (people["label"] == 3)] = 4
    told = found(people)
    assert told["classes"].status == PROBLEM and str(people["class_names"][3]) in told["classes"].text
    assert told["class balance"].status == OK and told["subjects"].status == NOTE
    people["label"][people["label"] == 3] = 4
    assert "none of" in found(people)["class balance"].text


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


@pytest.fixture
def line(tmp_path, monkeypatch) -> Callable[[Arrays], list[str]]:
    """The command's arguments for arrays on file."""
    monkeypatch.setenv("SKELBENCH_CACHE", str(tmp_path / "cache"))

    def write(arrays: Arrays) -> list[str]:
        path = tmp_path / f"data{len(list(tmp_path.iterdir()))}.npz"
        np.savez(path, **arrays)
        return ["data=archive", f"data.file={path}"]

    return write


def test_exit_status_page_and_verdict(line, people, capsys):
    train, test = a_pair(people)
    clean = line(people)
    assert audit.main(clean) == 0
    printed = capsys.readouterr().out
    assert "no split leaks" in printed and "xsub" in printed and "xview" not in printed
    leaky = line(added(people, people["joints"][rows(people, train)], test))
    assert audit.main(leaky) == 1
    printed = capsys.readouterr().out
    assert "LEAKS: xsub" in printed and f"planted = {people['clip'][train]}" in printed
    assert len(printed.splitlines()) <= 60
    assert max(len(line) for line in printed.splitlines() if "/" not in line) <= audit.WIDTH
    clips = open_clips(DataConfig(name="archive", file=leaky[1].partition("=")[2]))
    assert audit.verdict_on(clips, "xsub") == "1 of 25 test clips have an identical training clip"
    assert audit.verdict_on(clips, "subject:odd") is None
    assert audit.main([*leaky, "split=subject:even"]) == 1
    assert audit.verdict_on(clips, "subject:even") is not None and audit.verdict_on(clips, "xsub") is not None
    assert audit.verdict_on(replace(clips, fingerprint="other"), "xsub") is None


def test_a_verdict_of_other_checks_is_forgotten(line, people, monkeypatch):
    given = line(people)
    audit.main(given)
    clips = open_clips(DataConfig(name="archive", file=given[1].partition("=")[2]))
    assert audit.verdict_on(clips, "xsub") == "no test clip is a training clip"
    monkeypatch.setattr(audit, "VERSION", audit.VERSION + 1)
    assert audit.verdict_on(clips, "xsub") is None


def test_a_store_that_cannot_be_written_is_audited_all_the_same(stored, people, monkeypatch):
    clips = stored(people)
    loose = replace(clips, frames=np.array(clips.frames))
    assert "in no store" in audit.keep(loose, [], {}) and audit.verdict_on(loose, "xsub") is None

    def refuse(path):
        raise BadInput(f"{path}: the disk is full")

    monkeypatch.setattr(audit, "written_whole", refuse)
    assert "the disk is full" in audit.keep(clips, [], {})


def test_many_splits_share_lines(line, people, capsys):
    people["fold"] = np.arange(len(people["label"])) % 12
    del people["train_xsub"]
    audit.main(line(people))
    printed = capsys.readouterr().out
    assert "split fold:11" in printed and "fold:0 and 11 like it" in printed and len(printed.splitlines()) <= 60


def test_a_split_without_test_clips_is_named(found, line, people, capsys):
    people["train_all"] = np.ones(len(people["label"]), bool)
    assert audit.main(line(people)) == 0
    assert "split 'all' has no test clips" in capsys.readouterr().out.replace("\n" + " " * 27, " ")


@pytest.mark.parametrize(
    "wrong, said",
    [
        (["dta=demo"], "did you mean 'data'"),
        (["split=xsub"], "say which data"),
        (["data="], "write data=VALUE"),
        (["data=nobody"], "unknown data"),
        (["data=demo", "data.fil=x"], "did you mean 'data.file'"),
        (["data=archive", "data.file=/nowhere.npz"], "no such file"),
    ],
)
def test_bad_arguments_are_refused(wrong, said):
    with pytest.raises(BadInput, match=said):
        audit.main(wrong)


def test_the_command_exits_with_2_on_bad_input(tmp_path):
    import subprocess
    import sys

    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    line = [sys.executable, "-m", "skeletons.audit", "data=archive", f"data.file={tmp_path / 'cut.npz'}"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 2 and "truncated" in done.stderr and not done.stdout


def test_nwucla_leaks_95_clips(shared_data, capsys):
    assert audit.main(["data=nwucla", f"data.root={shared_data}"]) == 1
    assert "95 of 464 test clips have an identical training clip (20.5 %" in capsys.readouterr().out
    clips = open_clips(DataConfig(name="nwucla", root=str(shared_data)))
    told = replace(clips, table={k: v for k, v in clips.table.items() if k != "test_identical_to_train"})
    leak = audit.audit(told, "xview")[0][0]
    marked = clips.table["clip"][clips.table["test_identical_to_train"]]
    assert {name.partition(" = ")[0] for name in leak.names} == set(marked) and leak.count == 95


@pytest.mark.parametrize("name", ["irds", "utdmhad", "sbu"])
def test_the_other_sets_do_not_leak(shared_data, name):
    clips = open_clips(DataConfig(name=name, root=str(shared_data)))
    assert not any(v.leaks for v in audit.audit(clips)[1].values())
