"""Your own recordings: what CSV, Parquet and NumPy files say is what is read, and what cannot be used is refused."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skeletons.errors import BadInput
from skeletons.recordings import LeftOut, Recording
from skeletons.sources.folder import Folder, FolderOptions
from tests.skeletons.mutants import fuzz, refused

# A dog: a topology of its own.
JOINTS = ["pelvis", "withers", "head", "paw_front_left", "paw_front_right", "tail"]
ABOUT = {
    "joints": JOINTS,
    "parents": ["pelvis", "pelvis", "withers", "withers", 1, "pelvis"],
    "fps": 25,
    "units": "m",
    "classes": ["sit", "give paw"],
    "splits": {"xsub": {"subject": [1, 3]}},
}
CLIPS = "file,label,subject,camera,train_mine\n"


def describe(root: Path, clips: str, **changes: Any) -> Path:
    (root / "dataset.json").write_text(json.dumps({k: v for k, v in (ABOUT | changes).items() if v is not None}))
    (root / "clips.csv").write_text(CLIPS + clips)
    return root


def named(joints: np.ndarray, frames: np.ndarray | None = None, skip: int | None = None, header: bool = True) -> str:
    """CSV with named columns, every number written so that it is found again; a person `skip` has no rows."""
    people = joints.shape[1]
    frames = np.arange(len(joints)) if frames is None else frames
    columns = [f"{j}_{a}" for j in JOINTS for a in "xyz"]
    lines = [",".join(["frame", "person", *columns])] if header else []
    for t, frame in enumerate(frames):
        for p in range(people):
            if p != skip:
                lines.append(",".join([str(frame), str(p), *(repr(float(v)) for v in joints[t, p].ravel())]))
    return "\n".join(lines) + "\n"


@pytest.fixture
def joints(rng):
    return rng.normal(0, 1, (7, 2, 6, 3))


def source(root: Path, **options: str) -> Folder:
    return Folder(root, FolderOptions(**options))


def only(root: Path, **options: str) -> Recording:
    """The one clip of a folder."""
    reader = source(root, **options)
    read = reader.read(reader.items()[2])
    assert isinstance(read, Recording)
    return read


def test_each_kind_of_file_says_the_same(tmp_path, joints):
    import pandas as pd

    describe(
        tmp_path,
        "a.csv,sit,1,1,1\nb.npy,1,2,1,0\nsub/c.npy,give paw,3,2,1\nd.csv,0,4,1,0\ne.parquet,0,4,1,0\n",
        persons=2,
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.csv").write_text(named(joints))
    np.save(tmp_path / "b.npy", joints)
    np.save(tmp_path / "sub" / "c.npy", joints.reshape(7, -1).astype(np.float32))
    (tmp_path / "d.csv").write_text("\n".join(",".join(map(repr, map(float, r.ravel()))) for r in joints))
    pd.read_csv(tmp_path / "a.csv").to_parquet(tmp_path / "e.parquet")
    reader = source(tmp_path)
    found = [reader.read(item) for item in reader.items()[2:]]
    for read in found:
        np.testing.assert_array_equal(read.joints, joints.astype(np.float32))
    assert [r.name for r in found] == ["a", "b", "sub/c", "d", "e"]
    assert [r.label for r in found] == [0, 1, 1, 0, 0]
    assert found[2].columns == {"subject": 3, "camera": 2}
    table = {"clip": np.array([r.name for r in found]), "subject": np.array([r.columns["subject"] for r in found])}
    splits = reader.splits(table)
    assert splits["train_xsub"].tolist() == [True, False, True, False, False]
    assert splits["train_mine"].tolist() == [True, False, True, False, False]
    assert (reader.fps, reader.class_names, reader.topology.parents) == (25.0, ("sit", "give paw"), (0, 0, 1, 1, 1, 0))


@pytest.mark.parametrize(("trains", "part"), [([9], "training"), ([1, 2, 3], "test")])
def test_a_split_without_one_of_its_parts_is_refused(tmp_path, trains, part):
    reader = source(describe(tmp_path, "a.csv,sit,1,1,1\n", splits={"xsub": {"subject": trains}}))
    table = {"clip": np.array(["a", "b", "c"]), "subject": np.array([1, 2, 3])}
    with pytest.raises(BadInput, match=rf"split 'xsub' has no {part} clips; subject: 1, 2, 3"):
        reader.splits(table | {"clip": np.array(["a"] * 3)})


def test_units_and_the_way_up_are_turned_into_metres_and_y(tmp_path, joints):
    describe(tmp_path, "a.npy,sit,1,1,1\n", units="mm", up="z")
    one = joints[:, 0]
    np.save(tmp_path / "a.npy", one * 1000)
    expected = np.stack([one[..., 0], one[..., 2], -one[..., 1]], -1)[:, None]
    np.testing.assert_allclose(only(tmp_path).joints, expected, rtol=1e-6)
    np.testing.assert_allclose(only(tmp_path, units="cm", up="y").joints, one[:, None] * 10, rtol=1e-6)
    assert source(tmp_path).options == FolderOptions("mm", "z")
    with pytest.raises(BadInput, match=r"unknown folder.units 'inch'"):
        source(tmp_path, units="inch")


def test_what_is_not_known_is_zero(tmp_path, joints):
    describe(tmp_path, "a.csv,sit,1,1,1\n", persons=2, ignore=["time"])
    lines = named(joints, frames=np.array([5, 6, 7, 8, 11, 12, 13]), skip=1).split("\n")
    cells = lines[3].split(",")
    cells[5:8] = "", " ", ""
    lines[3] = ",".join(cells)
    lines = [f"{line},{'time' if i == 0 else '12:30'}" for i, line in enumerate(lines) if line]
    (tmp_path / "a.csv").write_text("\r\n".join(lines))
    read = only(tmp_path)
    assert read.notes == ("2 frames without rows",)
    assert read.joints.shape == (9, 2, 6, 3)
    assert not read.joints[:, 1].any()
    seen = (read.joints[:, 0] != 0).any(-1)
    assert not seen[4:6].any()
    assert not seen[2, 1]
    assert (~seen).sum() == 13
    np.testing.assert_array_equal(read.joints[8, 0], joints[6, 0].astype(np.float32))


def test_nobody_and_files_without_a_line_are_left_out(tmp_path, joints):
    describe(tmp_path, "a.npy,sit,1,1,1\nb.csv,sit,1,1,1\n", persons=2)
    np.save(tmp_path / "a.npy", 0 * joints)
    np.save(tmp_path / "extra.npy", joints)
    (tmp_path / "b.csv").write_text(named(joints).split("\n")[0])
    reader = source(tmp_path)
    for item, said in zip(reader.items()[2:], ("nobody", "no frames", "does not name it")):
        with pytest.raises(LeftOut, match=said):
            reader.read(item)


def test_a_sensors_own_names_are_matched_by_anatomy(tmp_path, joints):
    describe(tmp_path, "a.npy,sit,1,1,1\n", joints=["hip_center", "spine"], parents=[0, 0])
    np.save(tmp_path / "a.npy", joints[:, 0, :2])
    assert source(tmp_path).topology.joints == ("spine_base", "spine_mid")
    assert only(tmp_path).joints.shape == (7, 1, 2, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parent": [0]}, "unknown key 'parent'; did you mean 'parents'"),
        ({"fps": None}, "lacks fps"),
        ({"fps": -1}, "fps is -1"),
        ({"fps": float("inf")}, "fps is inf"),
        ({"units": "inch"}, "expected m, cm or mm"),
        ({"up": "x"}, "expected y or z"),
        ({"persons": 0}, "persons is 0"),
        ({"classes": ["a", "a"]}, "expected distinct names"),
        ({"classes": []}, "expected distinct names"),
        ({"parents": [0, 0]}, "expected 6 joints"),
        ({"parents": [0, 0, 0, 0, 0, "hip"]}, "parent 'hip' is no joint's name"),
        ({"parents": [0, 0, 0, 0, 0, 6]}, "parent 6 is no joint's name"),
        ({"parents": [1, 0, 0, 0, 0, 0]}, "the root, must be its own parent; correct joints or parents"),
        ({"chiral": [["sit", "stand"]]}, "expected pairs of classes"),
        ({"splits": {"xsub": [1]}}, "expected rules like"),
        ({"splits": {"xsub": {"subject": []}}}, "expected rules like"),
        ({"ignore": "time"}, "expected names of columns"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path, changes, said):
    describe(tmp_path, "a.csv,sit,1,1,1\n", **changes)
    assert said in refused(lambda: source(tmp_path), tmp_path / "dataset.json")


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000, '{"fps": ' + "9" * 5000 + "}"])
def test_a_description_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    refused(lambda: source(tmp_path), tmp_path / "dataset.json")


@pytest.mark.parametrize(
    ("clips", "said"),
    [
        ("a.csv,stand,1,1,1\n", "line 2: unknown label 'stand'; did you mean 'sit'?"),
        ("a.csv,2,1,1,1\n", "line 2: unknown label '2'"),
        ("a.csv,sit,anna,1,1\n", "line 2: subject is 'anna'; write a whole number"),
        ("a.csv,sit,1,1,yes\n", "line 2: train_mine is 'yes'"),
        ("a.csv,sit,1,1\n", "line 2: has 4 fields, the header 5"),
        ("a.csv,sit,1,1,1\na.csv,sit,1,1,1\n", "line 3: clip a is in line 2 already"),
        ("a.csv,sit,1,1,1\na.npy,sit,1,1,1\n", "line 3: clip a is in line 2 already"),
        ("../a.csv,sit,1,1,1\n", "line 2: '../a.csv' is no file below this folder"),
        ("/a.csv,sit,1,1,1\n", "line 2: '/a.csv' is no file below this folder"),
        ("a.txt,sit,1,1,1\n", "line 2: 'a.txt' is no file below this folder"),
        ('"a.csv,sit,1,1,1\n', "is no CSV"),
        ("b.csv,sit,1,1,1\n", "b.csv: no such file, though clips.csv names it"),
    ],
)
def test_a_wrong_list_of_clips_is_refused(tmp_path, joints, clips, said):
    describe(tmp_path, clips, persons=2)
    (tmp_path / "a.csv").write_text(named(joints))
    assert said in refused(lambda: only(tmp_path), tmp_path)


@pytest.mark.parametrize("header", ["file,subject", "file,label,label", "file,label,my-column", ""])
def test_a_wrong_header_is_refused(tmp_path, header):
    describe(tmp_path, "")
    (tmp_path / "clips.csv").write_text(header)
    refused(lambda: source(tmp_path), tmp_path / "clips.csv")


def change(line: int, column: int | None, value: str) -> Any:
    """Puts `value` into a cell of a line (from 1), or in the line's place."""

    def changed(text: str) -> str:
        lines = text.split("\n")
        cells = lines[line - 1].split(",")
        if column is None:
            return "\n".join([*lines[: line - 1], value, *lines[line:]])
        cells[column] = value
        return "\n".join([*lines[: line - 1], ",".join(cells), *lines[line:]])

    return changed


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda t: "", "the file is empty"),
        (lambda t: t[:-30], "line 15: has"),
        (change(4, 3, "nan"), "line 4: 'nan' is no number"),
        (change(4, 3, "inf"), "line 4: 'inf' is no number"),
        (change(4, 3, "1e999"), "line 4: '1e999' is no number"),
        (change(4, 3, ""), "line 4: pelvis has empty cells and numbers"),
        (change(4, 3, "1000"), "frame 1 has the coordinate 1000 m"),
        (change(4, 0, "1.5"), "line 4: frame is 1.5; write a whole number"),
        (change(4, 0, ""), "line 4: frame is nan; write a whole number"),
        (change(6, 0, "0"), "line 6: frame 0 after 1; sort the rows by frame"),
        (change(15, 0, "1000000000"), "line 15: frame 1000000000 after 6"),
        (change(4, 1, "2"), "line 4: person 2 of 2"),
        (change(5, 1, "0"), "line 5: frame 1, person 0 is there already"),
        (change(4, None, ""), "line 4: has 1 fields, the header 20"),
        (change(1, 2, "hips_x"), "unknown column 'hips_x'"),
        (change(1, 2, "head_x"), "has the column 'head_x' twice"),
        (change(1, 0, "time"), "unknown column 'time'"),
        (lambda t: "\n".join(line.rsplit(",", 1)[0] for line in t.split("\n")), "lacks the column tail_z"),
        (lambda t: "\n".join(line.split(",", 1)[-1] for line in t.split("\n")), "column person but no frame"),
        (lambda t: "1,2\n", "line 1: has 2 numbers, expected 36"),
    ],
)
def test_a_damaged_table_is_refused_by_line(tmp_path, joints, damage, said):
    describe(tmp_path, "a.csv,sit,1,1,1\n", persons=2)
    (tmp_path / "a.csv").write_text(damage(named(joints)))
    assert said in refused(lambda: only(tmp_path), tmp_path / "a.csv")


