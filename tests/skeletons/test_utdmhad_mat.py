"""UTD-MHAD's MATLAB files: the authors' samples agree with the shared archive to the bit, damaged ones are refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from skeletons.errors import BadInput
from skeletons.recordings import LeftOut
from skeletons.sources.utdmhad_mat import ORDER, UtdmhadMat, UtdmhadOptions
from skeletons.topology import KINECT_V1
from tests.skeletons.mutants import fuzz, refused


def clip(folder: Path, d_skel: np.ndarray, name: str = "a9_s3_t4", compress: bool = True, key: str = "d_skel") -> Path:
    """A file as MATLAB's save writes it: (20, 3, frame), compressed."""
    from scipy.io import savemat

    path = folder / f"{name}_skeleton.mat"
    savemat(path, {key: d_skel}, do_compression=compress)
    return path


@pytest.fixture
def d_skel(rng):
    return rng.normal(0, 1, (20, 3, 7))


def test_the_samples_are_the_shared_archive(shared_data):
    source = UtdmhadMat(shared_data.parent / "samples" / "utdmhad", UtdmhadOptions())
    items = source.items()
    assert [i.stem[:-9] for i in items][:5] == ["a1_s1_t1", "a1_s1_t2", "a1_s2_t1", "a1_s2_t2", "a10_s1_t1"]
    assert len(items) == 12
    with np.load(shared_data / "utdmhad.npz") as file:
        archive = dict(file)
    where = {name: i for i, name in enumerate(archive["clip"].tolist())}
    assert source.class_names == tuple(archive["class_names"].tolist())
    for item in items:
        read = source.read(item)
        i = where[read.name]
        rounded = np.round(read.joints * np.float32(4096)) / np.float32(4096)
        np.testing.assert_array_equal(rounded, archive["joints"][archive["offsets"][i] : archive["offsets"][i + 1]])
        assert read.label == archive["label"][i]
        assert read.columns == {c: archive[c][i] for c in ("subject", "camera", "repetition")}


def test_the_cross_subject_split_is_the_official_one(shared_data):
    with np.load(shared_data / "utdmhad.npz") as file:
        train = UtdmhadMat(Path("anywhere"), UtdmhadOptions()).splits({"subject": file["subject"]})["train_xsub"]
        np.testing.assert_array_equal(train, file["train_xsub"])
    assert (train.sum(), (~train).sum()) == (431, 430)


@pytest.mark.parametrize("compress", [True, False])
def test_values_go_around_exactly_in_the_topologys_order(tmp_path, d_skel, compress):
    path = clip(tmp_path, d_skel, compress=compress)
    source = UtdmhadMat(tmp_path, UtdmhadOptions())
    assert source.items() == [path]
    read = source.read(path)
    names = ("head", "spine_shoulder", "spine_mid", "spine_base", *KINECT_V1.joints[4:])  # the authors' list
    for j, name in enumerate(names):
        there = read.joints[:, 0, KINECT_V1.joints.index(name)]
        np.testing.assert_array_equal(there, d_skel[j].T.astype(np.float32))
    assert (read.name, read.label) == ("a09_s03_t04", 8)
    assert read.columns == {"subject": 3, "camera": 1, "repetition": 4}
    assert set(map(len, source.chiral)) == {2} and {c for pair in source.chiral for c in pair} < set(source.class_names)


def test_a_clip_of_one_frame_is_read(tmp_path, d_skel):
    assert UtdmhadMat(tmp_path, UtdmhadOptions()).read(clip(tmp_path, d_skel[..., 0])).joints.shape == (1, 1, 20, 3)


