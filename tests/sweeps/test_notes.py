"""What is said of a plan before its table is believed."""

from __future__ import annotations

import json

from sweeps import run
from sweeps.notes import _code, notes, source_of
from sweeps.plan import make_plan
from sweeps.records import Records


def test_cells_that_are_one_training_are_named(tiny, tmp_path):
    records = Records(tmp_path / "runs")
    (said,) = notes(make_plan([*tiny, "ablation=stm", "method=mamp"])[1], records)
    assert said.startswith("no-global, limited-global, no-local, limited-local, dual: one training")
    assert notes(make_plan([*tiny, "ablation=stm", "seeds=[0,1]"])[1], records) == []


def test_code_that_has_changed_since_is_named(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SKELBENCH_OUT", str(tmp_path / "out"))
    line = [*tiny, "method=mamp", "protocol=retrieval", "ablation.floors=false"]
    assert run.main(line) == 0
    (file,) = (tmp_path / "runs").glob("*/run.json")
    about = json.loads(file.read_text())
    works = make_plan(line)[1]
    assert about["source"] == source_of(works[0].config)
    assert notes(works, Records(tmp_path / "runs")) == []
    file.write_text(json.dumps(about | {"source": "0123456789ab"}))
    capsys.readouterr()
    assert run.main([*line, "dry=true"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("note: method mamp or its masking has changed since 1 run(s)") and "raise `version`" in said


def test_comments_and_docstrings_are_no_code(tmp_path):
    texts = ["x = 1\n", '"""What."""\nx = 1  # why\n', "x = 2\n"]
    digests = []
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.py").write_text(text)
        digests.append(_code(str(tmp_path / f"{number}.py")))
    assert digests[0] == digests[1] != digests[2]
