"""PYSKL's pickles: read exactly and lazily, and nothing in them is ever executed."""

from __future__ import annotations

import builtins
import copyreg
import os
import pickle
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skeletons.errors import BadInput
from skeletons.recordings import LeftOut
from skeletons.sources.pyskl import Pyskl, PysklOptions
from skeletons.sources.safe_pickle import Stored, open_pickle
from tests.skeletons.mutants import fuzz, refused


def annotation(rng: np.random.Generator, name: str, persons: int = 1, frames: int = 30, **fields: Any) -> dict:
    keypoint = rng.normal(0, 1, (persons, frames, 25, 3)).astype(np.float16)
    label = int(name[-3:]) - 1
    return {"frame_dir": name, "label": label, "keypoint": keypoint, "total_frames": frames} | fields


@pytest.fixture
def content(rng):
    names = ("S001C001P001R001A001", "S001C002P001R001A050", "S001C003P003R002A060", "S017C002P020R001A007")
    entries = [annotation(rng, name, 1 + i % 2, 5 + 30 * i) for i, name in enumerate(names)]
    split = {
        "xsub_train": [n for n in names if "P001" in n],
        "xsub_val": [n for n in names if "P001" not in n],
        "xview_train": [n for n in names if "C001" not in n],
        "xview_val": [n for n in names if "C001" in n],
    }
    return {"split": split, "annotations": entries}


def save(path: Path, content: Any, protocol: int = 2) -> Path:
    """mmcv.dump's default is protocol 2; people make theirs again with newer ones."""
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def source(path: Path, **options: int) -> Pyskl:
    return Pyskl(path, PysklOptions(**options))


