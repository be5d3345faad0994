"""SBU's text: faithful files round trip, damaged ones are refused by line, the folds are the README's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from skeletons.errors import BadInput
from skeletons.recordings import LeftOut
from skeletons.sources.reading import NUMBER
from skeletons.sources.sbu_text import FOLDS, PAIRS, SbuOptions, SbuText
from tests.skeletons.mutants import fuzz, refused


def sequence(
    root: Path, normalised: np.ndarray, place: str = "s01s02/01/001", first: int = 238, end: str = "\n"
) -> Path:
    """A file as the authors' recorder wrote it: five significant digits, the frame numbers of the whole session.

    Args:
        normalised: (frame, 2, 15, 3).
    """
    path = root / place / "skeleton_pos.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [",".join([str(first + i), *(f"{v:.5g}" for v in row.ravel())]) for i, row in enumerate(normalised)]
    path.write_bytes((end.join(rows) + end).encode())
    return path


@pytest.fixture
def normalised(rng):
    return rng.uniform((0, 0, 1), (1, 1.2, 2), (6, 2, 15, 3))


def test_millimetres_are_found_again(tmp_path, normalised):
    path = sequence(tmp_path, normalised)
    source = SbuText(tmp_path, SbuOptions())
    assert source.items() == [path]
    read = source.read(path)
    said = np.array([f"{v:.5g}" for v in normalised.ravel()], dtype=float).reshape(normalised.shape)
    expected = np.stack([1.28 - 2.56 * said[..., 0], 0.96 - 1.92 * said[..., 1], said[..., 2] * 10 / 7.8125], -1)
    np.testing.assert_allclose(read.joints, expected, atol=1e-6)
    assert read.joints.dtype == np.float32
    assert (read.name, read.label, read.notes) == ("s01s02_a01_001", 0, ())
    assert read.columns["fold"] == 0


def test_a_published_frame_agrees_with_the_shared_archive(tmp_path, shared_data):
    """The first joints of s01s02/01/002's first frame, as the file has them."""
    normalised = np.full((1, 2, 15, 3), 0.5)
    normalised[0, 0, :4] = [
        (0.28167, 0.33117, 1.7376),
        (0.27529, 0.4442, 1.7215),
        (0.26828, 0.56268, 1.7046),
        (0.31147, 0.45448, 1.8238),
    ]
    normalised[0, 1, 14] = (0.81537, 1.1767, 1.7137)
    read = SbuText(tmp_path, SbuOptions()).read(sequence(tmp_path, normalised, "s01s02/01/002"))
    with np.load(shared_data / "sbu.npz") as file:
        clip = file["clip"].tolist().index(read.name)
        there = file["joints"][file["offsets"][clip]]
    same = np.round(read.joints[0] * np.float32(4096)) / 4096
    np.testing.assert_array_equal(same[0, :4], there[0, :4])
    np.testing.assert_array_equal(same[1, 14], there[1, 14])


def test_pairs_folds_and_classes_are_those_of_the_shared_archive(shared_data):
    source = SbuText(Path("anywhere"), SbuOptions())
    with np.load(shared_data / "sbu.npz") as file:
        assert source.class_names == tuple(file["class_names"].tolist())
        for i, name in enumerate(file["clip"].tolist()):
            path = Path(f"/sbu/{name[:6]}/{name[8:10]}/{name[11:]}/skeleton_pos.txt")
            assert source._about(path)[0] == name
            pair = PAIRS.index(10 * file["active_subject"][i] + file["passive_subject"][i]) + 1
            assert pair == file["subject"][i]
            assert pair in FOLDS[file["fold"][i]]


def test_sequences_are_in_order_and_a_second_copy_is_refused(tmp_path, normalised):
    for place in ("s07s03/08/002", "s01s02/02/001", "s01s02/01/001"):
        sequence(tmp_path, normalised, place)
    source = SbuText(tmp_path, SbuOptions())
    assert [source.read(p).name for p in source.items()] == ["s01s02_a01_001", "s01s02_a02_001", "s07s03_a08_002"]
    shutil.copytree(tmp_path / "s01s02", tmp_path / "copy" / "s01s02")
    assert "is in" in refused(source.items, tmp_path / "copy" / "s01s02")


