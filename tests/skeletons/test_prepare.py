"""Recordings become an archive: the same bytes however often it was interrupted, and everything left out is named."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skeletons import prepare as command
from skeletons import preparing
from skeletons.clips import fingerprint, open_store, write_store
from skeletons.errors import BadInput
from skeletons.preparing import Order, prepare
from skeletons.recordings import SOURCES, LeftOut, Recording, Source
from skeletons.sources import DataConfig, open_clips
from skeletons.sources.ntu_skeleton import Ntu60, Options
from skeletons.splits import split
from skeletons.topology import KINECT_V2
from skeletons.writing import UNKNOWN, StoreWriter
from tests.skeletons import ntu_files as ntu

FILES = ("frames.npy", "observed.npy", "tracking.npy", "table.npz", "meta.json", "report.json")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirteen recordings of up to 21 frames: one on the list, one without frames, one that was lost and found."""
    folder = tmp_path_factory.mktemp("ntu")
    for n in range(10):
        frames = 12 + n
        people = [(ntu.FIRST_ID, range(frames), ntu.person(frames, n))]
        if n % 4 == 3:
            people.append((ntu.FIRST_ID + 1, range(frames), ntu.person(frames, 50 + n, x=1)))
        ntu.write(folder / f"part{n % 2}", ntu.name(1 + n, 1 + n % 3, camera=1 + n % 3), ntu.scene(frames, *people))
    ntu.write(folder, "S001C002P005R002A008", [])
    ntu.write(folder, ntu.name(11), [])
    lost = ntu.scene(19, (ntu.FIRST_ID, [*range(6), *range(10, 19)], ntu.person(15, 60)))
    ntu.write(folder, ntu.name(12), lost)
    return folder


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "CHUNK", 2)


def order(raw: Path, out: Path, **more: Any) -> Order:
    return Order(Ntu60(raw, Options()), out, **more)


