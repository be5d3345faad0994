"""Preparing that was stopped, killed or short of space goes on, and ends with the same bytes."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skeletons import prepare as command
from skeletons import preparing
from skeletons.errors import BadInput
from skeletons.preparing import Order, prepare
from skeletons.sources.ntu_skeleton import Ntu60, Options
from tests.skeletons import ntu_files as ntu
from tests.skeletons.prepared import content, order


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
