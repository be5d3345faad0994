"""Files become clips, and whatever is wrong with a file is one line that names the place and the remedy."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from skeletons.clips import Clips, open_store, write_store
from skeletons.errors import BadInput
from skeletons.sampling import ClipTensors, ViewConfig, centre_view
from skeletons.sources import DataConfig, ntu_npz, open_clips
from skeletons.sources.archive import load_npz, read_archive, write_archive
from skeletons.splits import split


def complaint(path: Path, name: str = "archive") -> str:
    """What opening `path` says, which must be one line that names the file."""
    with pytest.raises(BadInput) as caught:
        open_clips(DataConfig(name=name, file=str(path)))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)
    return path


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


# --- NTU archives ---


def ntu_arrays(rng: np.random.Generator, train: int = 5, test: int = 3, frames: int = 300) -> dict[str, np.ndarray]:
    """As MAMP's seq_transformation.py writes them: spine_mid of actor 1 is exactly zero in the first frame; odd clips
    have two persons."""
    found: dict[str, np.ndarray] = {}
    for part, count in (("train", train), ("test", test)):
        x = rng.normal(0, 0.5, (count, frames, 2, 25, 3)).astype(np.float32)
        for i in range(count):
            x[i] -= x[i, 0, 0, 1]
            x[i, 20 + 7 * i :] = 0
        x[0::2, :, 1] = 0
        found[f"x_{part}"] = x.reshape(count, frames, 150)
        found[f"y_{part}"] = np.eye(4)[np.arange(count) % 4]
    return found


def repeated(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """NTU-120's convention: a clip with one person repeats that person in the second slot."""
    found = {k: v.copy() for k, v in arrays.items()}
    for part in ("train", "test"):
        x = found[f"x_{part}"].reshape(-1, 300, 2, 25, 3)
        x[0::2, :, 1] = x[0::2, :, 0]
    return found


def open_ntu(path: Path, arrays: dict[str, np.ndarray], name: str = "ntu60") -> Clips:
    return open_clips(DataConfig(name=name, file=str(save(path, arrays))))


def test_an_ntu_archive_opens_without_its_padding(tmp_path, rng):
    arrays = ntu_arrays(rng)
    clips = open_ntu(tmp_path / "a.npz", arrays)
    assert clips.lengths.tolist() == [20, 27, 34, 41, 48, 20, 27, 34]
    assert clips.labels.tolist() == [0, 1, 2, 3, 0, 0, 1, 2]
    assert clips.class_names == ("A001", "A002", "A003", "A004")
    assert clips.topology.name == "kinect_v2"
    np.testing.assert_array_equal(clips.present, [[True, i % 2 == 1] for i in (0, 1, 2, 3, 4, 0, 1, 2)])
    part = split(clips, "file")
    assert (part.train.tolist(), part.test.tolist()) == ([0, 1, 2, 3, 4], [5, 6, 7])
    original = arrays["x_train"].reshape(5, 300, 2, 25, 3)[3, :41]
    np.testing.assert_allclose(clips.frames[clips.offsets[3] : clips.offsets[4]], original, atol=1e-8)


def test_an_ntu_archive_is_streamed_into_the_store_that_its_arrays_would_make(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(ntu_npz, "BLOCK", 2)
    clips = open_ntu(tmp_path / "a.npz", repeated(ntu_arrays(rng)))
    arrays, topology = ntu_npz.read_ntu_npz(tmp_path / "a.npz")
    write_store(tmp_path / "store", arrays, topology, {"name": "ntu60", "source": "x"})
    whole = open_store(tmp_path / "store")
    assert clips.fingerprint == whole.fingerprint
    assert clips.table.keys() == whole.table.keys()
    for field in ("frames", "observed", "offsets", "origin", "present", "bridged"):
        np.testing.assert_array_equal(getattr(clips, field), getattr(whole, field))
    taken: list[np.ndarray] = []
    assert "joints" not in ntu_npz.read_ntu_npz(tmp_path / "a.npz", lambda joints, _: taken.append(joints))[0]
    np.testing.assert_array_equal(np.concatenate(taken), arrays["joints"])


def test_the_joint_an_ntu_clip_is_centred_on_counts_as_seen(tmp_path, rng):
    """It is exactly zero in the first frame, which elsewhere means that a joint was not seen."""
    clips = open_ntu(tmp_path / "a.npz", ntu_arrays(rng))
    assert clips.observed[:, 0].all()
    assert np.abs(clips.frames[clips.offsets[:-1], 0, 1]).max() < 1e-8


def test_both_conventions_of_one_person_give_the_same_clips(tmp_path, rng):
    arrays = ntu_arrays(rng)
    zeros, copies = open_ntu(tmp_path / "a.npz", arrays), open_ntu(tmp_path / "b.npz", repeated(arrays), "ntu120")
    assert zeros.fingerprint == copies.fingerprint
    for field in ("frames", "observed", "offsets", "origin", "present", "labels"):
        np.testing.assert_array_equal(getattr(zeros, field), getattr(copies, field))
    assert "0 repeated second persons" in zeros.notes["split_note"]
    assert "5 repeated second persons" in copies.notes["split_note"]


def test_an_ntu_archive_larger_than_a_block_reads_the_same(tmp_path, rng, monkeypatch):
    path = save(tmp_path / "a.npz", repeated(ntu_arrays(rng)))
    whole, _ = ntu_npz.read_ntu_npz(path)
    monkeypatch.setattr(ntu_npz, "BLOCK", 2)
    blocks, _ = ntu_npz.read_ntu_npz(path)
    for key in whole:
        np.testing.assert_array_equal(whole[key], blocks[key])


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_ntu_archive(tmp_path, rng, share):
    path = save(tmp_path / "a.npz", ntu_arrays(rng))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "truncated" in complaint(path, "ntu60")


def test_an_ntu_member_that_ends_early(tmp_path, rng):
    path = save(tmp_path / "a.npz", ntu_arrays(rng))
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "b.npz", "w") as short:
        for name in whole.namelist():
            content = whole.read(name)
            short.writestr(name, content[: int(0.7 * len(content))] if name == "x_train.npy" else content)
    assert "x_train.npy ends after clip 3; the file is truncated" in complaint(tmp_path / "b.npz", "ntu60")


