"""The command, end to end, at a size of seconds."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from methods.base import support_matrix
from methods.checkpoint import load_encoder
from skeletons.errors import BadInput
from sweeps import execute, run
from sweeps.plan import make_plan
from sweeps.records import Records
from tests.sweeps.waiting import until, until_steps

ROOT = Path(__file__).resolve().parents[2]


def call(line: list[str], **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "sweeps" / "run.py"), *line]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **kwargs)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Tables go to the test's folder."""
    monkeypatch.setenv("SKELBENCH_OUT", str(tmp_path / "out"))
    return tmp_path / "out"


def test_an_ablation_fills_its_table_once(tiny, tmp_path, table, capfd, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    line = [*tiny, "ablation=stm"]
    assert run.main(line) == 0
    printed = capfd.readouterr().out
    for cell in ("no-global", "limited-global", "no-local", "limited-local", "dual", "untrained", "raw"):
        assert f"\n{cell}" in printed
    assert "87.7" in printed, "the published number of the full method stands beside the measured one"
    assert "7 pieces: 0 were there, 7 done now" in printed
    written = sorted(path.suffix for path in table.iterdir())
    assert written == [".csv", ".md", ".tex", ".txt"]

    records = Records(tmp_path / "runs")
    encoders = sorted(records.root.glob("*/encoder.safetensors"))
    assert len(encoders) == 6
    assert not list(records.root.rglob("*.tmp")) and not list(records.root.rglob("checkpoint.pt"))
    load_encoder(encoders[0])

    def never(*arguments):
        raise AssertionError("a second call must train nothing")

    monkeypatch.setattr(execute, "pretrain", never)
    monkeypatch.setattr(execute, "judge", never)
    assert run.main(line) == 0
    assert "7 pieces: 7 were there, 0 done now" in capfd.readouterr().out

    (records.root / encoders[0].parent.name / "encoder.safetensors").unlink()
    assert run.main(line) == 0, "results that are there do not need the encoder"


def test_mlflow_shows_a_parent_and_a_nested_run_for_each_piece(tiny, tmp_path, table, capfd):
    assert run.main([*tiny, "method=mamp"]) == 0
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("single runs")
    runs = client.search_runs([experiment.experiment_id])
    parents = [r for r in runs if r.data.tags.get("kind") == "plan"]
    nested = {r.data.tags["cell"]: r for r in runs if "cell" in r.data.tags}
    assert len(parents) == 1 and set(nested) == {"raw", "untrained", "mamp"}
    mamp = nested["mamp"]
    assert mamp.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
    assert mamp.data.params["train.length"] == "6 steps"
    assert {"linear_fast_top1", "retrieval_top1", "loss"} <= set(mamp.data.metrics)
    assert [m.step for m in client.get_metric_history(mamp.info.run_id, "loss")] == [6]
    names = {a.path for a in client.list_artifacts(mamp.info.run_id)}
    assert {"config.yaml", "run.json", "model", "eval"} <= names
    tables = {a.path.rpartition(".")[2] for a in client.list_artifacts(parents[0].info.run_id)}
    assert {"txt", "md", "csv", "tex"} <= tables, "the table stands with the parent run"
    assert [v.tags["cell"] for v in client.search_model_versions("name = 'skelbench-mamp-archive'")] == ["mamp"]


def test_two_workers_give_the_same_encoders_as_one(tiny, tmp_path, table, capfd):
    line = [*tiny, "method=mamp", "protocol=retrieval"]
    assert run.main(line) == 0
    other = [o.replace(str(tmp_path / "runs"), str(tmp_path / "two")) for o in line if not o.startswith("workers")]
    assert run.main([*other, "workers=2"]) == 0
    one = {p.parent.name: p.read_bytes() for p in (tmp_path / "runs").glob("*/encoder.safetensors")}
    two = {p.parent.name: p.read_bytes() for p in (tmp_path / "two").glob("*/encoder.safetensors")}
    assert one == two and len(one) == 2


def test_a_sweep_killed_in_the_middle_goes_on_to_the_same_weights(tiny, tmp_path, table):
    line = [*tiny, "method=slim", "protocol=retrieval", "train.length=40 steps", "train.checkpoint_seconds=0"]
    line += ["train.log_every=1", "ablation.floors=false"]
    assert call(line).returncode == 0
    (undisturbed,) = (tmp_path / "runs").glob("*/encoder.safetensors")

    killed = [o.replace(str(tmp_path / "runs"), str(tmp_path / "killed")) for o in line]
    killed[killed.index("workers=1")] = "workers=2"  # a worker process must not outlive its parent
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "sweeps" / "run.py"), *killed], stdout=subprocess.PIPE, start_new_session=True
    )
    folder = tmp_path / "killed" / undisturbed.parent.name
    until_steps(folder, 8)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (folder / "encoder.safetensors").is_file(), "the kill came too late to test anything"
    gone = until(lambda: not Records(tmp_path / "killed").is_owned(folder.name), 10)
    assert gone, "a worker lives on after its parent died"

    again = call(killed)
    assert again.returncode == 0, again.stderr
    assert (folder / "encoder.safetensors").read_bytes() == undisturbed.read_bytes()
    steps = [json.loads(text)["step"] for text in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 41))


