"""Tuning: what is tried, what is pruned, that it goes on where it stopped, and that the test split is not read."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from methods.base import all_methods
from skeletons.errors import BadInput
from sweeps import identity, run, trial, tune, tuning
from sweeps.composing import compose
from sweeps.config import Config, select
from sweeps.groups import options
from sweeps.plan import make_plan
from sweeps.records import Records, read_json
from sweeps.spaces import fit_space, read_space
from sweeps.studies import half_width
from sweeps.tracking import all_runs, open_client
from sweeps.tuned import read_tuned, with_tuned, write_tuned
from sweeps.workers import Event, Tell

ROOT = Path(__file__).resolve().parents[2]
UNSEEN = {"loss": 1.0, "feature_rank": 1.0, "clips_per_second": 1.0}  # what a pretended trial logs beside its kNN
SHORT = ("method=mamp", "tune=optimizer", "score=retrieval", "train.evaluations=2")


@pytest.fixture
def line(tiny, tmp_path, monkeypatch) -> list[str]:
    """A command of seconds; pictures go to the test's folder."""
    monkeypatch.setenv("SKELBENCH_OUT", str(tmp_path / "out"))
    return [o for o in tiny if not o.startswith("train.evaluations")] + list(SHORT)


@pytest.fixture
def pretended(line, monkeypatch):
    """Trials that take no time: kNN and score fall with the distance of the learning rate from 0.002."""
    found = tune.make_search(line)[1][0]

    def works_of(overrides, score):
        values = {key: value for key, _, value in (o.partition("=") for o in overrides)}
        changed = {name: float(values[f"train.{name}"]) for name in ("lr",) if f"train.{name}" in values}
        train = replace(found.config.train, evaluations=int(values["train.evaluations"]), **changed)
        config = replace(found.config, train=train, runs=values["runs"])
        return [replace(found, config=config, pretraining=identity.digest(overrides))]

    def quality(work):
        return 90 - 20 * abs(np.log10(work.config.train.lr / 0.002))

    def pretrain(work, folder, report):
        (folder / "checkpoint.pt").touch()
        evaluations = work.config.train.evaluations
        for n in range(evaluations):
            step = round(6 * (n + 1) / evaluations)
            report("training", {"step": step, "steps": 6, **UNSEEN, "knn": quality(work) - 10 / (n + 1)})
        (folder / "encoder.safetensors").touch()
        (folder / "checkpoint.pt").unlink()

    monkeypatch.setattr(tuning, "works_of", works_of)
    monkeypatch.setattr(tune, "works_of", works_of)
    monkeypatch.setattr(trial, "pretrain", pretrain)
    monkeypatch.setattr(trial, "validation", lambda work, records: {"value": quality(work)})


def searched(line: list[str], folder: Path, tell: Tell = lambda event: None) -> list:
    """All trials of the command with its runs in a folder of their own."""
    search, _ = tune.make_search([*(o for o in line if not o.startswith("runs=")), f"runs={folder}"])
    trial.work_through(search, tell)
    return tuning.open_search(search).get_trials(deepcopy=False)


def plain(trials: list) -> list:
    return [(t.number, t.state.name, t.params, t.value, t.intermediate_values) for t in trials]


def test_tuning_ends_with_a_file_that_run_takes_and_pictures(line, tmp_path, capfd):
    assert tune.main([*line, "trials=3", "seeds=[0,1]"]) == 0
    printed = capfd.readouterr().out
    assert "the test split was not read" in printed and "python sweeps/run.py tuned=" in printed
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".pdf", ".png"]
    (file,) = (tmp_path / "runs" / "studies").glob("*.yaml")
    study = read_json(file.with_suffix(".json"))
    values = [t["value"] for t in study["trials"]]
    assert study["trials"][0]["overrides"] == [] and study["trials"][study["best"]]["value"] == max(values)
    assert read_tuned(file)["found"] | {"trials": 3, "seeds": [0, 1]} == read_tuned(file)["found"]
    assert not list((tmp_path / "runs").rglob("result.json")), "a protocol's result would hold test accuracy"
    there = [o for o in line if o.startswith(("runs", "workers", "train.evaluations"))]
    config, works = make_plan([f"tuned={file}", *there, "seeds=[0,1]", "ablation.floors=false", "protocol=retrieval"])
    assert [w.pretraining for w in works] == study["trials"][study["best"]]["runs"], "the best is trained already"
    assert config.tuned == str(file)
    assert tune.main([*line, "trials=3", "seeds=[0,1]", "dry=true"]) == 0
    assert "there: 3 complete; 0 to do" in capfd.readouterr().out


