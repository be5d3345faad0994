"""The queue: each piece is taken by one worker only, and what a dead worker had taken is done by another."""

from __future__ import annotations

import os
import time

import pytest

from skeletons.errors import BadInput
from sweeps.composing import compose
from sweeps.launchers import check_launch
from sweeps.records import Records
from sweeps.storage import check_storage, open_storage, take
from sweeps.supervise import run_all
from sweeps.work_queue import Address, Queue
from sweeps.workers import worker_count
from tests.sweeps.pulling import executed, lose_a_worker, noting, trivial


@pytest.fixture
def address(tmp_path) -> Address:
    return Address("journal", "trivial", tmp_path / "studies" / "trivial.log")


def run(address, tmp_path, works, workers, limit=3):
    launcher = noting(address, tmp_path)
    return list(run_all(Queue(address), works, Records(tmp_path), launcher, workers, limit))


def test_each_of_forty_pieces_is_executed_once_by_four_workers(address, tmp_path):
    events = run(address, tmp_path, trivial(40), workers=4)
    assert executed(tmp_path) == {f"cell{n}": 1 for n in range(40)}
    assert sorted(key for kind, key, _ in events if kind == "finished") == sorted(w.key for w in trivial(40))
    assert not Queue(address).trials("WAITING", "RUNNING", "FAIL")


def test_a_worker_that_dies_gives_its_piece_back_within_the_command(address, tmp_path):
    (tmp_path / "kill-cell1").write_text("x")
    events = run(address, tmp_path, trivial(3), workers=1)
    assert executed(tmp_path) == {"cell0": 1, "cell1": 2, "cell2": 1}
    (back,) = [details for kind, _, details in events if kind == "given back"]
    assert back["cell"] == "cell1" and "SIGKILL" in back["reason"]
    assert sum(kind == "finished" for kind, *_ in events) == 3


def test_a_piece_that_keeps_killing_its_worker_is_recorded_as_failed(address, tmp_path, monkeypatch):
    (tmp_path / "kill-cell1").write_text("xxxxx")
    monkeypatch.setattr(Records, "complete", lambda *_: False)
    events = run(address, tmp_path, trivial(3), workers=2, limit=2)
    assert executed(tmp_path) == {"cell0": 1, "cell1": 2, "cell2": 1}
    assert [key.partition("/")[0] for kind, key, _ in events if kind == "failed"] == ["cell1"]
    assert "lost its worker 2 times (killed by SIGKILL" in Records(tmp_path).failure("run1")["reason"]


def test_what_a_killed_sweep_had_taken_is_not_held_against_it(address, tmp_path):
    """The command itself was killed: its pieces are free at once, and have lost nothing."""
    queue = Queue(address)
    queue.enqueue(trivial(2))
    lose_a_worker(address)
    assert len(queue.trials("RUNNING")) == 1
    run(address, tmp_path, trivial(2), workers=1)
    assert executed(tmp_path) == {"cell0": 1, "cell1": 1}
    assert [trial.user_attrs["lost"] for trial in queue.trials("COMPLETE")] == [0, 0]


def test_what_somebody_alive_has_taken_is_left_to_him(address, tmp_path):
    mine, other = Queue(address), Queue(address)
    mine.enqueue(trivial(1))
    with mine.next() as claim:
        assert claim is not None and claim.work == trivial(1)[0]
        assert other.give_back(3, lambda work: 0) == []
        other.enqueue(trivial(1))
        assert not other.trials("WAITING")
    assert [(work.cell, lost) for work, lost in other.give_back(3, lambda work: 0)] == [("cell0", 1)]
    assert other.give_back(3, lambda work: 0) == [], "given back once"


def test_a_piece_that_gets_further_may_lose_its_worker_again_and_again(address):
    queue, steps = Queue(address), 0
    queue.enqueue(trivial(1))
    for steps in (1, 2, 3, 4):
        with queue.next():
            pass
        assert queue.give_back(2, lambda work, steps=steps: steps)[0][1] == 1
    with queue.next():
        pass
    assert queue.give_back(2, lambda work: 4)[0][1] == 2 and not queue.trials("WAITING")


def test_half_a_line_in_the_journal_is_cut_off(address):
    queue = Queue(address)
    queue.enqueue(trivial(1))
    with open(address.journal, "ab") as file:
        file.write(b'{"op_code": 4, "half')
    Queue(address).enqueue(trivial(2))
    assert len(queue.trials("WAITING")) == 2


