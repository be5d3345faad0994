"""Recordings that cannot be used are named with their place and reason."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skeletons.clips import fingerprint, open_store
from skeletons.errors import BadInput
from skeletons.preparing import Order, prepare
from skeletons.recordings import SOURCES, Recording, Source
from skeletons.topology import KINECT_V2
from skeletons.writing import UNKNOWN
from tests.skeletons import ntu_files as ntu
from tests.skeletons.prepared import order


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_damaged_file_stops_or_all_are_listed(damaged, tmp_path, small_chunks, workers):
    with pytest.raises(BadInput, match=r"S001C002P005R001A002.skeleton, line \d+: ends in frame"):
        prepare(order(damaged, tmp_path / "a", workers=workers))
    assert not (tmp_path / "a").exists()
    report = prepare(order(damaged, tmp_path / "a", on_error="report"))
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
