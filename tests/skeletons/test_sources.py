"""Files in the exchange format become clips; what is wrong with one is a line that names the place and the remedy."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from skeletons.errors import BadInput
from skeletons.sources import DataConfig, ntu_npz, open_clips
from skeletons.sources.archive import load_npz, read_archive, write_archive
from tests.skeletons.complaints import complaint, ntu_arrays, save

# --- The exchange format ---


def test_an_archive_opens_as_clips(tmp_path, arrays):
    path = save(tmp_path / "a.npz", arrays | {"license": np.array("MIT"), "note": np.array("scalar")})
    clips = open_clips(DataConfig(name="archive", file=str(path)))
    np.testing.assert_array_equal(clips.frames, arrays["joints"])
    assert (clips.name, clips.source, clips.notes) == ("archive", str(path), {"license": "MIT"})


def test_archives_go_around_without_a_change(tmp_path, clips, arrays):
    path, again = tmp_path / "a.npz", tmp_path / "b.npz"
    write_archive(path, clips)
    back = open_clips(DataConfig(name="archive", file=str(path)))
    write_archive(again, back)
    first, second = load_npz(path, ""), load_npz(again, "")
    assert first.keys() == second.keys()
    for key in first.keys() - {"source"}:
        np.testing.assert_array_equal(first[key], second[key])
    missing = (first["joints"] == 0).all(-1)
    assert 0 < missing.mean() < 1
    np.testing.assert_array_equal(first["joints"][~missing], arrays["joints"][~missing])
    assert back.fingerprint == clips.fingerprint
    assert back.chiral == clips.chiral
    np.testing.assert_array_equal(back.frames, clips.frames)
    np.testing.assert_array_equal(back.observed, clips.observed)


def test_zeros_of_missing_joints_survive_the_way_through_the_store(tmp_path, arrays):
    arrays["joints"][10:13, 0, 5] = 0  # a short gap
    arrays["joints"][100:130, 0, 7] = 0  # a long one
    source = save(tmp_path / "a.npz", arrays | {"extra": np.arange(12), "valid": np.arange(12) > 3})
    write_archive(tmp_path / "b.npz", open_clips(DataConfig(name="archive", file=str(source))))
    back = load_npz(tmp_path / "b.npz", "")
    np.testing.assert_array_equal(back["joints"], arrays["joints"])
    np.testing.assert_array_equal(back["extra"], np.arange(12))
    np.testing.assert_array_equal(back["valid"], np.arange(12) > 3)
    assert back["valid"].dtype == bool


def test_sensor_names_are_read_and_written_by_anatomy(tmp_path, arrays):
    old = {"spine_base": "hip_center", "spine_mid": "spine", "spine_shoulder": "shoulder_center"}
    arrays["joint_names"] = np.array([old.get(j, j) for j in arrays["joint_names"].tolist()])
    read, topology = read_archive(save(tmp_path / "a.npz", arrays))
    assert topology.name == "kinect_v2"
    assert read["joint_names"][0] == "hip_center"


def test_a_store_is_prepared_once_and_again_when_its_file_changes(tmp_path, arrays):
    config = DataConfig(name="archive", file=str(tmp_path / "a.npz"), cache=str(tmp_path / "cache"))
    save(tmp_path / "a.npz", arrays)
    first = open_clips(config)
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*")}
    assert open_clips(config).fingerprint == first.fingerprint
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*")} == made
    arrays["label"][0] = 1
    save(tmp_path / "a.npz", arrays)
    os.utime(tmp_path / "a.npz", ns=(1, 1))  # whatever the clock's grain
    assert open_clips(config).fingerprint != first.fingerprint
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_cache_is_where_the_environment_says(cache, tmp_path, arrays):
    path = save(tmp_path / "a.npz", arrays)
    clips = open_clips(DataConfig(name="archive", file=str(path)))
    assert Path(clips.frames.filename).is_relative_to(cache)


# --- Bad input ---


def test_an_unknown_data_name_suggests_the_nearest():
    with pytest.raises(BadInput, match=r"unknown data 'nw-ucla'; did you mean 'nwucla'\? known: .*archive.*utdmhad"):
        open_clips(DataConfig(name="nw-ucla"))


@pytest.mark.parametrize("name", ["archive", "ntu60"])
def test_a_missing_file_is_named_with_the_remedy(tmp_path, name):
    message = complaint(tmp_path / "gone.npz", name)
    assert "no such file" in message
    assert "data.file=PATH" in message
    with pytest.raises(BadInput, match=f"data={name}: give the archive with data.file=PATH"):
        open_clips(DataConfig(name=name))


def test_a_missing_public_set_is_named_with_the_remedy(tmp_path):
    with pytest.raises(BadInput, match=f"{tmp_path / 'sbu.npz'}: no such file; .*data.root=DIR"):
        open_clips(DataConfig(name="sbu", root=str(tmp_path)))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("writer", [np.savez, np.savez_compressed])
def test_a_truncated_archive(tmp_path, arrays, writer, share):
    writer(tmp_path / "a.npz", **arrays)
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: int(share * len(content))])
    message = complaint(tmp_path / "a.npz")
    assert "truncated" in message
    assert "fetch or write it again" in message


@pytest.mark.parametrize("name", ["archive", "ntu60"])
@pytest.mark.parametrize("writer", [np.savez, np.savez_compressed])
def test_an_archive_with_flipped_bytes_is_refused_or_unharmed(tmp_path, arrays, rng, writer, name):
    """Anywhere in the file: data, NumPy's headers, the zip's directory."""
    arrays = {k: v[:50] if k == "joints" else v for k, v in arrays.items()} if name == "archive" else ntu_arrays(rng)
    writer(tmp_path / "whole.npz", **arrays)
    content = (tmp_path / "whole.npz").read_bytes()
    read = {"archive": read_archive, "ntu60": ntu_npz.read_ntu_npz}[name]
    refused = 0
    for place in rng.integers(0, len(content), 60).tolist() + list(range(len(content) - 120, len(content), 3)):
        harmed = bytearray(content)
        harmed[place] ^= 0xFF
        path = tmp_path / "harmed.npz"
        path.write_bytes(harmed)
        try:
            read(path)
        except BadInput as error:
            refused += 1
            assert "\n" not in str(error)
            assert str(path) in str(error)
    assert refused > 60


@pytest.mark.parametrize("content", [b"not a zip at all", b"", b"\x93NUMPY\x01\x00"])
@pytest.mark.parametrize("name", ["archive", "ntu60"])
def test_what_is_no_archive(tmp_path, content, name):
    (tmp_path / "a.npz").write_bytes(content)
    assert "truncated or" in complaint(tmp_path / "a.npz", name)


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


@pytest.mark.parametrize("key", ["clip", "joints"])
def test_pickled_objects_are_refused_and_not_executed(tmp_path, arrays, key):
    bomb = np.array([Bomb(tmp_path / "exploded")], dtype=object)
    path = save(tmp_path / "a.npz", arrays | {key: bomb})
    assert f"{key} holds pickled objects, which are not loaded" in complaint(path)
    assert not (tmp_path / "exploded").exists()
    with np.load(path, allow_pickle=True) as file:  # the bomb is a real one
        _ = file[key]
    assert (tmp_path / "exploded").exists()


def test_a_pickled_label_of_an_ntu_archive_is_not_executed(tmp_path, rng):
    bomb = np.array([Bomb(tmp_path / "exploded")], dtype=object)
    complaint(save(tmp_path / "a.npz", ntu_arrays(rng) | {"y_train": bomb}), "ntu60")
    complaint(save(tmp_path / "b.npz", ntu_arrays(rng) | {"x_train": bomb}), "ntu60")
    assert not (tmp_path / "exploded").exists()


def test_a_bare_pickle_is_not_executed(tmp_path):
    (tmp_path / "a.npz").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert "no .npz archive" in complaint(tmp_path / "a.npz")
    assert not (tmp_path / "exploded").exists()


def test_lacking_keys_are_listed(tmp_path, arrays):
    del arrays["label"], arrays["parents"]
    assert "lacks label, parents; see skeletons/sources/archive.py" in complaint(save(tmp_path / "a.npz", arrays))


def damaged(key: str, place: object, value: object):
    def damage(arrays: dict[str, np.ndarray]) -> None:
        arrays[key][place] = value

    return damage


def replaced(key: str, make):
    def damage(arrays: dict[str, np.ndarray]) -> None:
        arrays[key] = make(arrays[key])

    return damage


def frames_of_clip_3_zero(arrays: dict[str, np.ndarray]) -> None:
    arrays["joints"][8:17] = 0


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (replaced("joints", lambda x: x[..., :2]), ("joints", "(481, 2, 25, 2)", "(frames, persons, joints, 3)")),
        (replaced("joints", lambda x: x[:, 0]), ("joints", "(481, 25, 3)")),
        (replaced("joints", lambda x: x.astype(str)), ("joints", "expected numbers")),
        (replaced("joints", lambda x: x[:, :, :24]), ("24 joints but 25 joint names", "one name for each joint")),
        (replaced("joints", lambda x: x[:-9]), ("from 0 to 481 but there are 472 frames", "truncated")),
        (damaged("offsets", 0, 1), ("offsets run from 1", "make it again")),
        (replaced("offsets", lambda x: x[:, None]), ("offsets", "(13, 1)", "a row of integers")),
        (replaced("offsets", lambda x: x[0]), ("offsets", "()", "a row of integers")),
        (replaced("offsets", lambda x: x.astype(float)), ("offsets", "float64", "a row of integers")),
        (replaced("offsets", lambda x: x[:1]), ("there is no clip",)),
        (replaced("parents", lambda x: x[:20]), ("25 joints need 25 parents", "correct joint_names or parents")),
        (damaged("parents", 0, 1), ("the root", "correct joint_names or parents")),
        (damaged("joint_names", 3, "neck"), ("distinct names", "correct joint_names or parents")),
        (replaced("label", lambda x: x[:-1]), ("column 'label' has shape (11,) for 12 clips",)),
        (replaced("label", lambda x: x.astype(float)), ("label", "float64", "a row of integers")),
        (replaced("subject", lambda x: x[:-1]), ("column 'subject' has shape (11,) for 12 clips",)),
        (replaced("train_xsub", lambda x: x[:3]), ("column 'train_xsub' has shape (3,) for 12 clips",)),
        (replaced("clip", lambda x: x[0]), ("clip", "()", "a row of names")),
        (damaged("joints", (10, 1, 3, 2), np.nan), ("clip clip03 (number 3)", "not a number in frame 2", "as zeros")),
        (damaged("joints", (0, 0, 0, 0), np.inf), ("clip clip00 (number 0)", "not a number in frame 0")),
        (damaged("joints", (480, 0, 0, 0), -np.inf), ("clip clip11 (number 11)", "not a number in frame 129")),
        (damaged("offsets", 5, 17), ("clip clip04 (number 4) has no frames", "leave it out")),
        (damaged("offsets", 5, 9), ("clip clip04 (number 4) has no frames", "leave it out")),
        (frames_of_clip_3_zero, ("clip clip03 (number 3) shows nobody", "leave it out")),
        (damaged("label", 6, 3), ("clip clip06 (number 6) has label 3", "the 3 classes 0-2")),
        (damaged("label", 6, -1), ("clip clip06 (number 6) has label -1", "the 3 classes 0-2")),
        (damaged("clip", 6, "clip02"), ("two clips are named clip02", "distinct")),
    ],
)
def test_unusable_content_is_one_line_that_says_where(tmp_path, arrays, damage, words):
    damage(arrays)
    message = complaint(save(tmp_path / "a.npz", arrays))
    for word in words:
        assert word in message


def test_nothing_is_left_in_the_cache_by_a_refused_file(tmp_path, arrays):
    arrays["label"][0] = 9
    path = save(tmp_path / "a.npz", arrays)
    with pytest.raises(BadInput):
        open_clips(DataConfig(name="archive", file=str(path), cache=str(tmp_path / "cache")))
    assert not (tmp_path / "cache").exists()
