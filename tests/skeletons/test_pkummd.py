"""PKU-MMD: actions are cut out as the labels say, the splits have the official sizes, damage is refused by line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skeletons.errors import BadInput
from skeletons.recordings import LeftOut
from skeletons.sources.pkummd import Pkummd, PkummdOptions
from skeletons.sources.reading import NUMBER
from tests.skeletons.mutants import fuzz, refused

# Videos that do not exist, by issue and count of the releases: phase I lacks 247-250 and 0060-L.
VIDEOS = [*range(2, 247), *range(251, 365)]
PHASE1 = [f"{n:04d}-{v}" for n in VIDEOS for v in "LMR" if (n, v) != (60, "L")]
LACKS = {"A05N04-M", "A07N12-M", "A08N12-M", "A14N12-M", "A20N01-M"}
PHASE2 = [f"A{a:02d}N{n:02d}-{v}" for a in range(1, 27) for n in range(1, 14) for v in "LMR"]
PHASE2 = [name for name in PHASE2 if name not in LACKS]


def record(
    root: Path,
    rng: np.random.Generator,
    name: str = "0002-L",
    labels: str = "12,3,9,2\n51,10,20,1\n",
    frames: int = 20,
    persons: int = 1,
    end: str = "\r\n",
) -> np.ndarray:
    """A recording and its labels as the authors' tools write them; gives its values (frame, 2, 25, 3)."""
    (root / "skeleton").mkdir(exist_ok=True)
    (root / "label").mkdir(exist_ok=True)
    values = np.round(rng.normal(0, 1, (frames, 2, 25, 3)), 6)
    values[:, persons:] = 0
    rows = [" ".join(f"{v:.6f}" for v in row.ravel()) for row in values]
    (root / "skeleton" / f"{name}.txt").write_bytes((" " + (end + " ").join(rows) + end).encode())
    (root / "label" / f"{name}.txt").write_bytes(labels.replace("\n", end).encode())
    return values


def source(root: Path, **options: object) -> Pkummd:
    return Pkummd(root, PkummdOptions(**options))


