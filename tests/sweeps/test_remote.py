"""Records that travel over a tracking server; here over a database and a folder that stand for one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from reports.make import main as make
from skeletons.errors import BadInput
from sweeps import remote
from sweeps.config import Config
from sweeps.records import Records, write_json
from sweeps.remote import fetch, fetch_for_reports, identities_of, is_shared, pull, push, push_plan, shared
from sweeps.tracking import all_runs, experiment_called, open_client, shown_uri, tracking_uri
from sweeps.work_queue import Address, Queue
from sweeps.workers import pull as pull_work
from tests.sweeps.works import done, plan, work


@pytest.fixture(scope="module")
def server(tmp_path_factory, archive):
    """MLFLOW_TRACKING_URI of all tests, each of which has cells of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKELBENCH_CACHE", str(archive.parent / "cache"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('server') / 'mlflow.db'}")
        yield


@pytest.fixture
def machines(server, tmp_path):
    """Two that see no folder of each other's."""
    return Records(tmp_path / "a" / "runs"), Records(tmp_path / "b" / "runs")


def files(records, one):
    folder = records.run(one.pretraining)
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: content for name, content in found.items() if name != ".lock"}


def on_server(one):
    client = open_client(Records("unused").root)
    experiment = experiment_called(client, remote.EXPERIMENT)
    return client, [r for r in all_runs(client, experiment) if r.data.tags.get("identity") == one.pretraining]


def test_what_one_machine_did_arrives_byte_for_byte_and_a_table_is_made_of_it(machines, tmp_path, capsys):
    a, b = machines
    one = work("table")
    done(one, b)
    push(b, [one.pretraining])
    push_plan(b, plan("table", [one], b).stem)
    fetch_for_reports(a)
    without = {k: v for k, v in files(b, one).items() if k != "encoder.safetensors"}
    assert files(a, one) == without, "reports need no encoder"
    pull(a, [one.pretraining])
    assert files(a, one) == files(b, one)
    tables = []
    for records in machines:
        out = tmp_path / records.root.parent.name / "out"
        assert make([f"runs={records.root}", "plan=table", "records=mlflow", f"out={out}"]) == 0
        tables.append((out / "table.md").read_text())
    assert tables[0] == tables[1] and "| table | 75.0" in tables[0]


def test_what_was_half_sent_is_not_there_and_is_sent_again(machines, monkeypatch):
    a, b = machines
    one = work("half sent")
    done(one, b)
    with monkeypatch.context() as patch:
        patch.setattr(remote, "_sha256", lambda path: 1 / 0)  # killed between the files and their tags
        with pytest.raises(ZeroDivisionError):
            push(b, [one.pretraining])
    pull(a, [one.pretraining])
    assert files(a, one) == {}
    push(b, [one.pretraining])
    pull(a, [one.pretraining])
    assert files(a, one) == files(b, one) and len(on_server(one)[1]) == 1


def test_of_two_machines_that_did_the_same_the_first_ones_result_stays(machines):
    a, b = machines
    one = work("twice")
    done(one, a)
    done(one, b)
    path = b.result_file(one.pretraining, one.results[0])
    write_json(path, json.loads(path.read_text()) | {"finished": "later"})
    push(a, [one.pretraining])
    push(b, [one.pretraining])
    third = Records(a.root.parent / "third")
    pull(third, [one.pretraining])
    assert files(third, one) == files(a, one)


def test_a_damaged_file_is_refused(machines):
    a, b = machines
    one = work("damaged")
    done(one, b)
    push(b, [one.pretraining])
    client, (run,) = on_server(one)
    client.set_tag(run.info.run_id, "file:run.json", "0" * 64)
    with pytest.raises(BadInput, match=r"run\.json in run .*damaged"):
        pull(a, [one.pretraining])
    assert not (a.run(one.pretraining) / "run.json").exists()


def test_a_server_cannot_write_outside_of_runs(machines, monkeypatch):
    a, b = machines
    one = work("outside")
    done(one, b)
    push(b, [one.pretraining])
    (run,) = on_server(one)[1]
    for name in ("../../evil", "/evil", "eval/../../evil", ".lock", "eval/x/result.json.sh", "plans"):
        run.data.tags[f"file:{name}"] = "0" * 64
    monkeypatch.setattr(remote, "all_runs", lambda *a: [run])
    pull(a, [one.pretraining])
    assert files(a, one) == files(b, one)


def test_around_a_piece_of_work_records_are_fetched_and_sent_also_when_it_fails(machines):
    a, b = machines
    one = work("failing", replace(work("x").config, records="mlflow"))
    with pytest.raises(ZeroDivisionError), shared(one, b):
        write_json(b.run(one.pretraining) / "failure.json", {"reason": "out of memory"})
        raise ZeroDivisionError
    fetch(one.config, a, [one])
    assert (a.failure(one.pretraining) or {})["reason"] == "out of memory"
    with shared(one, a):
        (a.run(one.pretraining) / "failure.json").unlink()
        done(one, a)
    third = Records(a.root.parent / "third")
    with shared(one, third):
        assert third.complete(one.pretraining, one.results) and third.failure(one.pretraining) is None


def test_what_a_piece_needs_travels_with_it():
    parts = (work("needs joint"), work("needs bone"))
    assert identities_of([replace(work("fused"), needs=parts)]) >= {p.pretraining for p in parts}


def test_files_stay_files_unless_asked_and_a_server_must_be_named(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert not is_shared(Config())
    with pytest.raises(BadInput, match="set MLFLOW_TRACKING_URI"):
        is_shared(Config(records="mlflow"))
    with pytest.raises(BadInput, match="did you mean 'mlflow'"):
        is_shared(Config(records="mlflo"))


def test_a_server_that_is_away_when_a_piece_begins_fails_it_with_a_reason_on_file(machines, monkeypatch):
    a, _ = machines
    one = work("away")
    one = replace(one, config=replace(one.config, records="mlflow"))

    def away(*_):
        raise ConnectionError("connection refused")

    monkeypatch.setattr(remote, "pull", away)
    address, told = Address("journal", "away", a.root / "studies" / "away.log"), []
    Queue(address).enqueue([one])
    pull_work(address, a.root, told.append)
    assert [kind for kind, *_ in told] == ["started", "failed"]
    assert a.failure(one.pretraining)["reason"] == "connection refused"
    assert "ConnectionError" in a.failure(one.pretraining)["traceback"]


def test_whose_server_it_is_and_their_password_are_not_written_down(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://somebody:secret@example.org:5000/a@b")
    assert shown_uri(tmp_path) == "https://example.org:5000/a@b"
    assert tracking_uri(tmp_path).startswith("https://somebody:secret@")
