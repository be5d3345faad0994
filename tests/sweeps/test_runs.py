"""The command that lists, shows, compares and prunes runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from reports.make import main as make
from skeletons.errors import BadInput
from sweeps.records import Records, write_json
from sweeps.runs import main
from tests.sweeps.works import done, plan, work


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two plans that share a run, a run in no plan, and one that was stopped."""
    records = Records(tmp_path_factory.mktemp("made") / "runs")
    works = [work("a"), work("b"), work("b", seed=1), work("c"), work("stopped")]
    for one in works[:4]:
        done(one, records)
    stopped = records.run(works[4].pretraining)
    done(works[4], records, steps=2)
    (stopped / "run.json").unlink()
    (stopped / "checkpoint.pt").write_bytes(b"x" * 100)
    plan("old", works[:2], records)
    plan("new", works[1:3], records)
    return records, works


@pytest.fixture
def runs(made, tmp_path):
    """A copy for each test to change."""
    shutil.copytree(made[0].root, tmp_path / "runs")
    return Records(tmp_path / "runs"), made[1]


def said(capsys, *arguments):
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_list_has_a_line_for_each_run_and_filters(runs, capsys):
    records, works = runs
    lines = said(capsys, "list", f"runs={records.root}").splitlines()
    assert len(lines) == 7 and lines[-1].startswith("5 runs, ")
    by_id = {line.split()[0]: line for line in lines}
    assert "complete" in by_id[works[1].pretraining] and "new +1" in by_id[works[1].pretraining]
    assert (
        "unfinished, checkpoint at step 2" in by_id[works[4].pretraining] and "no plan" in by_id[works[4].pretraining]
    )
    assert "1 runs" in said(capsys, "list", f"runs={records.root}", "state=unfinished")
    assert "2 runs" in said(capsys, "list", f"runs={records.root}", "plan=new")
    assert said(capsys, "list", f"runs={records.root}", "method=mamp") == "no runs\n"


def test_a_failed_run_says_why(runs, capsys):
    records, works = runs
    write_json(records.run(works[4].pretraining) / "failure.json", {"reason": "out of memory"})
    assert "failed: out of memory" in said(capsys, "list", f"runs={records.root}")


def test_show_tells_settings_curve_and_results(runs, capsys):
    records, works = runs
    for name in (works[0].pretraining, works[0].pretraining[:6], "a", "old:a"):
        text = said(capsys, "show", name, f"runs={records.root}")
        assert text.startswith(works[0].pretraining) and "used by old as a, xsub seed 0" in text
    assert "commit = abcdefabcdef" in text and "1-NN: 75.00 on demo xsub, pooling mean" in text
    assert "█" in next(line for line in text.splitlines() if line.startswith("  loss"))


def test_a_cell_alone_is_that_of_the_newest_plan_and_a_cell_of_a_grid_is_no_filter(runs, capsys):
    records, _ = runs
    made = sorted((work(c) for c in ("one", "two")), key=lambda w: w.pretraining, reverse=True)
    named = [replace(one, cell="masking.ratio=0.7") for one in made]  # the newest one's identity comes first
    other = replace(work("three"), cell="method=slim")
    done(other, records)
    plan("methods", [other], records)
    assert said(capsys, "show", "method=slim", f"runs={records.root}").startswith(other.pretraining)
    assert "three" not in said(capsys, "list", "method=mamp", f"runs={records.root}")
    for number, one in enumerate(named):
        done(one, records)
        path = plan(f"grid{number}", [one], records)
        write_json(path, json.loads(path.read_text()) | {"written": float(number)})
    assert said(capsys, "show", "masking.ratio=0.7", f"runs={records.root}").startswith(f"{named[1].pretraining}: ")
    assert said(capsys, "show", "grid0:masking.ratio=0.7", f"runs={records.root}").startswith(named[0].pretraining)


def test_diff_tells_settings_versions_code_and_scores(runs, capsys):
    records, works = runs
    folder = records.run(works[2].pretraining)
    (folder / "config.yaml").write_text(
        (folder / "config.yaml").read_text().replace("strategy: tube", "strategy: part")
    )
    about = json.loads((folder / "run.json").read_text())
    write_json(folder / "run.json", about | {"commit": "123456123456", "dirty": True, "hashed": {"versions": {"x": 2}}})
    text = said(capsys, "diff", "a", works[2].pretraining, f"runs={records.root}")
    rows = [line.split() for line in text.splitlines()]
    assert ["masking.strategy", "tube", "part"] in rows and ["versions.x", "-", "2"] in rows
    assert "not both commits are in this repository" in text and "not committed" in text
    assert any(row[-3:] == ["75.00", "75.00", "+0.00"] for row in rows)