def all_zero(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[2] = 0
    return x


def with_nan(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[1, 4, 7] = np.nan
    return x


@pytest.mark.parametrize(
    ("key", "make", "words"),
    [
        ("x_train", lambda x: x[..., :75], "x_train.npy has shape (5, 300, 75), expected (clips, frames, 150)"),
        ("x_train", lambda x: x.reshape(5, -1), "x_train.npy has shape (5, 45000)"),
        ("x_test", lambda x: x.astype(int), "x_test.npy is int64"),
        ("x_test", np.asfortranarray, "Fortran's order"),
        ("y_train", lambda y: y.argmax(1), "y_train.npy must be one-hot"),
        ("y_train", np.ones_like, "y_train.npy must be one-hot"),
        ("y_train", lambda y: y[:-1], "5 train clips but 4 labels"),
        ("y_test", lambda y: y[:, :3], "y_train has 4 classes, y_test 3"),
        ("x_train", all_zero, "train clip 2 is empty"),
        ("x_test", with_nan, "test clip 1 has a coordinate that is not a number"),
    ],
)
def test_unusable_ntu_content_is_one_line_that_says_where(tmp_path, rng, key, make, words):
    arrays = ntu_arrays(rng)
    assert words in complaint(save(tmp_path / "a.npz", arrays | {key: make(arrays[key])}), "ntu60")


def test_an_ntu_archive_without_clips_or_members(tmp_path, rng, arrays):
    empty = {k: v[:0] for k, v in ntu_arrays(rng).items()}
    assert "there is no clip" in complaint(save(tmp_path / "a.npz", empty), "ntu60")
    assert "lacks x_train.npy" in complaint(save(tmp_path / "b.npz", arrays), "ntu60")


# --- The four public sets ---

PUBLIC = {
    "irds": (2589, 9, 30, "kinect_v2", "subject:odd", None),
    "nwucla": (1484, 10, 10, "kinect_v1", "xview", (1020, 464)),
    "utdmhad": (861, 27, 8, "kinect_v1", "xsub", (431, 430)),
    "sbu": (282, 8, 21, "openni", "fold:0", None),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_sets_open_with_their_documented_sizes(shared_data, name):
    count, classes, subjects, topology, how, sizes = PUBLIC[name]
    clips = open_clips(DataConfig(name=name, root=str(shared_data)))
    assert (len(clips), len(clips.class_names), clips.topology.name) == (count, classes, topology)
    assert set(clips.labels) == set(range(classes))
    assert len(set(clips.table["subject"])) == subjects
    part = split(clips, how)
    assert len(part.train) + len(part.test) == count
    assert sizes in (None, (len(part.train), len(part.test)))
    assert clips.present[:, 0].all()
    assert all(a in clips.class_names and b in clips.class_names for a, b in clips.chiral)
    assert "license" in clips.notes
    with np.load(shared_data / f"{name}.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(clips.original(), file["joints"])


@pytest.mark.parametrize(
    ("name", "expected", "clean"), [("nwucla", 62.5, 52.8), ("utdmhad", 79.8, None), ("irds", 81.5, None)]
)
def test_nearest_neighbour_on_raw_coordinates_reaches_the_documented_floor(shared_data, name, expected, clean):
    """64 frames resampled linearly, centred on the first frame's root (shared/data/README.md)."""
    clips = open_clips(DataConfig(name=name, root=str(shared_data)))
    part = split(clips, PUBLIC[name][4])
    view = centre_view(ClipTensors(clips), torch.arange(len(clips)), ViewConfig(frames=64, test_crop=1.0))
    x = view.joints.flatten(1)
    nearest = torch.cdist(x[part.test], x[part.train]).argmin(1)
    labels = torch.from_numpy(clips.labels)
    right = (labels[part.train][nearest] == labels[part.test]).double()
    assert 100 * right.mean() == pytest.approx(expected, abs=0.1)
    if clean is not None:
        kept = ~torch.from_numpy(clips.table["test_identical_to_train"][part.test])
        assert kept.sum() == 369
        assert 100 * right[kept].mean() == pytest.approx(clean, abs=0.1)
