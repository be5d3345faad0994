"""What is said of a plan before its table is believed."""

from __future__ import annotations

import json

import pytest

from sweeps import run
from sweeps.notes import _code, notes, source_of
from sweeps.plan import make_plan
from sweeps.records import Records


def noted(line, records):
    return notes(line, *make_plan(line), records)


def test_cells_that_are_one_training_are_named(tiny, tmp_path):
    records = Records(tmp_path / "runs")
    (said,) = noted([*tiny, "ablation=stm", "method=mamp"], records)
    assert said.startswith("no-global, limited-global, no-local, limited-local, dual: one training")
    assert noted([*tiny, "ablation=stm", "seeds=[0,1]"], records) == []


@pytest.mark.parametrize(
    ("line", "idle"),
    [
        ("ablation=stm masking=random", "masking=random"),
        ("method=asma masking=tube", "masking=tube"),
        ("method=slim masking=random", ""),
        ("method=mamp masking=tube", ""),
        ("method=slim augment=none", ""),
        ("grid.method=asma,mamp masking=tube", "masking=tube"),
    ],
)
def test_choices_that_no_cell_follows_are_named(tiny, tmp_path, line, idle):
    said = noted([*tiny, *line.split()], Records(tmp_path / "runs"))
    assert [note.partition(" ")[0] for note in said] == [idle] * bool(idle)


def test_runs_that_end_in_their_warm_up_are_named(tiny, tmp_path):
    records = Records(tmp_path / "runs")
    (said,) = noted([*tiny, "method=mamp", "train.warmup=25000 steps"], records)
    assert said.startswith("mamp: its warm-up takes 25000 steps of 6")
    assert noted([*tiny, "method=mamp", "train.warmup=2 steps"], records) == []


def test_code_that_has_changed_since_is_named(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SKELBENCH_OUT", str(tmp_path / "out"))
    line = [*tiny, "method=mamp", "protocol=retrieval", "ablation.floors=false"]
    assert run.main(line) == 0
    (file,) = (tmp_path / "runs").glob("*/run.json")
    about = json.loads(file.read_text())
    works = make_plan(line)[1]
    assert about["source"] == source_of(works[0].config)
    assert noted(line, Records(tmp_path / "runs")) == []
    file.write_text(json.dumps(about | {"source": "0123456789ab"}))
    capsys.readouterr()
    assert run.main([*line, "dry=true"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("note: method mamp or its masking has changed since 1 run(s)") and "raise `version`" in said


def test_imports_comments_and_docstrings_are_no_code(tmp_path):
    texts = ["x = 1\n", '"""What."""\n\nimport os\n\nx = 1  # why\n', "x = 2\n"]
    digests = []
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.py").write_text(text)
        digests.append(_code(str(tmp_path / f"{number}.py")))
    assert digests[0] == digests[1] != digests[2]
