"""Intervals, tables and their formats."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from reports.formats import Table, as_csv, as_latex, as_markdown, as_text
from reports.intervals import difference, estimate
from reports.literature import published_columns, what_is_published
from reports.make import main
from reports.tables import ablation_table, folds_together
from sweeps.records import Records, write_json

SLIM = "SLiM (arXiv 2603.10648)"
TABLE = Table(
    "t", "A & B", ["cell", "what differs", "1-NN"], [["a_b", "x", "50.0 ±2.0"], ["raw", "", "40.0"]], ["note 5 %"], 1
)


def scores(right: int, wrong: int) -> np.ndarray:
    return np.array([1] * right + [0] * wrong, np.int8)


def test_with_three_seeds_the_interval_is_students_t_over_seeds():
    found = estimate([scores(50, 50), scores(54, 46), scores(52, 48)])
    low, high = stats.t.interval(0.95, 2, loc=52, scale=np.std([50, 54, 52], ddof=1) / np.sqrt(3))
    assert found.how == "seeds" and found.seeds == 3
    assert (found.mean, found.low, found.high) == pytest.approx((52, low, high))


def test_with_one_seed_the_interval_is_a_bootstrap_over_clips_and_says_so():
    found = estimate([scores(300, 200)])
    error = 1.96 * 100 * np.sqrt(0.6 * 0.4 / 500)
    assert found.how == "clips"
    assert (found.low, found.high) == pytest.approx((60 - error, 60 + error), abs=0.5)


@pytest.mark.parametrize("clips", [2, 48, 2000])
def test_clips_that_all_score_alike_leave_what_they_cannot_exclude(clips):
    from scipy.stats import binomtest

    exact = binomtest(clips, clips).proportion_ci(method="exact")
    right, same = estimate([np.ones(clips)]), estimate([np.zeros(clips)])
    assert (right.low, right.high) == pytest.approx((100 * exact.low, 100))
    assert (same.low, same.high) == pytest.approx((100 * exact.low - 100, 100 - 100 * exact.low))
    assert not same.excludes_zero()


def test_two_seeds_are_too_few_for_an_interval_over_seeds():
    assert estimate([scores(5, 5), scores(6, 4)]).how == "clips"


def test_differences_are_paired_by_clip():
    same = {0: {"correct": ["1100" * 50]}}
    assert difference(same, same).half == pytest.approx(1.83, abs=0.01)  # 0 of 200 clips
    other = {0: {"correct": ["1010" * 50]}}
    gap = difference(same, other)
    assert gap.mean == 0 and gap.half > 5 and not gap.excludes_zero()
    assert difference(same, {1: {"correct": ["1"]}}) is None


def test_the_published_numbers_of_table_6_are_there():
    columns = published_columns("stm")
    assert list(columns) == ["published X-Sub", "published X-View"]
    assert columns["published X-Sub"]["dual"] == "87.7" and columns["published X-Sub"]["no-global"] == "75.3*"


def test_text_fits_columns_and_separates_the_floors():
    lines = as_text(TABLE).splitlines()
    assert lines[0] == "A & B" and lines[-1] == "note 5 %"
    assert lines[4].startswith("a_b") and set(lines[5]) == {"-"} and lines[6].startswith("raw")


def test_markdown():
    assert as_markdown(TABLE) == (
        "### A & B\n\n| cell | what differs | 1-NN |\n|---|---|---:|\n| a_b | x | 50.0 ±2.0 |\n| raw |  | 40.0 |\n\n"
        "- note 5 %\n"
    )


def test_csv():
    assert as_csv(TABLE) == "cell,what differs,1-NN\na_b,x,50.0 ±2.0\nraw,,40.0\n# note 5 %\n"


def test_latex_escapes_and_rules():
    text = as_latex(TABLE)
    assert r"a\_b & x & 50.0 $\pm$2.0 \\" in text and r"\caption{A \& B}" in text
    assert text.index(r"\toprule") < text.index(r"a\_b") < text.rindex(r"\midrule") < text.index("raw")


@pytest.fixture
def runs(tmp_path):
    """Records of a plan whose second cell has no result and whose third failed."""
    records = Records(tmp_path / "runs")
    works = [
        {"cell": cell, "split": "xsub", "seed": 0, "pretraining": f"p{i}", "judgements": {"retrieval": "j"}}
        for i, cell in enumerate(["dual", "no-local", "no-global", "raw"])
    ]
    write_json(
        records.plan_file("plan"),
        {
            "name": "plan",
            "command": "python sweeps/run.py ablation=stm",
            "ablation": "stm",
            "title": "T",
            "source": "S",
            "differs": {},
            "labels": {"retrieval": "1-NN"},
            "reference": "dual",
            "data": "demo",
            "scale": "demo",
            "setting": "paper",
            "written": 1.0,
            "works": works,
        },
    )
    for i, correct in ((0, "1110"), (3, "1000")):
        result = {"top1": 100 * correct.count("1") / 4, "correct": [correct], "protocol": "retrieval", "data": "demo"}
        result |= {"fingerprint": "f", "split": "xsub", "pooling": "mean", "recipe": "1-NN", "selection": "last"}
        write_json(records.result_file(f"p{i}", "j"), result | {"train_clips": 4, "test_clips": 4})
    write_json(records.run("p2") / "failure.json", {"reason": "out of memory"})
    return records


def test_what_is_missing_shows_as_missing_and_what_failed_as_failed(runs):
    import json

    table = ablation_table(json.loads(runs.plan_file("plan").read_text()), runs)
    rows = {str(row[0]): [str(cell) for cell in row] for row in table.rows}
    assert rows["dual"][3].startswith("75.0") and rows["dual"][1] == "87.7"
    assert rows["no-local"][3] == "missing" and rows["no-global"][3] == "failed"
    assert rows["raw"][4].startswith("-50.0")
    assert any("bootstrap over test clips" in note for note in table.notes)
    assert any("demo (f), joint stream, split xsub" in note for note in table.notes), "what has no stream is of joints"


def test_the_command_writes_every_format_and_refuses_unknown_arguments(runs, tmp_path, capsys):
    assert main([f"runs={runs.root}", "table=stm", f"out={tmp_path / 'out'}"]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["plan.csv", "plan.md", "plan.tex", "plan.txt"]
    assert "75.0" in capsys.readouterr().out
    with pytest.raises(ValueError, match="did you mean 'table'"):
        main(["tabel=stm"])
    with pytest.raises(ValueError, match=r"run python sweeps/run\.py first"):
        main([f"runs={runs.root}", "table=saa"])


def test_published_numbers_of_methods_stand_beside_their_cells():
    columns = published_columns("methods", f"{SLIM}, Table 2")
    assert [columns[f"published {split}"]["mamp"] for split in ("X-Sub", "X-View")] == ["84.9", "89.1"]
    assert columns["published X-Sub"]["sjepa"] == "85.3" and columns["published X-Sub"]["pstl"] == "77.3"
    assert published_columns("masking", "") == {} and published_columns("", "") == {}


def test_published_numbers_of_few_labels_and_of_transfer_have_a_column_each():
    semi = published_columns("semi", f"{SLIM}, Table 3")
    assert semi["published 1 % X-Sub"]["mamp"] == "66.0" and semi["published 10 % X-View"]["slim"] == "91.9"
    assert published_columns("retrieval", f"{SLIM}, Table 4")["published X-View"]["slim"] == "89.9"
    assert [t.split()[1] for t in semi] == ["1", "1", "10", "10"]
    moved = published_columns("transfer", f"{SLIM}, Table 8")
    assert list(moved) == ["published NTU-60 to PKU-MMD II", "published NTU-120 to PKU-MMD II"]
    assert moved["published NTU-60 to PKU-MMD II"]["mamp"] == "70.6"
    assert "almost certainly fine-tuned" in what_is_published(moved, f"{SLIM}, Table 8")
    assert "share of NTU-60's labels" in what_is_published(semi, f"{SLIM}, Table 3")


def folded(draws: list[str]) -> dict:
    return {"correct": draws, "top1": 100 * draws[0].count("1") / len(draws[0]), "test_clips": len(draws[0])}


def test_folds_are_put_together_clip_by_clip():
    found = {("a", "fold:0", "p"): {0: folded(["110"])}, ("a", "fold:1", "p"): {0: folded(["0"]), 1: folded(["1"])}}
    results, splits = folds_together(found, ["fold:0", "fold:1"])
    assert splits == ["2 folds"] and set(results["a", "2 folds", "p"]) == {0}  # seed 1 has one fold alone
    assert results["a", "2 folds", "p"][0]["correct"] == ["1100"]
    assert results["a", "2 folds", "p"][0]["test_clips"] == 4
    assert folds_together(found, ["fold:0"]) == (found, ["fold:0"])
    assert folds_together(found, ["xsub", "fold:0"]) == (found, ["xsub", "fold:0"])


def test_further_metrics_and_other_data_have_their_place(runs):
    import json

    plan = json.loads(runs.plan_file("plan").read_text()) | {"show": {"retrieval": ["map100", "parameters"]}}
    path = runs.result_file("p0", "j")
    told = {"map100": 12.34, "parameters": 12345.0, "trained_on": "irds"}
    told |= {"joints_shared": ["head"], "joints_unknown": ["neck"]}
    write_json(path, json.loads(path.read_text()) | told)
    table = ablation_table(plan, runs)
    row = dict(zip(table.columns, map(str, table.rows[0])))
    assert row["map100 xsub"] == "12.3" and row["parameters xsub"] == "12,345"
    assert any("data demo (f), trained on irds" in note for note in table.notes)
    assert any("joints of demo known by name: 1; embedded as a neighbour: neck" in note for note in table.notes)


def test_a_transfers_column_names_its_target_and_stands_in_its_place(runs):
    import json

    plan = json.loads(runs.plan_file("plan").read_text())
    here, there = "transfer:nwucla frozen", "transfer:nwucla fine-tuned"
    plan["labels"] = {here: "frozen on nwucla", there: "fine-tuned on nwucla", "retrieval": "1-NN"}
    for work in plan["works"]:
        work["judgements"] = {here: "j"} | ({} if work["cell"] == "raw" else {there: "j"}) | {"retrieval": "j"}
    plan["works"].insert(0, plan["works"].pop())  # raw coordinates come first, as floors do
    found = ablation_table(plan, runs).columns
    assert [c for c in found if "nwucla" in c or "1-NN" in c] == [
        "frozen on nwucla",
        "fine-tuned on nwucla",
        "1-NN xsub",
    ]


def test_what_an_audit_said_stands_below_the_table(runs):
    import json

    plan, path = json.loads(runs.plan_file("plan").read_text()), runs.result_file("p0", "j")
    assert not any("audit" in note for note in ablation_table(plan, runs).notes)
    write_json(path, json.loads(path.read_text()) | {"audit": "3 of 4 test clips have an identical training clip"})
    notes = ablation_table(plan, runs).notes
    assert [n for n in notes if n.startswith("audit of demo xsub: 3 of 4 test clips have an identical")]


def test_folds_put_together_say_what_was_said_of_each():
    found = {("a", f"fold:{k}", "p"): {0: folded(["1"]) | {"audit": said}} for k, said in enumerate(["x", "x", "y"])}
    results, _ = folds_together(found, ["fold:0", "fold:1", "fold:2"])
    assert results["a", "3 folds", "p"][0]["audit"] == "x; y"


def test_numbers_made_by_another_commit_than_most_are_marked(runs):
    import json

    plan = json.loads(runs.plan_file("plan").read_text())
    for i, commit in ((0, "aaa"), (1, "bbb"), (3, "aaa")):
        path = runs.result_file(f"p{i}", "j")
        known = json.loads((path if path.is_file() else runs.result_file("p0", "j")).read_text())
        write_json(path, known | {"commit": commit, "dirty": i == 1})
    told = {"machine": "m", "torch": "t", "clips_per_second": None, "seconds": 0}
    write_json(runs.run("p0") / "run.json", told | {"commit": "aaa", "dirty": False})
    table = ablation_table(plan, runs)
    rows = {str(row[0]): [str(cell) for cell in row] for row in table.rows}
    assert rows["no-local"][3].endswith("†") and not any("†" in rows[cell][3] for cell in ("dual", "raw"))
    note = next(note for note in table.notes if note.startswith("commit "))
    assert note.startswith("commit aaa; † MIXED: the encoder or the result was made by another one (bbb+changes); m")
    assert r"$^\dagger$" in as_latex(table) and "MIXED" not in " ".join(
        ablation_table(plan | {"works": plan["works"][:1]}, runs).notes
    )

    write_json(runs.result_file("p1", "j"), known | {"commit": "aaa", "dirty": False})
    write_json(runs.run("p1") / "run.json", told | {"commit": "ccc", "dirty": False})
    again = {str(row[0]): str(row[3]) for row in ablation_table(plan, runs).rows}
    assert again["no-local"].endswith("†"), "its encoder was trained by another one"