def content(archive: Path) -> dict[str, bytes]:
    assert sorted(p.name for p in archive.iterdir()) == sorted(FILES)
    return {name: (archive / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed call writes."""
    out = tmp_path_factory.mktemp("whole") / "a"
    prepare(order(raw, out))
    return content(out)


# --- The archive ---


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


# --- Interruptions ---


def stopped_after(raw: Path, out: Path, items: int) -> None:
    def advance(done: int, _total: int) -> None:
        if done >= items:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(order(raw, out, advance=advance))
    assert not out.exists()


def undisturbed(raw: Path, out: Path) -> dict[str, bytes]:
    prepare(order(raw, out))
    return content(out)


@pytest.mark.parametrize("items", [2, 8, 13])
def test_a_second_call_goes_on_and_gives_the_same_bytes(raw, whole, tmp_path, small_chunks, items):
    stopped_after(raw, tmp_path / "a", items)
    said: list[str] = []
    prepare(order(raw, tmp_path / "a", say=said.append))
    assert said == [f"going on after {items} of 13 items that an earlier call read"]
    assert content(tmp_path / "a") == whole
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def harm_frames(partial: Path) -> None:
    with (partial / "archive" / "frames.npy").open("r+b") as file:
        file.seek(9000)
        file.write(b"\xff\xff")


def cut_frames(partial: Path) -> None:
    with (partial / "archive" / "frames.npy").open("r+b") as file:
        file.truncate(20_000)


def cut_journal(partial: Path) -> None:
    data = (partial / "journal.jsonl").read_bytes()
    (partial / "journal.jsonl").write_bytes(data[:-40])


def more_frames(partial: Path) -> None:
    (partial / "archive" / "frames.wide").write_bytes(b"half of a file that was being made wider")
    for name in ("frames.npy", "observed.npy"):
        with (partial / "archive" / name).open("ab") as file:
            file.write(b"torn off")


@pytest.mark.parametrize("harm", [harm_frames, cut_frames, cut_journal, more_frames])
def test_what_does_not_agree_on_disk_is_made_again(raw, whole, tmp_path, small_chunks, harm):
    stopped_after(raw, tmp_path / "a", 8)
    harm(tmp_path / ".a.partial")
    prepare(order(raw, tmp_path / "a"))
    assert content(tmp_path / "a") == whole


def test_another_plan_or_another_file_is_not_mixed_in(raw, tmp_path, small_chunks):
    folder = tmp_path / "raw"
    shutil.copytree(raw, folder)
    stopped_after(folder, tmp_path / "a", 8)
    path = folder / "part0" / f"{ntu.name(5, 2, camera=2)}.skeleton"
    ntu.write(path.parent, path.stem, ntu.scene(9, (ntu.FIRST_ID, range(9), ntu.person(9, 99))))
    said: list[str] = []
    prepare(order(folder, tmp_path / "a", say=said.append))
    assert said == ["going on after 6 of 13 items that an earlier call read"]
    assert content(tmp_path / "a") == undisturbed(folder, tmp_path / "b")
    stopped_after(folder, tmp_path / "c", 8)
    prepare(Order(Ntu60(folder, Options(missing="none")), tmp_path / "c", say=said.append))
    assert said[-1] == "an earlier call had other options: beginning anew"


def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(tmp_path):
    """SIGKILL in the middle, workers and all; a second call ends with the bytes of an undisturbed one."""
    folder = tmp_path / "raw"
    ntu.collection(folder, 160, frames=12)
    line = [sys.executable, "-m", "skeletons.prepare", "source=ntu60", f"raw={folder}", "workers=2"]
    process = subprocess.Popen([*line, f"out={tmp_path / 'a'}"], stdout=subprocess.DEVNULL)
    journal, deadline = tmp_path / ".a.partial" / "journal.jsonl", time.monotonic() + 60
    while not (journal.is_file() and journal.stat().st_size) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "a").exists()
    said: list[str] = []
    prepare(order(folder, tmp_path / "a", say=said.append))
    assert "going on after" in said[0]
    assert content(tmp_path / "a") == undisturbed(folder, tmp_path / "b")
    children = subprocess.run(["ps", "-o", "pid", "--ppid", str(process.pid)], capture_output=True, text=True).stdout
    assert len(children.split()) == 1  # the heading


@pytest.mark.parametrize("space", [3_000, 60_000])
def test_a_full_disk_is_one_line_and_a_second_call_goes_on(raw, whole, tmp_path, small_chunks, space):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (space, hard))
    try:
        with pytest.raises(BadInput, match=f"{tmp_path / 'a'}: the disk is full; .*the same command goes on"):
            prepare(order(raw, tmp_path / "a"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "a").exists()
    prepare(order(raw, tmp_path / "a"))
    assert content(tmp_path / "a") == whole


def test_two_processes_do_not_write_one_archive(raw, tmp_path):
    with preparing._partial(tmp_path / "a"), pytest.raises(BadInput, match="another process is preparing it"):
        prepare(order(raw, tmp_path / "a"))


def test_a_second_call_reads_nothing(raw, tmp_path, capsys, monkeypatch):
    line = ["source=ntu60", f"raw={raw}", f"out={tmp_path / 'a'}", "workers=1"]
    assert command.main(line) == 0
    capsys.readouterr()
    monkeypatch.setattr(Ntu60, "read", None)
    assert command.main(line) == 0
    printed = capsys.readouterr().out
    assert "is there already, from the same recordings and options" in printed
    assert "kept       11 clips" in printed
    with pytest.raises(BadInput, match="is there already, from other recordings or options"):
        command.main([*line, "missing=none"])
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="is no prepared archive; choose another"):
        command.main([*line[:2], f"out={tmp_path / 'file'}"])


# --- Damaged recordings ---


@pytest.fixture
def damaged(raw: Path, tmp_path: Path) -> Path:
    """The recordings, with one cut short and one whose name another has."""
    folder = tmp_path / "raw"
    shutil.copytree(raw, folder)
    path = folder / "part0" / f"{ntu.name(5, 2, camera=2)}.skeleton"
    path.write_bytes(path.read_bytes()[:5000])
    shutil.copy(folder / "part1" / f"{ntu.name(8, 2, camera=2)}.skeleton", folder / "part0")
    return folder


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_damaged_file_stops_or_all_are_listed(damaged, tmp_path, small_chunks, workers):
    with pytest.raises(BadInput, match=r"S001C002P005R001A002.skeleton, line \d+: ends in frame"):
        prepare(order(damaged, tmp_path / "a", workers=workers))
    assert not (tmp_path / "a").exists()
    report = prepare(order(damaged, tmp_path / "a", workers=workers, on_error="report"))
    files = [row["file"] for row in report["damaged"]]
    assert files == [f"part0/{ntu.name(5, 2, camera=2)}.skeleton", f"part1/{ntu.name(8, 2, camera=2)}.skeleton"]
    assert "a clip named S001C002P008R001A002 came from part0/" in report["damaged"][1]["reason"]
    assert report["kept"] == 10
    assert len(open_store(tmp_path / "a")) == 10


def test_stop_after_report_still_stops(damaged, tmp_path, small_chunks):
    def advance(done: int, _total: int) -> None:
        if done >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(order(damaged, tmp_path / "a", on_error="report", advance=advance))
    with pytest.raises(BadInput, match="ends in frame"):
        prepare(order(damaged, tmp_path / "a"))


def test_nothing_left_is_an_error_that_says_why(tmp_path):
    ntu.write(tmp_path / "raw", ntu.name(1), [])
    with pytest.raises(BadInput, match=r"nothing is left of 1 items; the first, S001.*: no frames"):
        prepare(order(tmp_path / "raw", tmp_path / "a"))
    assert not (tmp_path / "a").exists()


@dataclass
class NoOptions:
    """None."""


class Odd(Source):
    """Reads whatever a test gives it."""

    Options = NoOptions
    name = "odd for tests"
    topology, class_names, fps = KINECT_V2, ("a", "b"), 30.0

    def __init__(self, raw: Path, found: list[Recording]):
        super().__init__(raw, NoOptions())
        self.found = found

    def items(self) -> list[Any]:
        return [(self.raw / "file", n) for n in range(len(self.found))]

    def read(self, item: Any) -> Recording:
        return self.found[item[1]]


class Dying(Odd):
    """Its workers are killed, as for lack of memory."""

    name = "dying for tests"

    def read(self, item: Any) -> Recording:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


for cls in (Odd, Dying):
    del SOURCES[cls.name]


def test_a_worker_that_is_killed_is_one_line(tmp_path, small_chunks):
    source = Dying(tmp_path, [recording("a"), recording("b"), recording("c")])
    with pytest.raises(BadInput, match="a worker was killed, perhaps for lack of memory; the same command goes on"):
        prepare(Order(source, tmp_path / "a", workers=2))
    assert not (tmp_path / "a").exists()


def recording(name: str = "x", frames: int = 5, persons: int = 1, label: int = 0, **more: Any) -> Recording:
    joints = np.stack([ntu.person(frames, 3 + p, x=p) for p in range(persons)], 1)
    return Recording(name, more.pop("joints", joints), label, more.pop("columns", {}), **more)


def with_value(value: float) -> np.ndarray:
    joints = recording().joints.copy()
    joints[3, 0, 2, 1] = value
    return joints


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (recording(joints=with_value(np.nan)), "clip x has a coordinate that is not a number in frame 3"),
        (recording(joints=with_value(np.inf)), "not a number in frame 3"),
        (recording(joints=recording().joints[:, :, :20]), r"joints of shape \(5, 1, 20, 3\), expected"),
        (recording(joints=recording().joints[:0]), "clip x has no frames"),
        (recording(joints=0 * recording().joints), "clip x shows nobody"),
        (recording(label=2), "clip x has label 2, outside the 2 classes 0-1"),
        (recording(tracking=np.zeros((5, 2, 25), np.uint8)), r"tracking of shape \(5, 2, 25\)"),
    ],
)
def test_what_a_source_gives_is_checked(tmp_path, bad, words):
    with pytest.raises(BadInput, match=words) as caught:
        prepare(Order(Odd(tmp_path, [bad]), tmp_path / "a"))
    assert str(caught.value).startswith(str(tmp_path / "file"))


def test_persons_columns_and_tracking_may_differ_between_recordings(tmp_path, small_chunks):
    state = np.full((4, 2, 25), 1, np.uint8)
    found = [
        recording("a", 5, 1, columns={"subject": 3}),
        recording("b", 6, 1),
        recording("c", 4, 2, columns={"camera": 1}, tracking=state),
        recording("d", 3, 1),
    ]
    prepare(Order(Odd(tmp_path, found), tmp_path / "out"))
    clips = open_store(tmp_path / "out")
    assert clips.frames.shape == (18, 2, 25, 3)
    np.testing.assert_array_equal(clips.frames[:5, 0], found[0].joints[:, 0])
    np.testing.assert_array_equal(clips.frames[11:15], found[2].joints)
    np.testing.assert_array_equal(clips.present, [[1, 0], [1, 0], [1, 1], [1, 0]])
    assert clips.table["subject"].tolist() == [3, -1, -1, -1]
    assert clips.table["camera"].tolist() == [-1, -1, 1, -1]
    assert (clips.tracking[11:15] == 1).all()
    assert (clips.tracking[:11, 0] == UNKNOWN).all()
    joints = clips.original()
    assert clips.fingerprint == fingerprint(joints, clips.offsets, clips.labels)


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