def test_what_an_earlier_version_had_enqueued_is_enqueued_again(address, tmp_path):
    """Its pieces were described with their trials; nobody may stumble over them."""
    older = Queue(address)
    for work in trivial(2):
        older.study.enqueue_trial({"cell": work.cell}, user_attrs={"key": work.key, "config": "..."})
    older.study.ask()  # and its worker is gone
    run(address, tmp_path, trivial(3), workers=1)
    assert executed(tmp_path) == {f"cell{n}": 1 for n in range(3)}
    assert not Queue(address).trials("WAITING", "RUNNING")


def test_the_lock_of_a_killed_writer_is_free_at_once(address):
    Queue(address)
    fd = take(address.journal, 0)
    assert fd is not None and take(address.journal, 0) is None
    os.close(fd)
    began = time.monotonic()
    Queue(address).enqueue(trivial(1))
    assert time.monotonic() - began < 5


def test_a_damaged_journal_is_named_with_the_remedy(address):
    address.journal.parent.mkdir()
    address.journal.write_text("not JSON\n{}\n")
    with pytest.raises(BadInput, match=r"trivial.log: damaged .* remove it and run again"):
        open_storage("journal", address.journal)


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("sqlite:///x.db", "two workers can take the same piece"),
        ("jurnal", "known are journal and postgresql"),
        ("postgresql://me:secret@host/db", "leave the password in PGPASSWORD"),
        ("postgresql://me@host/db?password=secret", "leave the password in PGPASSWORD"),
    ],
)
def test_other_storages_are_refused(storage, message):
    with pytest.raises(BadInput, match=message) as refused:
        check_storage(storage)
    assert "secret" not in str(refused.value)


def test_a_full_disk_stops_the_sweep_and_is_nobodys_failure(address, tmp_path, monkeypatch):
    from sweeps import workers
    from sweeps.workers import ThisProcess

    def full(work, records, report):
        with records.failing(work.pretraining):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(workers, "execute", full)
    with pytest.raises(BadInput, match="the disk is full; free some space, then the same command goes on"):
        list(run_all(Queue(address), trivial(3), Records(tmp_path), ThisProcess(address, tmp_path), 1, 3))
    assert not list(tmp_path.rglob("failure.json"))
    assert not Queue(address).trials("FAIL"), "the piece waits to go on"


def test_gpus_are_handed_out_round_robin(monkeypatch):
    import torch

    from sweeps.workers import take_gpu

    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for slot, device in enumerate(("auto", "cuda", "auto", "cuda:0", "cpu", "cuda")):
        take_gpu(slot, device)
    assert taken == [0, 1, 2, 1]
    for slot in range(3):
        take_gpu(slot, "cuda", ranks=2)
    assert taken[4:] == [0, 2, 0], "each training has two of the four"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for slot in range(2):
        take_gpu(slot, "cuda", ranks=2)
    assert taken[7:] == [0, 0], "the third cannot hold a training of two"


@pytest.mark.parametrize(
    ("asked", "works", "count"),
    [
        (["workers=3"], 9, 3),
        (["workers=3"], 2, 2),
        (["workers=0", "threads=1"], 9, 4),
        (["workers=0", "threads=2"], 9, 2),
        (["workers=0", "threads=1", "ranks=2"], 9, 2),
        (["workers=0", "launcher=slurm"], 9, 9),
        (["workers=0", "threads=1"], 0, 1),
    ],
)
def test_there_are_as_many_workers_as_work_and_machine_allow(asked, works, count, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    assert worker_count(compose([*asked, "device=cpu"]), works) == count


def test_a_cluster_gives_each_rank_its_gpu():
    with pytest.raises(BadInput, match=r"launch\.gpus=1 must be at least ranks=2"):
        check_launch(compose(["launcher=slurm", "launch.gpus=1", "ranks=2"]))


def test_a_run_that_only_gets_a_newer_checkpoint_has_got_further(tmp_path):
    records = Records(tmp_path)
    assert records.progress("a") == 0
    folder = records.run("a")
    folder.mkdir()
    places = [folder / "checkpoint.pt", records.encoder("a"), records.result_file("a", "j")]
    before = 0
    for number, path in enumerate(places, 1):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, ns=(number, number))
        assert records.progress("a", ["j"]) > before
        before = records.progress("a", ["j"])
    os.utime(places[0], ns=(9, 9))
    assert records.progress("a", ["j"]) == 9
