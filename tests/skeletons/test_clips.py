"""The clip store: what is written is what is read, gaps are filled and remembered, and files appear whole."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skeletons.clips import fingerprint, open_store, write_store
from skeletons.errors import BadInput
from skeletons.gaps import SHORT_GAP, fill_gaps
from skeletons.topology import KINECT_V2
from skeletons.whole import remove_unfinished, written_whole

ABOUT = {"name": "synthetic", "source": "generated"}
PARENTS, ORDER = (0, 0, 1), (0, 1, 2)


def body(frames: int) -> np.ndarray:
    """(frames, 1, 3, 3): joint j at (frame + 1, j + 1, 0.5)."""
    frame, joint = np.meshgrid(np.arange(frames), np.arange(3), indexing="ij")
    return np.stack([frame + 1.0, joint + 1.0, 0.5 + 0 * frame], -1).astype(np.float32)[:, None]


def fill(joints: np.ndarray, *offsets: int) -> tuple[np.ndarray, np.ndarray]:
    return fill_gaps(joints, np.array(offsets), PARENTS, ORDER)


def test_a_store_gives_back_what_was_written(tmp_path, arrays):
    write_store(tmp_path / "store", arrays, KINECT_V2, ABOUT | {"chiral": [("a", "b")], "notes": {"license": "MIT"}})
    clips = open_store(tmp_path / "store")
    np.testing.assert_array_equal(clips.frames, arrays["joints"])
    np.testing.assert_array_equal(clips.offsets, arrays["offsets"])
    assert set(clips.table) == {"clip", "label", "subject", "camera", "train_xsub"}
    for column, values in clips.table.items():
        np.testing.assert_array_equal(values, arrays[column])
        assert values.dtype == arrays[column].dtype
    assert (len(clips), clips.fps, clips.topology) == (12, 30.0, KINECT_V2)
    assert clips.class_names == ("wave left", "wave right", "shake hands")
    assert (clips.name, clips.source) == ("synthetic", "generated")
    assert (clips.chiral, clips.notes) == ((("a", "b"),), {"license": "MIT"})
    assert clips.lengths.tolist() == [1, 2, 5, 9, 12, 20, 31, 40, 64, 77, 90, 130]
    np.testing.assert_array_equal(clips.labels, arrays["label"])


def test_frames_are_memory_mapped_and_read_only(clips):
    for array in (clips.frames, clips.observed):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable


def test_presence_is_by_clip_and_person(clips):
    assert clips.present[:, 0].all()
    np.testing.assert_array_equal(clips.present[:, 1], clips.labels == 2)


def test_an_absent_person_stays_exact_zero(clips):
    absent = np.repeat(~clips.present[:, 1], clips.lengths)
    assert (clips.frames[absent, 1] == 0).all()
    assert not clips.observed[absent, 1].any()
    assert (clips.frames[~absent, 1] != 0).any((-1, -2)).all()


def test_a_person_who_leaves_is_held_where_they_were(clips):
    left = clips.offsets[11] + 100
    assert (clips.frames[left : clips.offsets[12], 1] == clips.frames[left - 1, 1]).all()
    assert not clips.observed[left : clips.offsets[12], 1].any()
    assert clips.observed[clips.offsets[11] : left, 1].all()


def test_gaps_are_interpolated_linearly():
    joints = body(30)
    joints[10:14, 0, 1] = 0
    filled, _ = fill(joints, 0, 30)
    np.testing.assert_allclose(filled, body(30), rtol=1e-6)
    seen = (joints != 0).any(-1)
    np.testing.assert_array_equal(filled[seen], joints[seen])  # what was seen is not touched


@pytest.mark.parametrize("gap", [1, SHORT_GAP, SHORT_GAP + 1, 12])
def test_a_gap_of_at_most_five_frames_counts_as_observed(gap):
    joints = body(30)
    joints[8 : 8 + gap, 0, 2] = 0
    _, observed = fill(joints, 0, 30)
    assert SHORT_GAP == 5
    assert observed[8 : 8 + gap, 0, 2].tolist() == [gap <= 5] * gap
    observed[8 : 8 + gap, 0, 2] = True
    assert observed.all()


def test_ends_are_held_and_not_observed_however_short():
    joints = body(10)
    joints[:2, 0, 1] = joints[9:, 0, 1] = 0
    filled, observed = fill(joints, 0, 10)
    assert (filled[:2, 0, 1] == joints[2, 0, 1]).all()
    assert (filled[9, 0, 1] == joints[8, 0, 1]).all()
    assert observed[:, 0, 1].tolist() == [False] * 2 + [True] * 7 + [False]


def test_gaps_are_not_filled_from_the_neighbouring_clip():
    joints = body(9)
    joints[2:3, 0, 1] = joints[3:5, 0, 1] = 0  # the end of the first clip, the start of the second
    filled, observed = fill(joints, 0, 3, 9)
    assert (filled[2, 0, 1] == joints[1, 0, 1]).all()
    assert (filled[3:5, 0, 1] == joints[5, 0, 1]).all()
    assert not observed[2:5, 0, 1].any()


def test_a_joint_never_seen_in_a_clip_sits_on_its_parent():
    joints = body(8)
    joints[:4, 0, 1:] = 0  # both joints in the first clip: the chain ends at the root
    joints[4:6, 0, 0] = 0
    filled, observed = fill(joints, 0, 4, 8)
    assert (filled[:4, 0, 1] == joints[:4, 0, 0]).all()
    assert (filled[:4, 0, 2] == joints[:4, 0, 0]).all()
    assert not observed[:4, 0, 1:].any()
    np.testing.assert_array_equal(filled[4:, 0, 1:], joints[4:, 0, 1:])


def test_origin_is_the_first_persons_root_in_its_first_valid_frame(clips, arrays):
    first = clips.offsets[:-1].copy()
    first[10] += 10  # the whole body is missing before
    np.testing.assert_array_equal(clips.origin, arrays["joints"][first, 0, 0])


def test_original_has_zeros_wherever_a_joint_was_not_seen(clips, arrays):
    """Short gaps too: they count as observed but were not seen."""
    expected, o = arrays["joints"], clips.offsets
    expected[o[7] + 10 : o[7] + 13, 0, 5] = expected[o[8] + 30 : o[8] + 50, 0, 13] = 0
    expected[o[9] : o[10], 0, 3] = expected[o[10] : o[10] + 10, 0] = expected[o[11] + 100 : o[12], 1] = 0
    np.testing.assert_array_equal(clips.original(), expected)


@pytest.mark.parametrize("change", ["coordinate", "length", "label"])
def test_fingerprint_changes_with_the_data(change, arrays):
    keys = ("joints", "offsets", "label")
    before = fingerprint(*(arrays[k] for k in keys))
    assert before == fingerprint(*(arrays[k].copy() for k in keys))
    assert len(before) == 16
    if change == "coordinate":
        arrays["joints"][-1, 0, -1, -1] += np.float32(1e-4)
    elif change == "length":
        arrays["offsets"][3] += 1
    else:
        arrays["label"][0] = 1
    assert fingerprint(*(arrays[k] for k in keys)) != before


def test_a_store_keeps_the_fingerprint_of_its_data(clips, tmp_path, arrays):
    write_store(tmp_path / "store", arrays, KINECT_V2, ABOUT)
    whole = open_store(tmp_path / "store").fingerprint
    assert whole == fingerprint(arrays["joints"], arrays["offsets"], arrays["label"])
    assert clips.fingerprint != whole  # that one has gaps


def test_a_file_appears_whole(tmp_path):
    with written_whole(tmp_path / "deep" / "a.txt") as temporary:
        temporary.write_text("one")
        assert not (tmp_path / "deep" / "a.txt").exists()
    with written_whole(tmp_path / "deep" / "a.txt") as temporary:
        temporary.write_text("two")
    assert (tmp_path / "deep" / "a.txt").read_text() == "two"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    path = tmp_path / "a.txt"
    code = f"""
