"""Methods x protocols x data, and the pairs set side by side: which numbers may stand in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reports.comparisons import masking_tables, pooling_tables, release_tables
from reports.formats import Table
from reports.matrix import as_configured, matrix_tables
from reports.metrics import distillation_tables, robustness_tables, twin_tables
from sweeps.records import Records, write_json

RUN = "python sweeps/run.py"
Found = dict[tuple[str, str], list[float]]  # (cell, protocol) -> accuracy of each seed


def plan_of(records: Records, found: Found, command: str, written: float = 0.0, **rest: Any) -> dict[str, Any]:
    """A plan and its results; no accuracies: nothing was found."""
    metrics = rest.pop("metrics", {})
    works, name = {}, rest.get("name", "plan")
    for (cell, protocol), values in found.items():
        for seed, value in enumerate(values or [0.0]):
            run, judgement = f"{name}{cell}{seed}", protocol.replace(" ", "").replace(":", "")
            work = {"cell": cell, "split": "xsub", "seed": seed, "pretraining": run, "judgements": {}}
            works.setdefault((cell, seed), work)["judgements"][protocol] = judgement
            right = round(value)
            result = {"top1": value, "correct": ["1" * right + "0" * (100 - right)], "seed": seed, "commit": "c0ffee"}
            result |= {"data": "utdmhad", "split": "xsub", "train_clips": 9, "test_clips": 100, "pretraining": run}
            if values:
                write_json(records.result_file(run, judgement), result | metrics)
    plan = {
        "name": name,
        "command": f"{RUN} {command}",
        "ablation": "methods",
        "title": "T",
        "source": "",
        "labels": {},
    }
    plan |= {"data": "utdmhad", "scale": "small", "setting": "paper", "written": written, "works": list(works.values())}
    return plan | rest


def shown(table: Table) -> dict[str, list[str]]:
    return {str(row[0]): [str(cell) for cell in row[1:]] for row in table.rows}


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path)


def test_plans_are_joined_and_the_later_number_counts(records):
    first = plan_of(
        records, {("mamp", "retrieval"): [50.0], ("slim", "retrieval"): [60.0]}, "ablation=methods", name="a"
    )
    again = plan_of(records, {("method=mamp", "retrieval"): [55.0]}, "grid.method=mamp", 1.0, name="b", ablation="")
    hole = plan_of(records, {("slim", "retrieval"): []}, "method=slim", 2.0, name="c", ablation="")
    floor = plan_of(records, {("untrained", "semi:0.1"): [20.0] * 3}, "ablation=semi", 3.0, name="d", ablation="semi")
    (table,) = matrix_tables(records, [floor, hole, again, first])
    assert table.columns == ["method", "retrieval, own pooling", "semi:0.1", "seeds"]
    assert table.title.endswith("data utdmhad xsub")
    rows = shown(table)
    assert list(rows) == ["slim", "mamp", "untrained"] and table.rule_before == 2
    assert rows["mamp"][0].startswith("55.0") and rows["slim"][0].startswith("60.0") and rows["slim"][1] == "-"
    assert rows["untrained"][1:] == ["20.0 ±0.0", "3"]
    assert table.rows[0][1].rank == 1 and table.rows[2][2].rank == 0, "floors are not ranked"
    assert len(table.sources[table.rows[2][2].source].runs) == 3


def test_only_one_scale_setting_and_stream_stand_in_one_table(records):
    one: Found = {("mamp", "retrieval"): [50.0]}
    plans = [
        plan_of(records, one, "method=mamp", name="a"),
        plan_of(records, one, "method=mamp scale=demo", name="b", scale="demo"),
        plan_of(records, one, "method=mamp setting=matched", name="c", setting="matched"),
        plan_of(records, one, "method=mamp data.stream=bone", name="d", stream="bone"),
    ]
    assert [table.name for table in matrix_tables(records, plans)] == ["matrix-small-paper", "matrix-demo-paper",
                                                                       "matrix-small-matched"]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "fits"),
    [
        ("ablation=methods seeds=[0,1,2] workers=2 'protocol.names=[linear_fast,retrieval]' runs=/x", True),
        ("grid.method=slim,mamp data=irds", True),
        ("ablation=methods train.length=1000 clips", False),
        ("method=mamp masking.ratio=0.5", False),
        ("ablation=methods budget=flops", False),
    ],
)
def test_a_command_that_changes_more_than_the_method_stays_out(command, fits):
    assert as_configured({"command": f"{RUN} {command}", "ablation": "methods"}) is fits
    assert not as_configured({"command": f"{RUN} {command}", "ablation": "stm"})


def test_missing_results_say_what_fills_them_and_failures_that_they_failed(records):
    found: Found = {("mamp", "retrieval"): [50.0], ("slim", "retrieval"): [], ("gfp", "retrieval"): []}
    plan = plan_of(records, found, "ablation=methods")
    write_json(records.run("plangfp0") / "failure.json", {"reason": "out of memory"})
    (table,) = matrix_tables(records, [plan])
    cells = {str(row[0]): row[1] for row in table.rows}
    assert str(cells["slim"]) == "missing" and cells["slim"].missing == plan["command"]
    assert str(cells["gfp"]) == "failed" and cells["gfp"].missing.endswith("retry=failed")


def test_both_poolings_are_two_columns_and_their_difference_a_table(records):
    found: Found = {("slim", "linear"): [50.0, 52.0, 51.0], ("slim", "linear native"): [60.0, 63.0, 60.0]}
    plan = plan_of(records, found, "ablation=methods protocol.pooling=both")
    (table,) = matrix_tables(records, [plan])
    assert table.columns[1:3] == ["linear, mean pooling", "linear, own pooling"]
    (table,) = pooling_tables(records, [plan])
    mean, own, gap = shown(table)["slim"]
    assert (mean[:4], own[:4], gap[:5]) == ("51.0", "61.0", "+10.0")
    assert list(pooling_tables(records, [plan_of(records, {("slim", "linear"): [50.0]}, "method=slim")])) == []


def test_paper_and_release_side_by_side(records):
    found: Found = {("slim", "linear"): [50.0, 52.0, 51.0], ("slim_released", "linear"): [48.0, 51.0, 48.0]}
    (table,) = release_tables(records, [plan_of(records, found, "ablation=methods")])
    row = shown(table)["linear"]
    assert row[0] == "xsub" and row[3].startswith("-2.0 ±") and row[4] == "3"
    assert list(release_tables(records, [plan_of(records, {("slim", "linear"): [50.0]}, "method=slim")])) == []


def test_masking_strategies_by_method(records):
    found: Found = {(c, "linear"): [v] for c, v in (("mamp-motion", 50.0), ("mamp-random", 55.0), ("slim-tube", 60.0))}
    (table,) = masking_tables(records, [plan_of(records, found, "ablation=masking", ablation="masking")])
    rows = shown(table)
    assert table.columns == ["strategy", "mamp: linear xsub", "to motion", "slim: linear xsub", "to tube"]
    assert rows["motion"][1:] == ["", "-", ""] and rows["random"][1].startswith("+5.0")
    assert rows["tube"][0] == "-" and rows["tube"][3] == ""


def test_robustness_has_a_column_for_each_corruption(records):
    metrics = {
        "clean": 80.0,
        "retained": 75.0,
        "robust_noise": 50.0,
        "robust_speed": 70.0,
        "strengths": {"noise": [0.1]},
    }
    plan = plan_of(records, {("mamp", "robustness"): [60.0, 60.0, 60.0]}, "method=mamp", metrics=metrics)
    (table,) = robustness_tables(records, [plan])
    assert table.columns[2:] == ["clean", "corrupted", "kept, %", "noise", "speed", "seeds"]
    assert shown(table)["mamp"] == ["xsub", "80.0", "60.0 ±0.0", "75.0", "50.0", "70.0", "3"]
    assert "noise: 0.1" in table.notes[0]


def test_students_stand_beside_their_teachers_and_labels_alone(records):
    metrics = {"teacher_top1": 65.0, "parameter_reduction": 91.4, "flops_ratio": 7.0, "speedup": 3.0}
    found: Found = {("asma-narrow", "distill"): [60.0, 61.0, 62.0], ("asma-alone", "distill"): [58.0, 58.0, 61.0]}
    (table,) = distillation_tables(records, [plan_of(records, found, "ablation=distill", metrics=metrics)])
    row = shown(table)["asma-narrow"]
    assert row[2] == "65.0" and row[3].startswith("-4.0 ±") and row[4].startswith("+2.0 ±") and row[5] == "91.4"
    assert shown(table)["asma-alone"][4] == ""


def test_accuracy_without_twins_stands_beside_that_with_them(records):
    metrics = {"top1_without_twins": 40.0, "clips_without_twins": 80}
    plan = plan_of(records, {("mamp", "retrieval"): [50.0]}, "method=mamp", metrics=metrics)
    (table,) = twin_tables(records, [plan, plan_of(records, {("mamp", "linear"): [50.0]}, "method=mamp", name="b")])
    assert shown(table)["mamp"][2].startswith("50.0") and shown(table)["mamp"][3:6] == ["40.0", "-10.0", "80 of 100"]