@pytest.mark.parametrize("shape", [(20, 3, 0), (20, 3, 2)])
def test_nobody_is_left_out(tmp_path, shape):
    with pytest.raises(LeftOut):
        UtdmhadMat(tmp_path, UtdmhadOptions()).read(clip(tmp_path, np.zeros(shape)))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda a: a[:19], "of shape (19, 3, 7), expected numbers (20, 3, frames)"),
        (lambda a: a.transpose(1, 0, 2), "of shape (3, 20, 7)"),
        (lambda a: a + 1j, "complex128"),
        (lambda a: a * 1000, "the unit or the file is wrong"),
        (lambda a: np.where(np.arange(7) == 4, np.nan, a), "frame 4 has the coordinate nan"),
        (lambda a: np.where(np.arange(7) == 4, np.inf, a), "frame 4 has the coordinate inf"),
        (lambda a: "text", "d_skel is <U4"),
    ],
)
def test_damage_is_refused(tmp_path, d_skel, damage, said):
    path = clip(tmp_path, damage(d_skel))
    assert said in refused(lambda: UtdmhadMat(tmp_path, UtdmhadOptions()).read(path), path)


def test_other_files_are_refused(tmp_path, d_skel):
    path = clip(tmp_path, d_skel, key="d_iner")
    assert "has no d_skel" in refused(lambda: UtdmhadMat(tmp_path, UtdmhadOptions()).read(path), path)
    for data in (b"", b"abc", path.read_bytes()[:500]):
        path.write_bytes(data)
        refused(lambda: UtdmhadMat(tmp_path, UtdmhadOptions()).read(path), path)
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    assert "save it again with -v7" in refused(lambda: UtdmhadMat(tmp_path, UtdmhadOptions()).read(path), path)


def test_a_stream_without_all_of_its_checksum_is_refused(tmp_path, d_skel):
    """One byte twice, so that the last one of the checksum falls off: SciPy reads wrong values without a word."""
    path = clip(tmp_path, d_skel)
    data = path.read_bytes()
    for at in range(140, len(data), 7):
        path.write_bytes(data[:at] + data[at - 1 :])
        assert "damaged" in refused(lambda: UtdmhadMat(tmp_path, UtdmhadOptions()).read(path), path)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("kind", [0, 8, 14, 19, 255])
def test_values_of_no_known_kind_are_refused(tmp_path, d_skel, kind, compress):
    """At such a tag SciPy takes the whole process down."""
    path = clip(tmp_path, d_skel, compress=False)
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<II", 9, d_skel.nbytes))] = kind
    packed = zlib.compress(data[128:])
    path.write_bytes(data[:128] + struct.pack("<II", 15, len(packed)) + packed if compress else data)
    assert "no well-formed array" in refused(lambda: UtdmhadMat(tmp_path, UtdmhadOptions()).read(path), path)


@pytest.mark.parametrize("name", ["a28_s1_t1", "a1_s9_t1", "a1_s1_t5", "a0_s1_t1", "b"])
def test_unknown_names_are_refused(tmp_path, d_skel, name):
    path = clip(tmp_path, d_skel, name)
    assert "rename the file" in refused(UtdmhadMat(tmp_path, UtdmhadOptions()).items, path)


@pytest.mark.parametrize("compress", [True, False])
def test_mutants_are_refused_or_read_as_they_are(tmp_path, d_skel, compress):
    """What is compressed carries a checksum; in plain files only values may differ, never shape or place."""
    path = clip(tmp_path, d_skel, compress=compress)
    expected = d_skel.transpose(2, 0, 1)[:, None, ORDER].astype(np.float32)
    parsed = 0

    def check(damaged: bytes) -> None:
        nonlocal parsed
        path.write_bytes(damaged)
        try:
            read = UtdmhadMat(tmp_path, UtdmhadOptions()).read(path)
        except LeftOut:
            return
        except BadInput as error:
            assert str(error).startswith(str(path))
            assert "\n" not in str(error)
            return
        if compress:
            np.testing.assert_array_equal(read.joints, expected)
        else:
            assert np.isfinite(read.joints).all()
        parsed += 1

    fuzz(path.read_bytes(), check)
    assert 0 < parsed < 240