def test_a_run_that_fails_is_named_and_tried_again_only_when_asked(tiny, tmp_path, table, capfd, monkeypatch):
    line = [*tiny, "method=mamp", "train.lr=1e30", "train.clip_norm=0", "protocol=retrieval"]
    assert run.main(line) == 1
    shown = capfd.readouterr()
    assert "not finite at step" in shown.err
    assert "untrained" in shown.out and "failed: mamp xsub seed 0:" in shown.out, (
        "the table shows the hole and says why"
    )
    failures = list((tmp_path / "runs").glob("*/failure.json"))
    failure = json.loads(failures[0].read_text())
    assert len(failures) == 1 and "not finite" in failure["reason"] and "Traceback" in failure["traceback"]

    tried = []
    monkeypatch.setattr(execute, "pretrain", lambda work, *_: tried.append(work.cell) or 1 / 0)
    assert run.main(line) == 1 and not tried
    shown = capfd.readouterr()
    assert "failed before: mamp" in shown.err and "not finite" in shown.err and "retry=failed" in shown.err
    assert run.main([*line, "retry=failed"]) == 1 and tried == ["mamp"]
    assert "division by zero" in capfd.readouterr().err


def test_a_protocol_that_fails_does_not_keep_the_others_from_being_run(tiny, tmp_path, table, capfd, monkeypatch):
    from protocols.linear_fast import LinearFast

    def memory(*arguments):
        raise MemoryError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(LinearFast, "__call__", memory)
        assert run.main([*tiny, "method=untrained", "ablation.floors=false"]) == 1
    shown = capfd.readouterr()
    assert "failed: untrained xsub seed 0: out of memory" in shown.out and "out of memory" in shown.err
    (result,) = (tmp_path / "runs").glob("*/eval/*/result.json")
    assert json.loads(result.read_text())["protocol"] == "retrieval"
    (failure,) = (tmp_path / "runs").glob("*/eval/*/failure.json")
    assert run.main([*tiny, "method=untrained", "ablation.floors=false", "retry=failed"]) == 0
    assert not failure.exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["method=slm"], "did you mean 'slim'"),
        (["data=archive", "data.file=/nowhere/x.npz", "data.split=a"], "/nowhere/x.npz: no such file"),
        (["train.lerning=3"], "unknown key"),
    ],
)
def test_bad_input_ends_in_one_line_and_status_2(wrong, message, tmp_path, monkeypatch):
    monkeypatch.setenv("SKELBENCH_CACHE", str(tmp_path / "cache"))
    done = call([*wrong, f"runs={tmp_path / 'runs'}"])
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists(), "nothing is half-written"


def test_dry_shows_the_plan_and_runs_nothing(tiny, tmp_path, capsys):
    assert run.main([*tiny, "ablation=stm", "dry=true"]) == 0
    assert "masking strategies" not in capsys.readouterr().out
    assert run.main([*tiny, "ablation=stm", "masking.tau=0.8", "dry=true"]) == 0
    printed = capsys.readouterr().out
    assert "data=archive scale=demo setting=paper; judged by linear_fast, retrieval" in printed.splitlines()[0]
    assert "7 pieces, 0 there, 7 to do" in printed
    assert printed.count("to train, ") == 5 and "time unknown: nothing like it was run on this machine" in printed
    methods, _, strategies = " ".join(printed.split()).rpartition("methods can use: ")[2].partition(": ")
    first = strategies.partition(" slim, ")[0].split(", ")
    assert "mamp" in methods.split(", ")
    assert set(first) == {name for name, reason in support_matrix()["mamp"].items() if reason is None}
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["forecast.json"], "what was counted is kept"


def test_a_worker_that_would_train_something_else_than_was_planned_says_so(tiny, tmp_path, monkeypatch):
    """E.g. on a node with a GPU, or another torch."""
    (work,) = (w for w in make_plan([*tiny, "method=mamp", "ablation.floors=false"])[1] if w.cell == "mamp")
    records = Records(tmp_path / "runs")
    monkeypatch.setattr("torch.__version__", "9.9.9")
    with pytest.raises(
        BadInput, match=rf"torch 9.9.9\) would train \w+, not {work.pretraining}: its device, data, torch"
    ):
        execute.execute(work, records)
    assert not records.encoder(work.pretraining).exists() and records.failure(work.pretraining)