def test_poisoned_test_clips_change_nothing(line, tmp_path, monkeypatch):
    clean = searched([*line, "score=linear_fast", "trials=3"], tmp_path / "clean")
    opened = identity._opened

    def poisoned(*arguments):
        data = opened(*arguments)
        test = ~data.table["train_xsub"]
        frames = np.array(data.frames)
        frames[np.repeat(test, data.lengths)] = np.nan
        label = np.where(test, (data.labels + 1) % len(data.class_names), data.labels)
        return replace(data, frames=frames, table={**data.table, "label": label})

    monkeypatch.setattr(identity, "_opened", poisoned)
    assert plain(searched([*line, "score=linear_fast", "trials=3"], tmp_path / "poisoned")) == plain(clean)
    assert all(np.isfinite(t.value) for t in clean)
    works = tune.make_search(line)[1]
    data, part = identity.data_of(works[0].config)
    assert np.isnan(data.frames[data.offsets[part.test[0]]]).all(), "the poison was really there"


@pytest.mark.usefixtures("pretended")
def test_one_worker_always_ends_with_the_same_trials_however_often_it_is_killed(line, tmp_path, rng):
    line = [*line, "trials=16", "train.evaluations=4"]
    undisturbed = searched(line, tmp_path / "undisturbed")
    assert {t.state.name for t in undisturbed} == {"COMPLETE", "PRUNED"} and len(undisturbed) == 16
    kills = 0

    def killed(event):
        nonlocal kills
        if kills < 12 and rng.random() < 0.15:
            kills += 1
            raise KeyboardInterrupt

    for _ in range(13):
        with suppress(KeyboardInterrupt):
            found = searched(line, tmp_path / "killed", killed)
    assert kills == 12 and plain(found) == plain(undisturbed)
    more = searched([*line, "trials=18"], tmp_path / "killed")
    assert plain(more)[:16] == plain(undisturbed) and len(more) == 18


@pytest.mark.usefixtures("pretended")
def test_the_search_finds_the_rate_and_prunes_what_is_worse_than_the_median(line, tmp_path):
    trials = searched([*line, "trials=30", "train.evaluations=4"], tmp_path / "runs")
    complete = [t for t in trials if t.state.name == "COMPLETE"]
    pruned = [t for t in trials if t.state.name == "PRUNED"]
    best = max(complete, key=lambda t: t.value)
    assert best.value > trials[0].value and 0.001 < best.params["train.lr"] < 0.004
    assert pruned and all(t.number >= tuning.UNPRUNED for t in pruned), "the first ones are left alone"
    assert all(2 <= max(t.intermediate_values) < 4 for t in pruned), "neither at once nor at the end"
    assert np.mean([t.value for t in complete]) > np.mean([t.value for t in pruned])
    assert not list((tmp_path / "runs").rglob("checkpoint.pt")), "what is pruned leaves no checkpoint"


@pytest.mark.usefixtures("pretended")
def test_the_start_is_never_pruned_and_remains_the_best_where_nothing_is_better(line, tmp_path):
    line = [*line, "train.lr=0.002", "tune=optimizer,masking"]
    trials = searched([*line, "trials=8"], tmp_path / "runs")
    assert "train.lr" not in trials[0].params, "what the command line says stays"
    assert all(t.value == trials[0].value for t in trials), "nothing else matters here"
    search, works = tune.make_search(line)
    search = replace(search, root=tmp_path / "runs")
    found = tune.conclude(search, works, tuning.open_search(search), "a test")
    assert found["best"] == 0 and read_tuned(tune.best_file(search))["overrides"][-1] == "train.lr=0.002"


