"""NW-UCLA's JSON: the authors' samples agree with the shared archive to the bit, damaged files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from skeletons.errors import BadInput
from skeletons.recordings import LeftOut
from skeletons.sources.nwucla_json import NwuclaJson, NwuclaOptions
from tests.skeletons.mutants import fuzz, refused


def clip(folder: Path, skeletons: object, name: str = "a08_s03_e02_v02", **fields: object) -> Path:
    """A file as the common preprocessing writes it: one line, six significant digits."""
    path = folder / f"{name}.json"
    actions = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 8: 7, 9: 8, 11: 9, 12: 10}
    label = actions.get(int(name[1:3]), 1) if name[1:3].isdigit() else 1
    path.write_text(json.dumps({"file_name": name, "skeletons": skeletons, "label": label} | fields))
    return path


@pytest.fixture
def joints(rng):
    return np.array([float(f"{v:.6g}") for v in rng.normal(0, 1, 5 * 60)]).reshape(5, 20, 3)


def test_the_samples_are_the_shared_archive(shared_data):
    source = NwuclaJson(shared_data.parent / "samples" / "nwucla", NwuclaOptions())
    items = source.items()
    assert len(items) == 18
    with np.load(shared_data / "nwucla.npz") as file:
        archive = dict(file)
    where = {name: i for i, name in enumerate(archive["clip"].tolist())}
    assert source.class_names == tuple(archive["class_names"].tolist())
    for item in items:
        read, i = source.read(item), where[item.stem]
        rounded = np.round(read.joints * np.float32(4096)) / np.float32(4096)
        np.testing.assert_array_equal(rounded, archive["joints"][archive["offsets"][i] : archive["offsets"][i + 1]])
        assert read.label == archive["label"][i]
        assert read.columns == {c: archive[c][i] for c in ("subject", "camera", "repetition")}


def test_the_duplicates_trap_is_read_as_it_is(shared_data):
    folder = shared_data.parent / "samples" / "nwucla"
    read = NwuclaJson(folder, NwuclaOptions()).read
    two, three = (read(folder / f"a02_s01_e00_v0{v}.json").joints for v in (2, 3))
    np.testing.assert_array_equal(two, three)


def test_the_cross_view_split_is_the_official_one(shared_data):
    with np.load(shared_data / "nwucla.npz") as file:
        table = {"camera": file["camera"]}
        train = NwuclaJson(Path("anywhere"), NwuclaOptions()).splits(table)["train_xview"]
        np.testing.assert_array_equal(train, file["train_xview"])
    assert (train.sum(), (~train).sum()) == (1020, 464)


def test_values_go_around_exactly(tmp_path, joints):
    path = clip(tmp_path, joints.tolist())
    source = NwuclaJson(tmp_path, NwuclaOptions())
    assert source.items() == [path]
    read = source.read(path)
    np.testing.assert_array_equal(read.joints, joints[:, None].astype(np.float32))
    assert (read.name, read.label) == ("a08_s03_e02_v02", 6)
    assert read.columns == {"subject": 3, "camera": 2, "repetition": 2}


@pytest.mark.parametrize("skeletons", [[], np.zeros((3, 20, 3)).tolist()])
def test_nobody_is_left_out(tmp_path, skeletons):
    with pytest.raises(LeftOut):
        NwuclaJson(tmp_path, NwuclaOptions()).read(clip(tmp_path, skeletons))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"label": 6}, "label 6, its name says a08_s03_e02_v02 and 7"),
        ({"label": True}, "label True"),
        ({"file_name": "a01_s01_e00_v01"}, "says file_name 'a01_s01_e00_v01'"),
        ({"skeletons": 3}, "expected a list of frames"),
        ({"skeletons": [[[0.0, 0.0, 0.0]] * 19]}, "frame 0 has 19 joints"),
        ({"skeletons": [[[0.1, 0.2]] * 20]}, r"joint 0 is [0.1, 0.2], expected three numbers"),
        ({"skeletons": [[[0.1, 0.2, True]] * 20]}, "expected three numbers"),
        ({"skeletons": [[[0.1, 0.2, None]] * 20]}, "expected three numbers"),
        ({"skeletons": [[[0.1, 0.2, 10**400]] * 20]}, "hundreds of digits"),
        ({"skeletons": [[[0.1, 0.2, 1e999]] * 20]}, "Infinity"),
        ({"skeletons": [[[0.1, 0.2, float("nan")]] * 20]}, "NaN"),
        ({"skeletons": [[[0.1, 0.2, 1700.0]] * 20]}, "frame 0 has the coordinate 1700 m"),
        ({"extra": 1}, "expected file_name, skeletons and label"),
    ],
)
def test_damage_is_refused(tmp_path, fields, said):
    path = clip(tmp_path, **{"skeletons": []} | fields)
    assert said in refused(lambda: NwuclaJson(tmp_path, NwuclaOptions()).read(path), path)


@pytest.mark.parametrize("name", ["a07_s01_e00_v01", "a01_s11_e00_v01", "a01_s01_e00_v04", "labels"])
def test_unknown_names_are_refused(tmp_path, name):
    path = clip(tmp_path, [[[0.1] * 3] * 20], name=name)
    assert "name" in refused(lambda: NwuclaJson(tmp_path, NwuclaOptions()).read(path), path)


@pytest.mark.parametrize(
    "text", ["", "[1]", "[" * 100_000, '{"label": 1, "label": 1}', '{"label": ' + "9" * 5000 + "}"]
)
def test_text_that_is_no_clip_is_refused(tmp_path, text):
    path = tmp_path / "a01_s01_e00_v01.json"
    path.write_text(text)
    refused(lambda: NwuclaJson(tmp_path, NwuclaOptions()).read(path), path)


def test_a_truncated_file_names_its_line(tmp_path, joints):
    path = clip(tmp_path, joints.tolist())
    path.write_text(path.read_text()[:-200])
    assert "line 1, column" in refused(lambda: NwuclaJson(tmp_path, NwuclaOptions()).read(path), path)


def test_a_second_copy_is_refused(tmp_path, joints):
    (tmp_path / "more").mkdir()
    clip(tmp_path, joints.tolist())
    second = clip(tmp_path / "more", joints.tolist())
    assert "remove one of the two" in refused(NwuclaJson(tmp_path, NwuclaOptions()).items, second)


def test_mutants_are_refused_or_read_as_they_are(tmp_path, joints):
    path = clip(tmp_path, joints.tolist())
    parsed = 0

    def check(damaged: bytes) -> None:
        nonlocal parsed
        path.write_bytes(damaged)
        try:
            read = NwuclaJson(tmp_path, NwuclaOptions()).read(path)
        except LeftOut:
            return
        except BadInput as error:
            assert str(error).startswith(str(path))
            assert "\n" not in str(error)
            return
        said = json.loads(damaged)
        assert (said["file_name"], said["label"]) == (path.stem, 7)
        assert not {b"true", b"NaN", b"Infinity"} & set(damaged.replace(b",", b" ").split())
        np.testing.assert_array_equal(
            read.joints[:, 0], np.array(said["skeletons"], dtype=np.float64).astype(np.float32)
        )
        parsed += 1

    fuzz(path.read_bytes(), check)
    assert 10 < parsed < 240