def test_dry_does_not_promise_what_failed_before(tiny, tmp_path, monkeypatch, capfd):
    line = [*tiny, "method=mamp", "ablation.floors=false"]
    monkeypatch.setattr(execute, "pretrain", lambda *_: 1 / 0)
    assert run.main(line) == 1
    capfd.readouterr()
    assert run.main([*line, "dry=true"]) == 0
    printed = capfd.readouterr().out
    assert "failed before: division by zero" in printed and "1 pieces, 0 there, 0 to do" in printed
    assert run.main([*line, "dry=true", "retry=failed"]) == 0
    assert "1 pieces, 0 there, 1 to do" in capfd.readouterr().out


def test_both_poolings_stand_side_by_side_and_what_is_equal_is_judged_once(tiny, tmp_path, table, capfd):
    line = [*tiny, "protocol=retrieval", "protocol.pooling=both"]
    assert run.main([*line, "method=slim"]) == 0
    printed = capfd.readouterr().out
    assert "1-NN xsub" in printed and "1-NN native xsub" in printed
    records = Records(tmp_path / "runs")
    slim = next(p.parent for p in records.root.glob("*/run.json") if '"method": "slim"' in p.read_text())
    found = [json.loads(p.read_text())["pooling"] for p in slim.glob("eval/*/result.json")]
    assert sorted(found) == ["cls+mean", "mean"]
    assert run.main([*line, "method=mamp"]) == 0
    mamp = next(p.parent for p in records.root.glob("*/run.json") if '"method": "mamp"' in p.read_text())
    assert len(list(mamp.glob("eval/*/result.json"))) == 1


def test_an_encoder_from_a_file_is_judged_beside_an_untrained_one_of_its_shape(tiny, tmp_path, table, capfd):
    assert run.main([*tiny, "method=mamp", "protocol=retrieval"]) == 0
    records = Records(tmp_path / "runs")
    mamp = next(p.parent for p in records.root.glob("*/run.json") if '"method": "mamp"' in p.read_text())
    before = {p.name: json.loads(p.read_text())["top1"] for p in mamp.glob("eval/*/result.json")}
    capfd.readouterr()
    line = [*tiny, "protocol=retrieval", "protocol.pooling=mean", f"encoder={mamp / 'encoder.safetensors'}"]
    assert run.main(line) == 0
    assert "\nencoder" in capfd.readouterr().out
    given = next(p.parent for p in records.root.glob("*/run.json") if '"method": "encoder"' in p.read_text())
    assert [json.loads(p.read_text())["top1"] for p in given.glob("eval/*/result.json")] == list(before.values())
    untrained = [p for p in records.root.glob("*/config.yaml") if "name: untrained" in p.read_text()]
    assert len({(p.parent / "encoder.safetensors").stat().st_size // 1000 for p in untrained}) == 1


@pytest.mark.parametrize("name", ["nothing.safetensors", "text.pth"])
def test_a_file_that_is_no_encoder_is_refused_before_anything_runs(tiny, tmp_path, name):
    (tmp_path / "text.pth").write_text("no weights")
    found = call([*tiny, f"encoder={tmp_path / name}"])
    assert found.returncode == 2 and name in found.stderr and len(found.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_distillation_says_what_the_student_keeps_and_saves(tiny, tmp_path, table, capfd):
    small = ["protocol.distill.width=4", "protocol.distill.steps=4", "protocol.distill.timings=2"]
    assert run.main([*tiny, "method=mamp", "protocol=distill", *small]) == 0
    printed = capfd.readouterr().out
    assert "student xsub" in printed and "ASMa: 91.4 %" in printed
    found = [json.loads(p.read_text()) for p in (tmp_path / "runs").glob("*/eval/*/result.json")]
    one = next(r for r in found if r["protocol"] == "distill")
    assert one["student_parameters"] < one["teacher_parameters"] and one["flops_ratio"] > 1
    assert not any(row.startswith("raw ") for row in printed.splitlines()), "raw coordinates are no encoder to distil"


def test_who_stops_reading_gets_no_traceback(tiny):
    line = shlex.join([sys.executable, str(ROOT / "sweeps" / "run.py"), *tiny, "dry=true"])
    done = subprocess.run(["bash", "-c", f"{line} | true; exit ${{PIPESTATUS[0]}}"], capture_output=True, timeout=120)
    assert done.stderr == b"" and done.returncode == 141
