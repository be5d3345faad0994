"""NTU archives as papers share them become clips without their padding; what is wrong with one is one line."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from skeletons.clips import Clips, open_store, write_store
from skeletons.sources import DataConfig, ntu_npz, open_clips
from skeletons.splits import split
from tests.skeletons.complaints import complaint, ntu_arrays, save


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