def test_commits_between_two_runs_are_listed(runs, capsys):
    records, works = runs
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12"]
    head, before = (
        subprocess.run([*git, f"HEAD{b}"], capture_output=True, text=True).stdout.strip() for b in ("", "~3")
    )
    if not before:
        pytest.skip("no history here")
    for one, commit in zip(works, (before, head)):
        path = records.run(one.pretraining) / "run.json"
        write_json(path, json.loads(path.read_text()) | {"commit": commit})
    text = said(capsys, "diff", "a", works[1].pretraining, f"runs={records.root}")
    assert f"code, {before} to {head}:" in text and "not both commits" not in text


def test_names_that_are_none_or_several_are_refused(runs):
    records, _ = runs
    with pytest.raises(BadInput, match="may be any of"):
        main(["show", "b", f"runs={records.root}"])
    with pytest.raises(BadInput, match="unknown run or cell 'zzz'"):
        main(["show", "zzz", f"runs={records.root}"])
    with pytest.raises(BadInput, match="did you mean 'list'"):
        main(["lst"])
    with pytest.raises(BadInput, match="diff takes 2"):
        main(["diff", "a", f"runs={records.root}"])
    with pytest.raises(BadInput, match="no such folder"):
        main(["list", f"runs={records.root / 'no'}"])


def tables(records, out):
    make([f"runs={records.root}", f"out={out}"])
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.suffix != ".html"}


def everything(records):
    return {str(path.relative_to(records.root)) for path in records.root.rglob("*")}


def test_prune_removes_what_no_table_needs_and_nothing_else(runs, tmp_path, capsys):
    records, works = runs
    kept = records.run(works[0].pretraining)
    write_json(kept / "eval" / "0123456789ab" / "result.json", {"protocol": "semi:0.1"})
    (kept / "checkpoint.pt").write_bytes(b"")
    (kept / ".encoder.safetensors.x1").mkdir()
    (records.root / "plans" / ".new.json.x1").mkdir()
    os.utime(records.root / "plans" / ".new.json.x1", (time.time() - 7200,) * 2)
    (records.root / "plans" / ".fresh.json.x1").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("")
    (records.root / "aaaaaaaaaaaa").symlink_to(outside)
    (records.run(works[3].pretraining) / "link").symlink_to(outside)
    before, all_files = tables(records, tmp_path / "before"), everything(records)
    line = ["prune", f"runs={records.root}"]
    with pytest.raises(BadInput, match="nobody is here to ask, so say yes=true"):
        main(line)
    assert everything(records) - all_files <= {f"{w.pretraining}/.lock" for w in works}, "nothing goes without a yes"
    with records.owned(works[4].pretraining):
        text = said(capsys, *line, "yes=true")
    assert f"left alone, at work: {works[4].pretraining}" in text and records.run(works[4].pretraining).is_dir()
    gone = [records.run(works[3].pretraining), kept / "eval" / "0123456789ab", kept / "checkpoint.pt"]
    gone += [kept / ".encoder.safetensors.x1", records.root / "plans" / ".new.json.x1"]
    assert not any(path.exists() for path in gone)
    assert (outside / "precious").is_file() and (records.root / "plans" / ".fresh.json.x1").is_dir()
    assert tables(records, tmp_path / "after") == before
    assert "removed: " in said(capsys, *line, "yes=true") and not records.run(works[4].pretraining).exists()
    assert "nothing to remove" in said(capsys, *line)


def test_prune_keeps_what_a_kept_result_was_made_of(runs, capsys):
    records, works = runs
    path = records.run(works[0].pretraining) / "run.json"
    given = str(records.encoder(works[4].pretraining))
    write_json(path, json.loads(path.read_text()) | {"fused": [works[3].pretraining], "encoder": given})
    assert "nothing to remove" in said(capsys, "prune", f"runs={records.root}")


def test_prune_tells_trials_of_a_tuning(runs, capsys):
    from optuna import create_study
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    records, works = runs
    (records.root / "studies").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notices that journals are experimental
        study = create_study(storage=JournalStorage(JournalFileBackend(str(records.root / "studies" / "t.log"))))
    study.ask().set_user_attr("runs", [works[3].pretraining])
    with pytest.raises(BadInput):
        main(["prune", f"runs={records.root}"])
    lines = capsys.readouterr().out.splitlines()
    assert [works[3].pretraining in line for line in lines if "tuning's trial" in line] == [True]


def test_prune_asks_and_takes_no_for_an_answer(runs, capsys, monkeypatch):
    records, works = runs
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, there in (("", True), ("n", True), ("y", False)):
        monkeypatch.setattr("builtins.input", lambda prompt, answer=answer: answer)
        said(capsys, "prune", f"runs={records.root}", "state=complete")
        assert records.run(works[3].pretraining).exists() == there
    assert records.run(works[4].pretraining).exists(), "a filter spares the others"


def test_a_damaged_plan_stops_prune(runs):
    records, _ = runs
    records.plan_file("new").write_text("{")
    with pytest.raises(BadInput, match="damaged"):
        main(["prune", f"runs={records.root}", "yes=true"])