@pytest.mark.parametrize("protocol", range(6))
def test_values_go_around_exactly(tmp_path, content, protocol):
    reader = source(save(tmp_path / "ntu60_3danno.pkl", content, protocol))
    reader = pickle.loads(pickle.dumps(reader))  # as a worker gets it
    items = reader.items()
    assert [name for _, _, name in items] == [e["frame_dir"] for e in content["annotations"]]
    for item, entry in zip(items, content["annotations"]):
        read = reader.read(item)
        persons = len(entry["keypoint"])
        np.testing.assert_array_equal(read.joints[:, :persons], entry["keypoint"].transpose(1, 0, 2, 3))
        assert read.joints.shape == (entry["total_frames"], 2, 25, 3)
        assert not read.joints[:, persons:].any()
        assert (read.name, read.label) == (entry["frame_dir"], entry["label"])
    assert read.columns == {"setup": 17, "camera": 2, "subject": 20, "repetition": 1}
    assert (len(reader.class_names), reader.class_names[59]) == (60, "A060")
    splits = reader.splits({"clip": np.array([name for _, _, name in items])})
    assert {k: v.tolist() for k, v in splits.items()} == {
        "train_xsub": [True, True, False, False],
        "train_xview": [False, True, True, True],
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_numpy_1_and_2_are_the_same_to_us(tmp_path, content, protocol):
    new = pickle.dumps(content, protocol=protocol)
    assert b"numpy._core" in new
    old = new
    for module in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        name = module.replace(b"_core", b"core")
        old = old.replace(bytes([0x8C, len(module)]) + module, bytes([0x8C, len(name)]) + name).replace(module, name)
    (tmp_path / "old.pkl").write_bytes(old)
    if protocol == 2:  # where nothing counts the bytes of names, Python agrees that this is the same pickle
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            same = pickle.loads(old)["annotations"]
        np.testing.assert_array_equal(same[3]["keypoint"], content["annotations"][3]["keypoint"])
    reader = source(tmp_path / "old.pkl")
    for item, entry in zip(reader.items(), content["annotations"]):
        np.testing.assert_array_equal(reader.read(item).joints[:, 0], entry["keypoint"][0])


def test_big_endian_and_column_order_and_numpy_scalars_are_read(tmp_path, content):
    first = content["annotations"][0]
    first["keypoint"] = np.asfortranarray(first["keypoint"].astype(">f4"))
    first |= {"label": np.int64(0), "frame_dir": np.str_(first["frame_dir"]), "total_frames": np.int32(5)}
    content["split"]["xsub_train"] = np.array(content["split"]["xsub_train"])
    for protocol in (2, 5):
        reader = source(save(tmp_path / "a.pkl", content, protocol))
        np.testing.assert_array_equal(reader.read(reader.items()[0]).joints[:, 0], first["keypoint"][0])
        assert reader.parts["xsub"][0] == set(content["split"]["xsub_train"].tolist())


def test_arrays_stay_in_the_file(tmp_path, rng):
    entries = [annotation(rng, f"S001C001P001R001A{i % 60 + 1:03d}", 2, 300, frame_dir=f"clip{i}") for i in range(100)]
    path = save(tmp_path / "big.pkl", {"split": {}, "annotations": entries})
    assert path.stat().st_size > 9e6
    tracemalloc.start()
    try:
        reader = source(path)
        assert tracemalloc.get_traced_memory()[1] < 1.5e6
    finally:
        tracemalloc.stop()
    assert all(isinstance(a.keypoint.data, Stored) for a in reader.annotations)
    np.testing.assert_array_equal(reader.read(reader.items()[77]).joints[:, 1], entries[77]["keypoint"][1])


def test_no_body_is_left_out(tmp_path, content):
    content["annotations"][0] = None
    content["annotations"][1]["keypoint"] = np.zeros((0, 35, 25, 3), np.float16)
    content["annotations"][2]["keypoint"][:] = 0
    reader = source(save(tmp_path / "a.pkl", content))
    for item in reader.items()[:3]:
        with pytest.raises(LeftOut):
            reader.read(item)


# --- Nothing is executed ---


class Calls:
    """Pickled, it is a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.made = function, arguments

    def __reduce__(self) -> Any:
        return self.made


def calls(marker: Path) -> list[Any]:
    return [
        Calls(os.system, f"touch {marker}"),
        Calls(builtins.eval, f"open({str(marker)!r}, 'w')"),
        Calls(builtins.exec, f"open({str(marker)!r}, 'w')"),
        Calls(builtins.getattr, np, "load"),
        Calls(np.fromfile, str(marker)),
        Calls(np.zeros(3).tofile, str(marker)),
        Calls(pickle.loads, b"N."),
        Calls(Path, str(marker)),
        np.array([Calls(os.system, f"touch {marker}")], dtype=object),
        {"nested": [Calls(os.system, f"touch {marker}")]},
    ]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("which", range(10))
def test_a_call_is_refused_and_not_made(tmp_path, content, protocol, which):
    marker = tmp_path / "marker"
    content["annotations"].append(calls(marker)[which] if which != 3 else Calls(builtins.getattr, "text", "upper"))
    path = save(tmp_path / "evil.pkl", content, protocol)
    refused(lambda: source(path), path)
    assert not marker.exists()


def test_the_refusal_names_what_was_wanted(tmp_path, content):
    content["annotations"].append(Calls(os.system, "true"))
    message = refused(lambda: source(save(tmp_path / "evil.pkl", content)), tmp_path / "evil.pkl")
    assert "wants to use 'posix' 'system'" in message


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cos\nsystem\n(Vtouch MARKER\ntR.",
        b"(Vtouch MARKER\nios\nsystem\n.",
        b"(cos\nsystem\nVtouch MARKER\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch MARKER\x85R.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x93.",
        b"\x80\x02\x82\xf0(Vtouch MARKER\ntR.",  # copyreg's extension 240
        b"cnumpy\nndarray\n(I3\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(dVx\nI1\nsb.",  # state of a class of ours
        b"c__builtin__\nset\n}Vadd\nI1\nsb.",
        b"\x80\x02c_codecs\nencode\nVtext\nVrot13\n\x86R.",
        b"Vperson\nPid\n.",
        b"\x80\x05\x97.",  # a buffer out of band
    ],
)
def test_every_way_to_name_a_function_is_refused(tmp_path, opcodes, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copyreg.add_extension("os", "system", 240)
    try:
        path = tmp_path / "evil.pkl"
        path.write_bytes(opcodes)
        refused(lambda: open_pickle(path), path)
    finally:
        copyreg.remove_extension("os", "system", 240)
    assert not (tmp_path / "MARKER").exists()


def test_arrays_of_objects_and_of_structures_are_refused(tmp_path, content):
    path = tmp_path / "a.pkl"
    for array in (np.array([1, "a", None], object), np.zeros(2, "f4,i4"), np.zeros(2, "M8[s]"), np.zeros(2, "S3")):
        refused(lambda a=array: source(save(path, content | {"more": a})), path)


# --- Bad input ---


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("split"), "no annotations and split"),
        (lambda c: c["annotations"].clear(), "an empty one"),
        (lambda c: c["annotations"].append(3), "annotation 4 is 3"),
        (lambda c: c["annotations"][1].pop("label"), "annotation 1 lacks label"),
        (lambda c: c["annotations"][1].update(label=True), "label True"),
        (lambda c: c["annotations"][1].update(label=-1), "label -1"),
        (lambda c: c["annotations"][1].update(keypoint=[1]), "keypoint is [1]"),
        (lambda c: c["annotations"][1].update(total_frames=4), "total_frames 4"),
        (lambda c: c["annotations"][1].update(frame_dir="a\nb"), "annotation 1 is named 'a"),
        (lambda c: c["split"].pop("xsub_val"), "no xsub_val"),
        (lambda c: c["split"].update(xsub_val=3), "'xsub_val' is no list of names"),
    ],
)
def test_another_structure_is_refused(tmp_path, content, change, said):
    change(content)
    path = save(tmp_path / "a.pkl", content)
    assert said in refused(lambda: source(path), path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"keypoint": np.ones((1, 35, 17, 2), np.float16)}, "2D keypoints"),
        ({"keypoint": np.ones((1, 35, 20, 3), np.float16)}, "float16 of shape (1, 35, 20, 3)"),
        ({"keypoint": np.ones((3, 35, 25, 3), np.float16)}, "float16 of shape (3, 35, 25, 3)"),
        ({"keypoint": np.ones((1, 35, 25, 3), np.int64)}, "int64"),
        ({"keypoint": np.full((1, 35, 25, 3), np.nan, np.float16)}, "frame 0 has the coordinate nan"),
        ({"keypoint": np.full((1, 35, 25, 3), 1500, np.float16)}, "1500 m"),
        ({"label": 3}, "has label 3, its name says A050"),
    ],
)
def test_a_damaged_clip_is_refused(tmp_path, content, fields, said):
    content["annotations"][1] |= fields
    path = save(tmp_path / "a.pkl", content)
    reader = source(path)
    assert said in refused(lambda: reader.read(reader.items()[1]), path)
    assert len(reader.read(reader.items()[0]).joints) == 5


def test_clips_in_no_part_or_both_are_refused(tmp_path, content):
    content["split"]["xsub_train"].append("S017C002P020R001A007")
    reader = source(save(tmp_path / "a.pkl", content))
    table = {"clip": np.array([e["frame_dir"] for e in content["annotations"]])}
    assert "S017C002P020R001A007 is in both parts of its split 'xsub'" in refused(lambda: reader.splits(table), "a.pkl")
    with pytest.raises(BadInput, match="clip strange is in no part"):
        reader.splits({"clip": np.array(["strange"])})


def test_a_missing_truncated_or_other_file_is_refused(tmp_path, content):
    path = tmp_path / "a.pkl"
    assert "No such file" in refused(lambda: source(path), path)
    data = pickle.dumps(content, protocol=4)
    for part in (b"", b"abc", data[:-1], data[:-2000], data[:100]):
        path.write_bytes(part)
        refused(lambda: source(path), path)
    save(tmp_path / "b.pkl", content)
    assert "2 files" in refused(lambda: source(tmp_path), tmp_path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_mutants_are_refused_or_read(tmp_path, rng, protocol):
    names = ("S001C001P001R001A001", "S001C002P002R001A002")
    entries = [annotation(rng, name, 1, frames) for name, frames in zip(names, (1, 40))]
    content = {"split": {"xsub_train": [names[0]], "xsub_val": [names[1]]}, "annotations": entries}
    data = pickle.dumps(content, protocol=protocol)
    small = 700  # most of it are coordinates; damage the machinery too
    parsed = 0

    def check(damaged: bytes) -> None:
        nonlocal parsed
        path = tmp_path / "a.pkl"
        path.write_bytes(damaged)
        try:
            reader = source(path)
            found = [reader.read(item) for item in reader.items()]
            reader.splits({"clip": np.array([r.name for r in found])})
        except LeftOut:
            return
        except BadInput as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
            return
        parsed += 1
        assert {len(r.joints) for r in found} <= {1, 40}

    fuzz(data, check, 100)
    fuzz(data[:small], lambda head: check(head + data[small:]), 250, start=1)
    assert 10 < parsed < 350
