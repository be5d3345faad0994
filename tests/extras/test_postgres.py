"""The queue in a real PostgreSQL server, and at the size that the short tests leave out."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest

from skeletons.errors import BadInput
from sweeps import run
from sweeps.records import Records
from sweeps.supervise import run_all
from sweeps.work_queue import Address, Queue
from tests.sweeps.pulling import executed, lose_a_worker, noting, trivial

# A queue is open for as long as its process lives; here many are opened in one.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Queues that are left are collected here, not in the middle of some other test, which would be told of them."""
    yield
    gc.collect()


@pytest.fixture(params=["journal", "postgresql"])
def address(request, tmp_path) -> Address:
    storage = "journal" if request.param == "journal" else request.getfixturevalue("postgres")
    return Address(storage, str(tmp_path), tmp_path / "studies" / "trivial.log")


@pytest.fixture
def remote(postgres, tmp_path) -> Address:
    return Address(postgres, str(tmp_path), tmp_path / "none", grace=3)


def all_done(address, tmp_path, cells, workers):
    launcher = noting(address, tmp_path)
    return list(run_all(Queue(address), trivial(cells), Records(tmp_path), launcher, workers, limit=3))


def test_each_of_200_pieces_is_executed_once_by_16_workers(address, tmp_path):
    began = time.monotonic()
    all_done(address, tmp_path, cells=200, workers=16)
    print(f"{address.storage.partition(':')[0]}: {(time.monotonic() - began) / 200:.3f} s a piece")
    assert executed(tmp_path) == {f"cell{n}": 1 for n in range(200)}
    queue = Queue(address)
    assert len(queue.trials("COMPLETE")) == 200 and not queue.trials("WAITING", "RUNNING", "FAIL")


def test_a_worker_of_this_machine_that_dies_gives_its_piece_back_at_once(postgres, tmp_path):
    address = Address(postgres, str(tmp_path), tmp_path / "none", grace=600)
    (tmp_path / "kill-cell1").write_text("x")
    events = all_done(address, tmp_path, cells=3, workers=2)
    assert executed(tmp_path) == {"cell0": 1, "cell1": 2, "cell2": 1}
    assert sum(kind == "given back" for kind, *_ in events) == 1


def test_a_worker_elsewhere_whose_heart_stops_loses_its_piece(remote, tmp_path):
    queue = Queue(remote)
    queue.enqueue(trivial(2))
    lose_a_worker(remote)
    assert queue.give_back(3, lambda work: 0) == [], "it may still live"
    all_done(remote, tmp_path, cells=2, workers=1)
    assert executed(tmp_path) == {"cell0": 1, "cell1": 1}


def test_a_worker_elsewhere_whose_heart_beats_is_left_alone(remote):
    queue = Queue(remote)
    queue.enqueue(trivial(1))
    with Queue(remote).next() as claim:
        assert claim is not None
        time.sleep(2 * remote.grace)
        assert queue.give_back(3, lambda work: 0) == []
    time.sleep(remote.grace + 1)
    assert [lost for _, lost in queue.give_back(3, lambda work: 0)] == [1]


def test_the_command_runs_on_it(postgres, tiny, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SKELBENCH_OUT", str(tmp_path / "out"))
    line = [*tiny, "method=untrained", "protocol=retrieval", f"storage={postgres}", "ablation.floors=false"]
    assert run.main(line) == 0
    assert "1 pieces: 0 were there, 1 done now" in capfd.readouterr().out
    assert not list((tmp_path / "runs" / "studies").glob("*.log"))
    (config,) = (tmp_path / "runs").glob("*/config.yaml")
    assert "postgresql" not in config.read_text(), "where the queue lay is no part of a run"


def test_a_server_that_does_not_answer_is_named_in_one_line(tmp_path):
    with pytest.raises(BadInput, match=r"storage=postgresql://x@127.0.0.1:1/x: .*refused"):
        Queue(Address("postgresql://x@127.0.0.1:1/x", "x", tmp_path / "none"))
