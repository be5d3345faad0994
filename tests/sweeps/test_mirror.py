"""What MLflow shows of the records, whatever was killed when."""

from __future__ import annotations

import json

import mlflow
import numpy as np
import pytest
import torch

from methods.checkpoint import load_encoder
from methods.masking import MaskingConfig
from protocols.features import extract
from skeletons.errors import BadInput
from skeletons.sampling import ClipTensors, ViewConfig
from skeletons.topology import KINECT_V2
from sweeps import mirror, tracking, window
from sweeps.config import Config
from sweeps.mirror import Mirror, Piece, settings_of
from sweeps.model import recordings, save_model
from sweeps.records import Records, write_json
from sweeps.tracking import all_runs, open_client
from tests.sweeps.works import done, work


@pytest.fixture(scope="module")
def records(tmp_path_factory, archive):
    """One database for all tests, each of which has cells of its own: to open one takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKELBENCH_CACHE", str(archive.parent / "cache"))  # an empty database is made once a session
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield Records(tmp_path_factory.mktemp("mirror") / "runs")


def show(records, works, table=()):
    with Mirror(records, f"plan-{works[0].cell}", Config(), works) as shown:
        shown.show_rest()
        shown.close(table)
    return shown.trouble


def nested(records):
    """Client, and the nested runs by cell; there must not be two of one piece."""
    client = open_client(records.root / "mlflow")
    experiment = client.get_experiment_by_name("single runs")
    runs = [r for r in all_runs(client, experiment.experiment_id) if "key" in r.data.tags]
    assert len({r.data.tags["key"] for r in runs}) == len(runs)
    return client, {r.data.tags["cell"]: r for r in runs}


def test_a_piece_has_its_settings_curves_results_and_files(records, tmp_path):
    one = work("one")
    done(one, records)
    table = tmp_path / "plan.md"
    table.write_text("| a |")
    assert show(records, [one], [table, tmp_path / "no.png"]) == ""
    client, runs = nested(records)
    run = runs["one"]
    curve = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.timestamp) for m in curve] == [(i + 1, 1000 * (1_700_000_000 + i)) for i in range(3)]
    assert run.data.metrics["knn"] == 50 and run.data.metrics["retrieval_top1"] == 75
    tags = {"identity": one.pretraining, "commit": "abcdefabcdef", "dirty": "False", "seed": "0", "method": "slim"}
    assert tags.items() <= run.data.tags.items()
    assert run.info.status == "FINISHED" and run.info.end_time - run.info.start_time == 60_000
    found = {f.path for f in client.list_artifacts(run.info.run_id)}
    assert found == {"config.yaml", "run.json", "metrics.jsonl", "eval", "model"}
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["kind"] == "plan" and parent.info.status == "FINISHED"
    assert [f.path for f in client.list_artifacts(parent.info.run_id)] == ["plan.md"]


def test_a_second_call_shows_nothing_twice_even_where_its_marks_are_lost(records, monkeypatch):
    works = [work(name) for name in ("it's", 'a "b" % _', "tags.key = 'x'", "`")]
    for one in works:
        done(one, records, steps=1)
    assert show(records, works) == ""
    _, first = nested(records)
    assert set(first) >= {w.cell for w in works}
    monkeypatch.setattr(window, "open_client", lambda folder: pytest.fail("a call with nothing new opens MLflow"))
    assert show(records, works) == ""
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    next((records.root / "mlflow").glob("mirrored-plan-it*.json")).unlink()
    monkeypatch.setattr(Piece, "fill", lambda *a: pytest.fail("what is whole is not written again"))
    assert show(records, works) == ""
    assert {c: r.info.run_id for c, r in nested(records)[1].items()} == {c: r.info.run_id for c, r in first.items()}


def test_a_half_written_run_is_completed(records, monkeypatch, capsys):
    one = work("half")
    done(one, records)
    with monkeypatch.context() as patch:
        patch.setattr(Piece, "_keep_model", lambda *a: 1 / 0)
        assert show(records, [one]) == "division by zero"
    assert "does not show everything: division by zero; the records are complete" in capsys.readouterr().err
    assert show(records, [one]) == ""
    client, runs = nested(records)
    assert (
        runs["half"].data.tags["mirrored"] == "complete"
        and len(client.get_metric_history(runs["half"].info.run_id, "loss")) == 3
    )


def test_a_failed_piece_is_shown_as_failed_and_later_as_done(records):
    one = work("failed")
    write_json(records.run(one.pretraining) / "failure.json", {"reason": "out of memory", "traceback": "..."})
    show(records, [one])
    _, runs = nested(records)
    assert runs["failed"].info.status == "FAILED" and runs["failed"].data.tags["mirrored"] == "failed: out of memory"
    done(one, records)
    show(records, [one])
    _, again = nested(records)
    assert again["failed"].info.status == "FINISHED" and again["failed"].info.run_id == runs["failed"].info.run_id


def test_a_table_that_was_not_written_in_time_is_kept_by_the_next_command(records, tmp_path):
    """The report was killed; all pieces are shown, and the parent run has ended."""
    one = work("late")
    done(one, records)
    show(records, [one])
    table = tmp_path / "late.md"
    table.write_text("| late |")
    show(records, [one], [table])
    client, runs = nested(records)
    parent = runs["late"].data.tags["mlflow.parentRunId"]
    assert [file.path for file in client.list_artifacts(parent)] == ["late.md"]


def test_a_piece_whose_protocol_failed_is_shown_as_failed(records):
    one = work("unjudged")
    failure = records.run(one.pretraining) / "eval" / one.results[0] / "failure.json"
    write_json(failure, {"reason": "probe diverged", "traceback": "..."})
    show(records, [one])
    _, runs = nested(records)
    assert runs["unjudged"].data.tags["mirrored"] == "failed: probe diverged"


def test_of_two_machines_that_showed_the_same_one_run_stays(records, monkeypatch):
    works = [work("twin"), work("twin too")]
    for one in works:
        done(one, records, steps=1)
    show(records, works[:1])
    client, runs = nested(records)
    other = client.create_run(runs["twin"].info.experiment_id, tags=runs["twin"].data.tags)
    monkeypatch.setattr(tracking, "PAGE", 1)
    assert show(records, works) == ""
    assert {r.info.run_id for r in nested(records)[1].values()} >= {runs["twin"].info.run_id}
    assert client.get_run(other.info.run_id).info.lifecycle_stage == "deleted"


def test_more_settings_than_a_batch_takes_and_one_that_is_too_long_are_kept(records):
    one = work("many", Config(masking=MaskingConfig(strategy="x" * 7000)))
    done(one, records)
    many = {f"setting.{i}": str(i) for i in range(230)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirror, "settings_of", lambda work: settings_of(work) | many)
        assert show(records, [one]) == ""
    params = nested(records)[1]["many"].data.params
    assert many.items() <= params.items() and "ablation.name" not in params
    cut = params["masking.strategy"]
    assert len(cut) == 6000 and cut.endswith("xx ... (cut here; all of it is in config.yaml)")


def test_the_encoder_is_a_registered_model_that_gives_what_protocols_extract(records, clips, monkeypatch):
    one = work("model")
    done(one, records)
    show(records, [one])
    with Mirror(records, "another", Config(), [one]) as shown:
        shown.show_rest()
        shown.close()
    client = open_client(records.root / "mlflow")
    versions = client.search_model_versions("name = 'skelbench-slim-demo'")
    (version,) = (v for v in versions if v.tags["identity"] == one.pretraining)  # of two plans, and registered once
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    mlflow.set_tracking_uri(client.tracking_uri)
    alias = f"models:/skelbench-slim-demo@{one.cell}-{one.split}-seed{one.seed}"
    assert client.get_model_version_by_alias("skelbench-slim-demo", alias.partition("@")[2]).version == version.version
    model = mlflow.pyfunc.load_model(alias)
    joints = np.full((len(clips), 2, max(clips.lengths), 25, 3), np.nan, np.float32)
    given = clips.original()
    for i in range(len(clips)):
        joints[i, :, : clips.lengths[i]] = given[clips.offsets[i] : clips.offsets[i + 1]].transpose(1, 0, 2, 3)
    encoder = load_encoder(records.encoder(one.pretraining))
    wanted = extract(encoder, ClipTensors(clips), torch.arange(len(clips)), ViewConfig(frames=16), "cls+mean")
    np.testing.assert_array_equal(model.predict(joints), wanted.numpy())
    holes = np.where(joints == 0, np.nan, joints)
    np.testing.assert_array_equal(model.predict(holes[5:6, :, :20]), wanted[5:6].numpy())


def test_the_pooling_of_a_model_can_be_chosen_when_it_is_loaded(records, tmp_path):
    one = work("pool")
    done(one, records)
    save_model(records.encoder(one.pretraining), tmp_path / "model", "mean", 0.95)
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "MLmodel",
        "encoder.safetensors",
        "requirements.txt",
    ]
    joints = np.random.default_rng(0).normal(size=(2, 1, 20, 25, 3)).astype(np.float32)
    assert mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(joints).shape == (2, 16)
    both = mlflow.pyfunc.load_model(str(tmp_path / "model"), model_config={"pooling": "cls+mean"})
    assert both.predict(joints).shape == (2, 32)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda x: x[..., :2], "this encoder takes (clip, person, time, 25, 3)"),
        (lambda x: x * np.inf, "clip 0 has infinite coordinates"),
        (lambda x: x * np.array([1, 0, 1])[:, None, None, None, None], "clip 1 shows nobody"),
    ],
)
def test_recordings_that_cannot_be_used_are_refused_in_one_line(damage, message):
    with pytest.raises(BadInput) as error:
        recordings(damage(np.ones((3, 1, 9, 25, 3), np.float32)), KINECT_V2)
    assert message in str(error.value)


def test_marks_of_a_database_that_is_lost_do_not_count(records, tmp_path):
    records, one = Records(tmp_path / "runs"), work("lost")
    done(one, records, steps=1)
    show(records, [one])
    assert json.loads((records.root / "mlflow" / "mirrored-plan-lost.json").read_text())["done"]
    (records.root / "mlflow" / "mlflow.db").unlink()
    show(records, [one])
    assert set(nested(records)[1]) == {"lost"}