def splits_of(names: list[str], root: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    record(root, rng, names[0])
    clips = np.array([f"{name}_001" for name in names])
    return source(root).splits({"clip": clips})


def test_actions_are_cut_out_as_labelled(tmp_path, rng):
    values = record(tmp_path, rng)
    reader = source(tmp_path)
    items = reader.items()
    assert [line for _, line, _ in items] == [1, 2]
    first, second = map(reader.read, items)
    np.testing.assert_array_equal(first.joints, values[3:9].astype(np.float32))
    np.testing.assert_array_equal(second.joints, values[10:20].astype(np.float32))
    assert (first.name, first.label, second.name, second.label) == ("0002-L_001", 11, "0002-L_002", 50)
    assert reader.class_names[11] == "giving something to other person"
    assert second.columns == {"video": 2, "camera": 1, "repetition": 2}
    assert first.notes == ()
    shifted = source(tmp_path, slicing="aimclr").read(items[0])
    np.testing.assert_array_equal(shifted.joints, values[2:9].astype(np.float32))
    with pytest.raises(LeftOut, match="confidence is 1"):
        source(tmp_path, confidence=2).read(items[1])
    with pytest.raises(BadInput, match=r"unknown pkummd.slicing 'mampp'; did you mean 'mamp'"):
        source(tmp_path, slicing="mampp")


def test_phase_two_says_who(tmp_path, rng):
    record(tmp_path, rng, "A03N11-R", persons=2)
    reader = source(tmp_path)
    read = reader.read(reader.items()[0])
    assert read.columns == {"session": 3, "subject": 11, "camera": 3, "repetition": 1}
    assert read.joints[:, 1].any()


def test_without_lists_the_official_rules_give_the_official_sizes(tmp_path, rng):
    assert (len(PHASE1), len(PHASE2)) == (1076, 1009)
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    first, second = splits_of(PHASE1, tmp_path / "1", rng), splits_of(PHASE2, tmp_path / "2", rng)
    assert (first["train_xsub"].sum(), (~first["train_xsub"]).sum()) == (944, 132)
    assert (first["train_xview"].sum(), (~first["train_xview"]).sum()) == (718, 358)
    assert (second["train_xsub"].sum(), (~second["train_xsub"]).sum()) == (775, 234)
    assert (second["train_xview"].sum(), (~second["train_xview"]).sum()) == (671, 338)


def test_the_authors_lists_decide_where_they_are(tmp_path, rng):
    record(tmp_path, rng)
    (tmp_path / "Split").mkdir()
    path = tmp_path / "Split" / "cross-subject.txt"
    path.write_text("Training videos: \n0002-L, 0004-R, \nValidation videos: \n0003-L, \n")
    train = source(tmp_path).splits({"clip": np.array(["0002-L_001", "0002-M_001", "0004-R_011", "0003-L_001"])})
    assert train["train_xsub"].tolist() == [True, False, True, False]
    path.write_text("Training videos: \n0002-L, A01N01-L, \nValidation videos: \n0003-L, \n")
    assert "'A01N01-L' is no recording of phase 1" in refused(lambda: source(tmp_path), path)
    path.write_text("0002-L, 0004-R\n")
    assert "line 2" in refused(lambda: source(tmp_path), path)


def test_nobody_is_left_out_and_late_ends_are_said(tmp_path, rng):
    record(tmp_path, rng, labels="1,15,24,1\n", persons=1)
    reader = source(tmp_path)
    read = reader.read(reader.items()[0])
    assert len(read.joints) == 5
    assert read.notes == ("the label ends 4 frames after the recording",)
    record(tmp_path, rng, persons=0)
    with pytest.raises(LeftOut, match="nobody"):
        source(tmp_path).read(source(tmp_path).items()[0])


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("52,3,9,2\n", "line 1: action 52 is unknown"),
        ("0,3,9,2\n", "line 1: action 0 is unknown"),
        ("1,9,3,2\n", "line 1: begins at 9 and ends at 3"),
        ("1,30,40,2\n", "line 1: frames 30 to 20 are none of 0002-L.txt's 20 frames"),
        ("1,3,9\n", "line 1: has 3 numbers, expected 4"),
        ("1,3,9.5,2\n", "line 1: '1,3,9.5,2' are no whole numbers"),
        ("1,3,x,2\n", "line 1: 'x' is no number"),
        ("1,-3,9,2\n", "are no whole numbers"),
        ("\n1,3,9,2\n", "line 1: has 0 numbers"),
    ],
)
def test_damaged_labels_are_refused(tmp_path, rng, labels, said):
    record(tmp_path, rng, labels=labels, end="\n")
    reader = source(tmp_path)
    assert said in refused(lambda: reader.read(reader.items()[0]), tmp_path / "label" / "0002-L.txt")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda line: line[:-9], "line 6"),
        (lambda line: line + " 1", "line 6: has 151 numbers, expected 150"),
        (lambda line: "nan " + line.split(" ", 1)[1], "line 6: 'nan' is no number"),
        (lambda line: "1e999 " + line.split(" ", 1)[1], "line 6: '1e999' is no number"),
        (lambda line: "", "line 6: has 0 numbers"),
        (lambda line: "1234.5 " + line.split(" ", 1)[1], "from line 4 on: frame 2 has the coordinate 1234.5 m"),
    ],
)
def test_damaged_skeletons_are_refused(tmp_path, rng, damage, said):
    record(tmp_path, rng, labels="1,3,9,2\n", persons=2, end="\n")
    path = tmp_path / "skeleton" / "0002-L.txt"
    lines = [line.strip() for line in path.read_text().split("\n")]
    lines[5] = damage(lines[5])
    path.write_text("\n".join(lines))
    reader = source(tmp_path)
    assert said in refused(lambda: reader.read(reader.items()[0]), path)


