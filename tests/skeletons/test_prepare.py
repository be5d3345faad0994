"""Recordings become an archive, in whatever chunks they are read, and a report says what became of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skeletons import prepare as command
from skeletons.clips import fingerprint, open_store, write_store
from skeletons.errors import BadInput
from skeletons.preparing import prepare
from skeletons.recordings import LeftOut
from skeletons.sources import DataConfig, open_clips
from skeletons.sources.ntu_skeleton import Ntu60, Options
from skeletons.splits import split
from skeletons.topology import KINECT_V2
from skeletons.writing import StoreWriter
from tests.skeletons import ntu_files as ntu
from tests.skeletons.prepared import content, order


def test_the_archive_is_what_write_store_makes_of_the_same_clips(raw, whole, tmp_path):
    source = Ntu60(raw, Options())
    found = []
    for item in source.items():
        try:
            found.append(source.read(item))
        except LeftOut:
            continue
    arrays: dict[str, Any] = {
        "joints": np.concatenate([r.joints for r in found]),
        "offsets": np.concatenate([[0], np.cumsum([len(r.joints) for r in found])]),
        "label": np.array([r.label for r in found]),
        "clip": np.array([r.name for r in found]),
        "class_names": np.array(source.class_names),
        **{c: np.array([r.columns[c] for r in found]) for c in ("camera", "repetition", "setup", "subject")},
    }
    arrays |= source.splits(arrays)
    about = {k: v for k, v in json.loads(whole["meta.json"]).items() if k in ("name", "source", "chiral", "notes")}
    write_store(tmp_path / "store", arrays, KINECT_V2, about)
    assert (tmp_path / "store" / "frames.npy").read_bytes() == whole["frames.npy"]
    assert (tmp_path / "store" / "observed.npy").read_bytes() == whole["observed.npy"]
    ours = json.loads(whole["meta.json"])
    assert ours == json.loads((tmp_path / "store" / "meta.json").read_text())
    assert ours["fingerprint"] == fingerprint(arrays["joints"], arrays["offsets"], arrays["label"])
    (tmp_path / "again").mkdir()
    for name, data in whole.items():
        (tmp_path / "again" / name).write_bytes(data)
    one, other = open_store(tmp_path / "store"), open_store(tmp_path / "again")
    for key in ("offsets", "origin", "present", "bridged"):
        np.testing.assert_array_equal(getattr(one, key), getattr(other, key))
    assert one.table.keys() == other.table.keys()
    for key, column in one.table.items():
        np.testing.assert_array_equal(column, other.table[key])
    np.testing.assert_array_equal(other.tracking, np.concatenate([r.tracking for r in found]))


@pytest.mark.parametrize("name", ["archive", "ntu60"])
def test_it_opens_where_it_lies_with_its_splits(raw, tmp_path, name):
    prepare(order(raw, tmp_path / "a"))
    clips = open_clips(DataConfig(name=name, file=str(tmp_path / "a"), cache=str(tmp_path / "cache")))
    assert not (tmp_path / "cache").exists()
    assert isinstance(clips.frames, np.memmap)
    assert Path(clips.frames.filename).parent == tmp_path / "a"
    assert clips.name == "ntu60"
    assert clips.fingerprint == json.loads((tmp_path / "a" / "report.json").read_text())["fingerprint"]
    subjects = clips.table["subject"]
    assert sorted(subjects[split(clips, "xsub").train]) == [1, 2, 4, 5, 8, 9]
    assert set(clips.table["camera"][split(clips, "xview").test]) == {1}
    assert clips.names(np.arange(2)) == sorted(clips.names(np.arange(11)))[:2]


def test_it_is_not_opened_as_another_set_or_when_damaged(raw, tmp_path):
    out = tmp_path / "a"
    prepare(order(raw, out))
    with pytest.raises(BadInput, match="holds ntu60, not ntu120; open it with data=archive or data=ntu60"):
        open_clips(DataConfig(name="ntu120", file=str(out)))
    for name in ("frames.npy", "table.npz", "observed.npy"):
        data = (out / name).read_bytes()
        (out / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(BadInput, match=f"{out}: the archive is damaged .*make it again"):
            open_clips(DataConfig(name="archive", file=str(out)))
        (out / name).write_bytes(data)
    meta = json.loads((out / "meta.json").read_text())
    (out / "meta.json").write_text(json.dumps(meta | {"version": 1}))
    with pytest.raises(BadInput, match="written by version 1 of the clip store"):
        open_clips(DataConfig(name="archive", file=str(out)))
    (out / "meta.json").unlink()
    with pytest.raises(BadInput, match="is no prepared archive"):
        open_clips(DataConfig(name="archive", file=str(out)))


def test_the_report_says_what_was_kept_repaired_and_left_out(whole):
    report = json.loads(whole["report.json"])
    assert report["kept"] == 11
    assert report["left_out"] == [
        {"name": f"{ntu.name(11)}.skeleton", "reason": "no frames"},
        {"name": "S001C002P005R002A008.skeleton", "reason": "on the list of missing or incomplete skeletons"},
    ]
    assert report["damaged"] == []
    assert report["repaired"] == {"dropped N frames without a body": {"clips": 1, "sum": 4}}
    assert report["sizes"]["xsub"] == {"train": 6, "test": 5, "published": [40091, 16487]}
    assert report["options"]["length_filter"] is True


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_chunks_do_not_change_a_byte(raw, whole, tmp_path, small_chunks, workers):
    prepare(order(raw, tmp_path / "a", workers=workers))
    assert content(tmp_path / "a") == whole
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


# --- The writer ---


def test_memory_does_not_grow_with_what_is_written(tmp_path):
    joints = np.tile(ntu.person(1000, 1)[:, None], (1, 2, 1, 1))  # 600 kB, and its gaps several times that
    peaks = []
    with StoreWriter(tmp_path, KINECT_V2, 2) as writer:
        for times in (5, 40):
            tracemalloc.start()
            for _ in range(times):
                writer.add(joints, [400, 600])
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert (tmp_path / "frames.npy").stat().st_size > 27_000_000
    assert peaks[1] < peaks[0] + 200_000


# --- The command ---


def test_the_command_prints_its_report(raw, tmp_path, capsys):
    assert command.main(["source=ntu60", f"raw={raw}", f"out={tmp_path / 'a'}", "workers=1", "centre=true"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "13 of 13 items read",
        "kept       11 clips, 180 frames",
        "repaired   1 clips: dropped N frames without a body (N: 4 in all)",
        "left out   1: no frames: S001C001P011R001A001.skeleton",
        "left out   1: on the list of missing or incomplete skeletons: S001C002P005R002A008.skeleton",
        "damaged    none",
        "split      xsub: 6 training and 5 test clips; published: 40,091 and 16,487: NOT THE SAME",
        "centre=True",
        f"open it    data=archive data.file={tmp_path / 'a'}",
    ):
        assert words in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say what to read with source=NAME; known: .*ntu120, ntu60"),
        (["source=ntu"], "unknown source 'ntu'; did you mean 'ntu60'"),
        (["source=ntu60"], "source=ntu60: say where the recordings lie with raw=DIR"),
        (["source=ntu60", "raw=."], "say where to put the archive, out=PATH"),
        (["source=ntu60", "raw=gone", "out=a"], "gone: no such folder"),
        (["source=ntu60", "raw=.", "out=a", "workers=0"], "workers=0: give a number of processes"),
        (["source=ntu60", "raw=.", "out=a", "on_error=ignore"], "unknown on_error 'ignore'"),
        (["source=ntu60", "raw=.", "out=a", "lenght_filter=true"], "did you mean 'length_filter'"),
        (["source=ntu60", "raw=.", "out=a", "merge=maybe"], "merge=maybe: give true or false"),
        (["source=ntu60", "raw=.", "raw=.."], "raw is given twice"),
        (["ntu60"], "write arguments as NAME=VALUE"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=words):
        command.main(arguments)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(BadInput, match=f"{tmp_path}: no recordings of source=ntu60 in there"):
        command.main(["source=ntu60", f"raw={tmp_path}", f"out={tmp_path / 'a'}"])


def test_the_options_are_listed(capsys):
    assert command.main(["source=ntu60", "help=true"]) == 0
    printed = capsys.readouterr().out
    assert "spread_filter=True" in printed
    assert "missing: recordings to leave out" in printed


def test_status_2_and_one_line_for_a_damaged_file(damaged, tmp_path):
    line = [sys.executable, "-m", "skeletons.prepare", "source=ntu60", f"raw={damaged}", f"out={tmp_path / 'a'}"]
    done = subprocess.run([*line, "workers=1"], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