@pytest.mark.parametrize(
    ("place", "said"),
    [("s01s02/09/001", "action 09 is unknown"), ("s01s01/01/001", "21 pairs"), ("a/b", "pair, action and sequence")],
)
def test_an_unknown_place_is_refused(tmp_path, normalised, place, said):
    path = sequence(tmp_path, normalised, place)
    assert said in refused(SbuText(tmp_path, SbuOptions()).items, path)


def test_what_is_not_seen_is_zero_and_gaps_are_said(tmp_path, normalised):
    normalised[2, 1, 4] = 0
    path = sequence(tmp_path, normalised, end="\r\n")
    lines = path.read_bytes().split(b"\r\n")
    path.write_bytes(b"\r\n".join(lines[:3] + lines[4:]))
    read = SbuText(tmp_path, SbuOptions()).read(path)
    assert len(read.joints) == 5
    assert read.notes == ("1 frame numbers skipped",)
    assert ((read.joints == 0).all(-1) == (np.arange(5)[:, None, None] == 2) & _only(1, 4)).all()
    with pytest.raises(LeftOut, match="nobody"):
        SbuText(tmp_path, SbuOptions()).read(sequence(tmp_path, 0 * normalised))


def _only(person: int, joint: int) -> np.ndarray:
    only = np.zeros((2, 15), bool)
    only[person, joint] = True
    return only


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda t: "", "the file is empty"),
        (lambda t: t.replace(b"\n", b",1\n", 1), "line 1: has 92 numbers, expected 91"),
        (lambda t: t[:-300], "line 6: has"),
        (lambda t: t.replace(b"\n240,", b"\n240,nan,", 1).replace(b",0.", b"0.", 1), "line"),
        (lambda t: t.replace(b"\n240,", b"\n238,", 1), "line 3: frame number 238 does not ascend"),
        (lambda t: t.replace(b"\n239,", b"\n\n239,", 1), "line 2: has 0 numbers"),
        (lambda t: t.replace(b"\n239,0.", b"\n239,7770.", 1), "frame 1 has the coordinate"),
        (lambda t: t.replace(b"\n239,", b"\n23x9,", 1), "line 2: '23x9' is no number"),
        (lambda t: t.replace(b"\n239,", b"\n2_39,", 1), "line 2: '2_39' is no number"),
        (lambda t: t.replace(b"\n239,", b"\n\xff239,", 1), "line 2: is no text"),
    ],
)
def test_damage_is_refused_with_its_line(tmp_path, normalised, damage, said):
    path = sequence(tmp_path, normalised)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    assert said in refused(lambda: SbuText(tmp_path, SbuOptions()).read(path), path)


def test_mutants_are_refused_or_read_as_they_are(tmp_path, normalised):
    path = sequence(tmp_path, normalised[:4])
    parsed = 0

    def check(damaged: bytes) -> None:
        nonlocal parsed
        path.write_bytes(damaged)
        try:
            read = SbuText(tmp_path, SbuOptions()).read(path)
        except BadInput as error:
            assert str(error).startswith(str(path))
            assert "\n" not in str(error)
            return
        rows = [line.split(",") for line in damaged.decode("ascii").replace("\r\n", "\n").rstrip().split("\n")]
        assert all(len(row) == 91 and all(NUMBER.fullmatch(f.strip()) for f in row) for row in rows)
        said = np.array(rows, dtype=float)[:, 1:].reshape(-1, 2, 15, 3)
        z = np.where((said == 0).all(-1), 0, said[..., 2] * 1.28)
        np.testing.assert_allclose(read.joints[..., 2], z, rtol=1e-6)
        parsed += 1

    fuzz(path.read_bytes(), check)
    assert 10 < parsed < 240


def test_an_empty_or_missing_folder_is_said(tmp_path):
    assert "no such folder" in refused(SbuText(tmp_path / "gone", SbuOptions()).items, tmp_path / "gone")
    assert "no SBU skeletons" in refused(SbuText(tmp_path, SbuOptions()).items, tmp_path)
