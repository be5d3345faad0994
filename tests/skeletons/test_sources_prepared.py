"""Each source goes through the preparation: read by workers, reported, opened as clips with its splits."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skeletons import preparing
from skeletons.errors import BadInput
from skeletons.preparing import Order, prepare
from skeletons.recordings import all_sources
from skeletons.sources import DataConfig, open_clips
from skeletons.splits import split
from tests.skeletons import test_folder, test_nwucla_json, test_pkummd, test_pyskl, test_sbu_text, test_utdmhad_mat

NAMES = ("folder", "nwucla_json", "pkummd", "pyskl", "sbu_text", "utdmhad_mat")


def prepared(name: str, raw: Path, **more: Any) -> tuple[dict[str, Any], Any]:
    kind = all_sources()[name]
    out = raw.parent / f"{name}.clips"
    report = prepare(Order(kind(raw, kind.Options()), out, **more))
    return report, open_clips(DataConfig(name="archive", file=str(out)))


def test_all_are_known():
    assert set(NAMES) <= set(all_sources())


def test_pyskl_is_read_by_workers(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(preparing, "CHUNK", 2)
    names = [f"S001C{i % 3 + 1:03d}P{i + 1:03d}R001A{i + 1:03d}" for i in range(6)]
    entries = [test_pyskl.annotation(rng, name, 1 + i % 2, 20 + i) for i, name in enumerate(names)]
    entries[3]["keypoint"][:] = 0
    content = {"split": {"xsub_train": names[:4], "xsub_val": names[4:]}, "annotations": entries}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=2))
    report, clips = prepared("pyskl", tmp_path / "a.pkl", workers=2)
    assert report["sizes"]["xsub"] == {"train": 3, "test": 2, "published": [40_091, 16_487]}
    assert [row["reason"] for row in report["left_out"]] == ["nobody is seen in it"]
    assert clips.table["subject"].tolist() == [1, 2, 3, 5, 6]
    assert split(clips, "xsub").train.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(clips.frames[clips.offsets[1] : clips.offsets[2], 1], entries[1]["keypoint"][1])


def test_pkummd_goes_on_after_a_damaged_action(tmp_path, rng):
    raw = tmp_path / "pku"
    raw.mkdir()
    values = test_pkummd.record(raw, rng, "0002-L", "12,3,9,2\n60,3,9,2\n51,10,20,1\n")
    test_pkummd.record(raw, rng, "0291-M", "1,0,20,2\n")
    report, clips = prepared("pkummd", raw, on_error="report")
    assert clips.table["clip"].tolist() == ["0002-L_001", "0002-L_003", "0291-M_001"]
    assert "line 2: action 60 is unknown" in report["damaged"][0]["reason"]
    assert split(clips, "xsub").test.tolist() == [2]
    assert split(clips, "xview").train.tolist() == [2]
    np.testing.assert_array_equal(clips.original()[:6], values[3:9].astype(np.float32))


@pytest.mark.parametrize("name", ["folder", "pkummd"])
def test_a_changed_description_is_noticed(tmp_path, rng, name):
    raw = tmp_path / "raw"
    raw.mkdir()
    if name == "folder":
        test_folder.describe(raw, "a.npy,sit,1,1,1\nb.npy,sit,2,1,0\n")
        for clip in "ab":
            np.save(raw / f"{clip}.npy", rng.normal(0, 1, (5, 6, 3)))
    else:
        test_pkummd.record(raw, rng)
        test_pkummd.record(raw, rng, "0003-L")
        (raw / "cross-subject.txt").write_text("Training videos: \n0002-L, \nValidation videos: \n0003-L, \n")
    report, _ = prepared(name, raw)
    assert prepared(name, raw)[0]["there_already"]
    assert report["sizes"]["xsub"]["train"] == report["sizes"]["xsub"]["test"]
    if name == "folder":
        test_folder.describe(raw, "a.npy,sit,1,1,1\nb.npy,sit,2,1,0\n", splits={"xsub": {"subject": [2]}})
    else:
        (raw / "cross-subject.txt").write_text("Training videos: \n0003-L, \nValidation videos: \n0002-L, \n")
    with pytest.raises(BadInput, match="from other recordings or options"):
        prepared(name, raw)


@pytest.mark.parametrize("name", ["sbu_text", "nwucla_json", "utdmhad_mat"])
def test_small_sets_are_prepared(tmp_path, rng, name):
    raw = tmp_path / name
    raw.mkdir()
    if name == "sbu_text":
        for place in ("s01s02/01/001", "s01s03/08/001"):
            test_sbu_text.sequence(raw, rng.uniform((0, 0, 1), (1, 1.2, 2), (6, 2, 15, 3)), place)
    elif name == "nwucla_json":
        for view in (1, 2, 3):
            test_nwucla_json.clip(raw, rng.normal(0, 1, (5, 20, 3)).tolist(), f"a01_s01_e00_v0{view}")
    else:
        for subject in (1, 2, 3):
            test_utdmhad_mat.clip(raw, rng.normal(0, 1, (20, 3, 4)), f"a1_s{subject}_t1")
    _, clips = prepared(name, raw)
    rule = {"sbu_text": "fold:0", "nwucla_json": "xview", "utdmhad_mat": "xsub"}[name]
    assert split(clips, rule).test.tolist() == {"sbu_text": [0], "nwucla_json": [2], "utdmhad_mat": [1]}[name]
    assert clips.topology.name in ("openni", "kinect_v1")