@pytest.mark.parametrize(
    "array",
    [np.zeros((3, 2, 5, 3)), np.zeros((3, 36), complex), np.zeros((3, 6, 3)), np.zeros(36), np.array([None, "a"])],
)
def test_a_wrong_array_is_refused(tmp_path, array):
    describe(tmp_path, "a.npy,sit,1,1,1\n", persons=2)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    refused(lambda: only(tmp_path), tmp_path / "a.npy")


def test_a_damaged_array_is_refused(tmp_path, joints):
    describe(tmp_path, "a.npy,sit,1,1,1\n", persons=2)
    path = tmp_path / "a.npy"
    np.save(path, np.where(np.arange(3) == 1, np.nan, joints))
    assert "frame 0 has the coordinate nan" in refused(lambda: only(tmp_path), path)
    np.save(path, joints)
    data = path.read_bytes()
    for mutant in (data[:-1], data + b"\0", data[:50], b"", b"\x93NUMPY"):
        path.write_bytes(mutant)
        assert "truncated, damaged or no .npy file" in refused(lambda: only(tmp_path), path)


def test_parquet_without_its_reader_and_wrong_tables_are_refused(tmp_path, monkeypatch):
    import pandas as pd

    describe(tmp_path, "a.parquet,sit,1,1,1\n")
    path = tmp_path / "a.parquet"
    columns = {f"{j}_{a}": [0.5, None, 1.0] for j in JOINTS for a in "xyz"}
    pd.DataFrame(columns).to_parquet(path)
    assert only(tmp_path).joints[:, 0, 0, 0].tolist() == [0.5, 0.0, 1.0]
    pd.DataFrame(columns | {"tail_x": ["a", "b", "c"]}).to_parquet(path)
    assert "expected numbers" in refused(lambda: only(tmp_path), path)
    pd.DataFrame(columns | {"tail_x": [1.0, np.inf, 2.0]}).to_parquet(path)
    assert "row 1: 'tail_x' is inf" in refused(lambda: only(tmp_path), path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "no Parquet file" in refused(lambda: only(tmp_path), path)
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "install it, or write the clips as CSV or .npy" in refused(lambda: only(tmp_path), path)


def test_mutants_of_tables_are_refused_or_read_as_they_are(tmp_path, joints):
    describe(tmp_path, "a.csv,sit,1,1,1\n", persons=2)
    path = tmp_path / "a.csv"
    path.write_text(named(joints[:3].round(3)))
    reader, parsed = source(tmp_path), 0
    item = reader.items()[2]

    def check(damaged: bytes) -> None:
        nonlocal parsed
        path.write_bytes(damaged)
        try:
            read = reader.read(item)
        except LeftOut:
            return
        except BadInput as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
            return
        lines = damaged.decode().replace("\r\n", "\n").rstrip().split("\n")
        header = lines[0].split(",")
        rows = [dict(zip(header, line.split(","))) for line in lines[1:]]
        start = int(float(rows[0]["frame"]))
        for row in rows:
            there = read.joints[int(float(row["frame"])) - start, int(float(row["person"]))]
            said = np.array([[float(row[f"{j}_{a}"].strip() or 0) for a in "xyz"] for j in JOINTS])
            np.testing.assert_array_equal(there, said.astype(np.float32))
        assert (read.joints != 0).any((2, 3)).sum() <= len(rows)
        parsed += 1

    fuzz(path.read_bytes(), check)
    assert 10 < parsed < 240