import os, pathlib, signal
from skeletons.whole import remove_unfinished, written_whole
with written_whole(pathlib.Path({str(path)!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], timeout=60)
    assert len(list(tmp_path.iterdir())) == 1, "the writer was killed in the middle"
    (tmp_path / ".somebody.elses").mkdir()
    with written_whole(path) as temporary:
        temporary.write_text("whole")
        remove_unfinished(tmp_path)
        assert temporary.is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".somebody.elses", "a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, PermissionError])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error), written_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_slower_of_two_writers_leaves_the_store_of_the_faster(tmp_path, arrays):
    with written_whole(tmp_path / "store") as temporary:
        temporary.mkdir()
        (temporary / "late").touch()
        write_store(tmp_path / "store", arrays, KINECT_V2, ABOUT)
    assert len(open_store(tmp_path / "store")) == 12
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_that_names_the_place(tmp_path, arrays, monkeypatch, code):
    def full(*_args: object, **_columns: object) -> None:
        raise OSError(code, "no room")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(BadInput, match="the disk is full; free some space or choose another folder") as caught:
        write_store(tmp_path / "store", arrays, KINECT_V2, ABOUT)
    assert str(caught.value).startswith(str(tmp_path / "store"))
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_is_really_cut_short_is_a_full_disk(tmp_path, arrays):
    """NumPy says so with an OSError that has no errno."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(BadInput, match="the disk is full"):
            write_store(tmp_path / "store", arrays, KINECT_V2, ABOUT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_a_folder_is_named(tmp_path, arrays):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "store"
    with pytest.raises(BadInput, match=f"{place}: cannot be written .*; choose another folder"):
        write_store(place, arrays, KINECT_V2, ABOUT)


def test_other_errors_of_the_system_are_not_called_a_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "a"):
        Path(tmp_path / "missing").read_text()