def test_a_truncated_recording_is_refused(tmp_path, rng):
    record(tmp_path, rng, labels="1,3,9,2\n", end="\n")
    path = tmp_path / "skeleton" / "0002-L.txt"
    path.write_text("".join(path.read_text().splitlines(True)[:2]))
    reader = source(tmp_path)
    assert "line 1: frames 3 to 2 are none of" in refused(lambda: reader.read(reader.items()[0]), "0002-L.txt")
    path.write_text("")
    assert "the file is empty" in refused(lambda: reader.read(reader.items()[0]), path)


def test_a_missing_partner_and_mixed_phases_are_refused(tmp_path, rng):
    record(tmp_path, rng)
    (tmp_path / "label" / "0003-M.txt").write_text("1,3,9,2\n")
    (tmp_path / "skeleton" / "0004-M.txt").write_text("0\n")
    reader = source(tmp_path)
    items = reader.items()
    assert [line for _, line, _ in items] == [1, 2, 0, 0]
    assert "no labels in another 0004-M.txt" in refused(lambda: reader.read(items[2]), "skeleton/0004-M.txt")
    assert "no skeletons in another 0003-M.txt" in refused(lambda: reader.read(items[3]), "label/0003-M.txt")
    record(tmp_path, rng, "A01N01-L")
    assert "one phase at a time" in refused(lambda: source(tmp_path), "0002-L.txt")


def test_folders_without_recordings_are_refused(tmp_path, rng):
    assert "no PKU-MMD texts" in refused(lambda: source(tmp_path), tmp_path)
    (tmp_path / "label").mkdir()
    (tmp_path / "label" / "0003-M.txt").write_text("1,3,9,2\n")
    assert "no PKU-MMD skeletons" in refused(lambda: source(tmp_path), tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "0003-M.txt").write_text("")
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "0003-M.txt").write_text("")
    assert "remove one" in refused(lambda: source(tmp_path), "0003-M.txt")


def test_mutants_are_refused_or_read_as_they_are(tmp_path, rng):
    record(tmp_path, rng, labels="1,0,4,2\n", frames=4, end="\n")
    path, reader = tmp_path / "skeleton" / "0002-L.txt", source(tmp_path)
    item = reader.items()[0]
    number = parsed = 0

    def check(damaged: bytes) -> None:
        nonlocal number, parsed
        number += 1
        path.write_bytes(damaged)
        reader = source(tmp_path)
        try:
            read = reader.read((item[0], item[1], item[2] + " " * number))
        except LeftOut:
            return
        except BadInput as error:
            assert "0002-L.txt" in str(error)
            assert "\n" not in str(error)
            return
        rows = [line.split() for line in damaged.decode("ascii").replace("\r\n", "\n").rstrip().split("\n")][:4]
        assert all(len(row) == 150 and all(NUMBER.fullmatch(field) for field in row) for row in rows)
        np.testing.assert_array_equal(read.joints.reshape(-1, 150), np.array(rows, dtype=float).astype(np.float32))
        assert len(read.joints) == 4 or read.notes
        parsed += 1

    fuzz(path.read_bytes(), check)
    assert 10 < parsed < 240


def test_mutants_of_labels_are_refused_or_read_as_they_are(tmp_path, rng):
    record(tmp_path, rng, end="\n")
    path = tmp_path / "label" / "0002-L.txt"
    parsed = 0

    def check(damaged: bytes) -> None:
        nonlocal parsed
        path.write_bytes(damaged)
        reader = source(tmp_path)
        try:
            items = reader.items()
            found = [reader.read(item) for item in items]
        except (BadInput, LeftOut) as error:
            assert "\n" not in str(error)
            return
        rows = np.array([line.split(b",") for line in damaged.replace(b"\r", b"").rstrip().split(b"\n")], dtype=float)
        assert [r.label + 1 for r in found] == rows[:, 0].tolist()
        lengths = np.minimum(rows[:, 2], 20) - rows[:, 1]
        assert [len(r.joints) for r in found] == lengths.tolist()
        parsed += 1

    fuzz(path.read_bytes(), check)
    assert 10 < parsed < 240