@pytest.mark.usefixtures("pretended")
def test_mlflow_shows_each_trial_once_with_what_was_tried_its_curve_and_score(line, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    line = [*(o for o in line if not o.startswith("train.evaluations")), "train.evaluations=4"]
    assert tune.main([*line, "trials=4"]) == 0
    assert tune.main([*line, "trials=9"]) == 0
    (file,) = (tmp_path / "runs" / "studies").glob("tune-*.json")
    told = {f"trial {t['number']}": t for t in (read_json(file) or {})["trials"]}
    client = open_client(tmp_path / "runs" / "mlflow")
    runs = all_runs(client, client.get_experiment_by_name("tuning").experiment_id)
    (parent,) = (one for one in runs if one.data.tags.get("kind") == "study")
    shown = {one.data.tags["key"]: one for one in runs if one.info.run_id != parent.info.run_id}
    assert len(shown) == len(runs) - 1 == len(told) == 9
    for key, one in shown.items():
        wanted, curve = told[key], client.get_metric_history(one.info.run_id, "knn")
        assert one.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert one.data.params == {name: str(value) for name, value in wanted["params"].items()}
        assert {str(m.step): m.value for m in curve} == wanted["curve"]
        assert one.data.metrics.get("score") == wanted["value"]
        assert one.info.status == ("FINISHED" if wanted["state"] == "complete" else "KILLED")
    kept = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert {file.name, file.with_suffix(".yaml").name} < kept and any(name.endswith(".png") for name in kept)


def test_what_diverges_is_kept_away_from_and_what_fails_is_done_again_when_asked(line, tmp_path, monkeypatch):
    space = tmp_path / "wild.yaml"
    space.write_text("parameters: [{key: train.lr, kind: categorical, choices: [0.001, 1.0e+30]}]")
    line = [*line, f"tune={space}", "trials=6"]
    trials = searched(line, tmp_path / "runs")
    wild = [t for t in trials if t.params["train.lr"] != "0.001"]
    assert wild and all(t.state.name == "PRUNED" and "not finite" in t.user_attrs["reason"] for t in wild)
    assert all(t.state.name == "COMPLETE" for t in trials if t not in wild)

    with monkeypatch.context() as patch:
        patch.setattr(trial, "validation", lambda work, records: 1 / 0)
        failed = searched(line, tmp_path / "failing")
        assert [t.state.name for t in failed if t not in wild].count("FAIL") == 6 - len(wild)
    assert plain(searched(line, tmp_path / "failing")) == plain(failed), "not without being asked"
    again = searched([*line, "retry=failed"], tmp_path / "failing")
    assert {t.state.name for t in again[6:]} == {"COMPLETE"} and len(again) == 12 - len(wild)


def test_two_workers_that_are_killed_lose_no_trial_and_double_none(line, tmp_path):
    line = [*line, "trials=3", "train.length=12 steps", "train.checkpoint_seconds=0"]
    killed = [o.replace("workers=1", "workers=2") for o in line]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "sweeps" / "tune.py"), *killed], stdout=subprocess.DEVNULL, start_new_session=True
    )
    search, _ = tune.make_search(line)
    deadline = time.monotonic() + 100
    while not list(search.root.glob("*/encoder.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, "it goes on"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    records = Records(search.root)
    while any(records.is_owned(path.parent.name) for path in search.root.glob("*/.lock")):
        time.sleep(0.05)  # its workers end with it
    before = tuning.open_search(search).get_trials(deepcopy=False)
    trial.work_through(search, lambda event: None)
    after = tuning.open_search(search).get_trials(deepcopy=False)
    assert [t.state.name for t in after] == ["COMPLETE"] * 3 and [t.number for t in after] == [0, 1, 2]
    assert [t.params for t in after[: len(before)]] == [t.params for t in before]
    assert {t.user_attrs["runs"][0] for t in after} == {p.parent.name for p in search.root.glob("*/run.json")}


def deadly(search: tuning.Search, tell: Tell) -> None:
    """Works through the trials like any worker, but dies of the first one, as often as a file has letters."""
    pretrain, left = trial.pretrain, search.root / "deadly"
    start = search.works(search.space.start)[0].pretraining

    def dying(work, folder, report):
        if work.pretraining == start and (letters := left.read_text()):
            left.write_text(letters[1:])
            os.kill(os.getpid(), signal.SIGKILL)
        pretrain(work, folder, report)

    trial.pretrain = dying
    trial.work_through(search, tell)


@pytest.mark.parametrize(("deaths", "state", "reason"), [(1, "COMPLETE", None), (9, "FAIL", "lost its worker 3 times")])
def test_a_worker_that_dies_is_replaced_and_a_trial_that_goes_on_killing_them_fails(
    deaths, state, reason, line, tmp_path, monkeypatch
):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "deadly").write_text("x" * deaths)
    monkeypatch.setattr(tune, "work_through", deadly)
    search, works = tune.make_search([*line, "trials=3"])
    events: list[Event] = []
    tune.run_all(search, works[0].config, 2, events.append)
    found = tuning.open_search(search).get_trials(deepcopy=False)
    assert [t.state.name for t in found] == [state, "COMPLETE", "COMPLETE"]
    assert found[0].user_attrs.get("reason") == reason
    died = [details["reason"] for kind, _, details in events if kind == "died"]
    assert len(died) == min(deaths, 3) and all("SIGKILL" in why for why in died)
    assert [kind for kind, _, _ in events].count("failed") == (state == "FAIL")


def test_a_table_takes_the_tuned_settings_and_what_is_said_beside_them_wins(line, tmp_path):
    file = tmp_path / "best.yaml"
    write_tuned(file, ["method=mamp", "train.lr=0.003", "augment.limited_angle=0.2"], {"trials": 9})
    config = compose(with_tuned([f"tuned={file}"]))
    assert (config.method.name, config.train.lr, config.augment.limited_angle) == ("mamp", 0.003, 0.2)
    config = compose(with_tuned(["train.lr=0.1", f"tuned={file}", "augment=none"]))
    assert (config.train.lr, config.augment.limited_angle) == (0.1, Config().augment.limited_angle)
    rest = [o for o in line if o.partition("=")[0] not in ("method", *tune.OWN)]
    _, works = make_plan([*rest, f"tuned={file}", "grid.train.lr=0.1,0.2", "ablation.floors=false"])
    assert [w.config.train.lr for w in works] == [0.1, 0.2]
    untuned = make_plan([*rest, "method=mamp", "train.lr=0.003", "augment.limited_angle=0.2"])[1]
    tuned = make_plan([*rest, f"tuned={file}"])[1]
    assert [w.pretraining for w in tuned] == [w.pretraining for w in untuned], "the file's name is in no identity"
    run.write_plan(Records(tmp_path / "runs"), "p", compose(with_tuned([f"tuned={file}"])), tuned, [])
    assert json.loads((tmp_path / "runs" / "plans" / "p.json").read_text())["tuned"] == {"trials": 9}


@pytest.mark.parametrize("name", options("tune"))
def test_every_space_is_well_formed_and_its_keys_exist(name):
    space = read_space(name)
    configs = [Config(method=cls.Config()) for cls in all_methods().values()]
    for parameter in space.parameters:
        for key in (parameter.key, *parameter.along, *parameter.when):
            holders = [c for c in configs if hasattr(select(c, key.rpartition(".")[0]), key.rpartition(".")[2])]
            assert holders, f"{name}: no method has {key}"
        assert parameter.distribution


def test_a_space_is_fitted_to_the_method(line):
    given = [o for o in line if o.partition("=")[0] not in tune.OWN]
    config = compose(given)
    space = fit_space(read_space("optimizer,masking,teacher,loss,augment"), config, {"train.beta2"})
    assert space.start["masking.ratio"] == 0.9 and space.start["train.clip_norm"] == "0"
    assert space.dropped["heads.prototypes"] == "mamp does not read it"
    assert space.dropped["method.koleo"] == "mamp has no such setting"
    assert space.dropped["train.beta2"] == "the command line says it"
    assert "masking.ratio" not in space.dropped
    moved = space.overrides(space.start | {"train.lr": 0.01})
    assert moved == ["train.lr=0.01", "train.min_lr=0.005"], "the last rate keeps its ratio to the largest"
    slim = fit_space(read_space("masking"), compose([*given, "method=slim"]), set())
    assert slim.start["masking.ratio"] == "[0.5,0.9]" and "masking.tau" in slim.dropped
    wide = fit_space(read_space("optimizer"), compose([*given, "train.lr=0.5", "train.warmup=3 steps"]), set())
    (rate,) = (p for p in wide.parameters if p.key == "train.lr")
    assert rate.high == 0.5 and wide.start["train.warmup"] == "3 steps", "the start lies inside"


@pytest.mark.parametrize(("percent", "clips", "half"), [(100, 3, 28.1), (50, 100, 9.6), (0, 1000, 0.19)])
def test_the_interval_of_a_score_is_wilsons(percent, clips, half):
    """Brown, Cai & DasGupta (2001), equation 4."""
    assert half_width(percent, clips) == pytest.approx(half, rel=0.01)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("parameters: [{key: train.lr, kind: float, low: 1, hihg: 2}]", "hihg.*did you mean 'high'"),
        ("parameters: [{key: train.lr, kind: flaot, low: 1, high: 2}]", "flaot.*did you mean 'float'"),
        ("parameters: [{key: train.lr, low: 2, high: 1}]", "low < high"),
        ("parameters: [{key: train.lr, low: 0, high: 1, log: true}]", "log: true needs low > 0"),
        ("parameters: [{key: train.lr, low: wide, high: 1}]", "train.lr.*'wide'"),
        ("parameters: [{key: train.warmup, kind: categorical, choices: [0 run]}]", "at least two choices"),
        ("parameters: [{key: train.rl, low: 1, high: 2}]", "train.rl.*did you mean 'train.lr'"),
        ("parameters: [{key: train.lr, low: 1, high: 2, when: {train.optimiser: sgd}}]", "mean 'train.optimizer'"),
        ("parameters: [{key: train.lr, low: 0.1, high: .inf}]", "low and high are finite"),
        ("parameters: [{key: masking.ratio, low: 0.5, high: 0.9, step: -0.1}]", "step is not negative"),
        ("parameters: [{key: masking, kind: categorical, choices: [motion, random]}]", "single settings"),
        ("parameters: [{key: method.name, kind: categorical, choices: [mamp, slim]}]", "single settings"),
        ("parameters: [{key: seeds, kind: categorical, choices: [[0], [1]]}]", "single settings"),
        ("parameters: [{key: train.lr, kind: int, low: 1, high: 3}]", "its kind is float"),
        ("parameters: [{key: backbone.heads, low: 1, high: 4}]", "its kind is int"),
        ("parameters: [{key: masking.strategy, kind: categorical, choices: [motion, moton]}]", "cannot be moton"),
        (
            "parameters: [{key: train.lr, low: 1e-4, high: 1e-2, along: [train.optimizer]}]",
            "train.optimizer is no number",
        ),
        ("parametres: []", "write `about: ...` and `parameters:`"),
        ("a: [", "no YAML"),
        ("parameters: [{key: heads.prototypes, kind: int, low: 8, high: 64}]", "nothing to tune for mamp"),
    ],
)
def test_a_wrong_space_is_refused_in_one_line(written, message, line, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(written)
    with pytest.raises(BadInput, match=re.compile(message)) as caught:
        tune.make_search([*line, f"tune={path}"])
    said = str(caught.value)
    assert str(path) in said or said.startswith("tune=own: ") or "mean 'train." in said
    assert "\n" not in said and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["tune=optimiser"], "did you mean 'optimizer'"),
        (["tune=nowhere.yaml"], "nowhere.yaml: no such file"),
        (["trials=many"], "trials=many"),
        (["ablation=stm"], "one method is tuned at a time"),
        (["grid.train.lr=1,2"], "one method is tuned at a time"),
        (["splits=[xsub,subject:odd]"], "one split is tuned on at a time"),
        (["score=transfer", "protocol.targets=[demo]"], "judge on the data that is trained on"),
        (["score=linaer"], "did you mean 'linear'"),
        (["method=supervised"], "reads the labels"),
        (["method=untrained"], "trains nothing"),
        (["retry=all"], "unknown retry"),
        (["score=linear_fast,retrieval"], "one protocol judges"),
        (["budget=flops"], "a trial is compared by its length"),
        (["launcher=slurm"], "tuning runs on one machine"),
        (["tuned=nothing.yaml"], "nothing.yaml: no such file"),
    ],
)
def test_what_cannot_be_tuned_is_refused_in_one_line(wrong, message, line):
    with pytest.raises(BadInput, match=re.escape(message)) as caught:
        tune.make_search([*line, *wrong])
    assert "\n" not in str(caught.value)
