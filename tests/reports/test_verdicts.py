"""Verdicts: the rule, branch by branch, on records made up for it; and that the claims are what the papers say."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from reports.claims import claims
from reports.formats import as_text
from reports.intervals import Estimate, estimate
from reports.literature import PUBLISHED
from reports.verdicts import decide, holm, p_value, verdict_tables, verdicts_of
from sweeps.records import Records, write_json

ABLATIONS = Path(__file__).resolve().parents[2] / "sweeps" / "conf" / "ablation"
CLIPS = 100
CLAIM = {claim.id: claim for claim in claims()}
BEATS, KEEPS = CLAIM["tube-beats-limited-global"], CLAIM["slim-keeps-up-with-gfp-10-percent"]


def gap(mean: float, half: float, seeds: int = 3, how: str = "seeds") -> Estimate:
    return Estimate(mean, mean - half, mean + half, how, seeds)


@pytest.mark.parametrize(
    ("claim", "found", "word"),
    [
        (BEATS, gap(2.0, 1.9), "reproduced"),
        (BEATS, gap(2.0, 2.1), "not decided"),
        (BEATS, gap(-2.0, 1.9), "contradicted"),
        (BEATS, gap(-2.0, 2.1), "not decided"),
        (BEATS, gap(0.0, 0.0), "not decided"),
        (BEATS, gap(9.0, 0.1, seeds=2, how="clips"), "not decided"),
        (BEATS, gap(9.0, 0.1, seeds=1, how="clips"), "not decided"),
        (KEEPS, gap(-0.5, 0.4), "reproduced"),
        (KEEPS, gap(5.0, 0.4), "reproduced"),
        (KEEPS, gap(-0.5, 0.6), "not decided"),
        (KEEPS, gap(-3.0, 1.9), "contradicted"),
        (KEEPS, gap(-3.0, 2.1), "not decided"),
    ],
)
def test_the_rule(claim, found, word):
    assert decide(claim, found, "small", "nwucla")[0] == word
    assert decide(claim, found, "paper", "ntu60")[0] == word
    assert decide(claim, found, "demo", "nwucla") == ("not decided", "demo scale")
    assert decide(claim, found, "small", "demo") == ("not decided", "synthetic clips")


def test_few_seeds_are_named_as_the_reason():
    assert decide(BEATS, gap(9.0, 0.1, 2, "clips"), "small", "nwucla")[1] == "2 seeds, 3 are needed"
    assert decide(BEATS, gap(9.0, 0.1, 1, "clips"), "small", "nwucla")[1] == "1 seed, 3 are needed"


def test_p_is_that_of_the_t_test_and_agrees_with_the_interval():
    means = [1.0, 2.5, 1.7, 0.4]
    found = estimate([np.full(5, m / 100) for m in means])
    assert p_value(found) == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert p_value(found, -1.0) == pytest.approx(stats.ttest_1samp(means, -1.0).pvalue)
    assert p_value(gap(1.0, 1.0)) == pytest.approx(0.05)
    assert p_value(gap(1.0, 1.0, 1, "clips")) is None
    assert p_value(gap(1.0, 0.0)) == 0 and p_value(gap(0.0, 0.0)) == 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0] and holm([]) == []


Scores = dict[str, list[float]]


def runs_of(folder: Path, scores: Scores, **plan: Any) -> tuple[Records, dict[str, Any]]:
    """Records of a plan: cell -> accuracy of each seed in percent; a cell without any has no result."""
    records, protocol = Records(folder), plan.pop("protocol", "linear")
    metrics = plan.pop("metrics", {})
    works = []
    for cell, values in scores.items():
        for seed, value in enumerate(values or [0.0]):
            run = f"{cell}{seed}".replace(" ", "")
            works.append(
                {"cell": cell, "split": "xview", "seed": seed, "pretraining": run, "judgements": {protocol: "j"}}
            )
            right = round(value / 100 * CLIPS)
            result = {"top1": value, "correct": ["1" * right + "0" * (CLIPS - right)], "seed": seed, "commit": "c0ffee"}
            if values:
                write_json(records.result_file(run, "j"), {**result, **metrics, "identity": "j", "pretraining": run})
    wanted = {
        "name": "p",
        "command": "python sweeps/run.py ablation=stm",
        "ablation": "stm",
        "title": "T",
        "source": "S",
    }
    wanted |= {"labels": {}, "data": "nwucla", "scale": "small", "setting": "paper", "works": works, **plan}
    return records, wanted


def words(records: Records, plan: dict[str, Any]) -> dict[str, str]:
    return {v.claim.id: v.printed for v in verdicts_of(plan, records)}


STM: Scores = {"dual": [60, 62, 61], "limited-global": [50, 52, 52], "limited-local": [66, 68, 68], "no-global": []}


def test_verdicts_of_a_plan(tmp_path):
    found = words(*runs_of(tmp_path, STM))
    assert found == {
        "tube-beats-limited-global": "reproduced on nwucla, small",
        "tube-beats-limited-local": "contradicted on nwucla, small",
        "global-mask-helps": "not tested",
        "local-mask-helps": "not tested",
    }


def test_seeds_are_paired_not_pooled(tmp_path):
    together = words(*runs_of(tmp_path / "a", {"dual": [30, 50, 70], "limited-global": [28, 47, 68]}))
    shuffled = words(*runs_of(tmp_path / "b", {"dual": [30, 50, 70], "limited-global": [68, 28, 47]}))
    assert together["tube-beats-limited-global"].startswith("reproduced")
    assert shuffled["tube-beats-limited-global"] == "not decided"


def test_the_table_counts_and_shows_what_is_missing(tmp_path):
    records, plan = runs_of(tmp_path, STM)
    (table,) = verdict_tables(records, [plan, {**plan, "ablation": "", "works": []}])
    rows = {row[0]: dict(zip(table.columns, row)) for row in table.rows}
    first, empty = rows[BEATS.claim], rows["Masking the global view helps"]
    assert first["published"] == "+3.5 / +2.3" and str(first["difference"]).startswith("+9.7 ±")
    assert first["seeds"] == "3" and empty["published"].endswith("*")
    assert empty["difference"].missing == plan["command"] and empty["because"] == "no result of no-global"
    assert table.notes[0] == "4 tests: 1 reproduced, 0 not decided, 1 contradicted, 2 not tested"
    assert any("over these 2, 2 differ" in note for note in table.notes)
    assert any("ablation=saa data=nwucla scale=small" in note for note in table.notes)
    source = table.sources[first["difference"].source]
    assert [run["cell"] for run in source.runs] == ["dual"] * 3 + ["limited-global"] * 3
    assert source.runs[0]["value"] == pytest.approx(60) and source.facts["95 % interval"].endswith("(over seeds)")
    assert "reproduces" not in as_text(table)


def test_several_data_sets_are_set_side_by_side(tmp_path):
    records, plan = runs_of(tmp_path, STM)
    table, *each = verdict_tables(records, [plan, {**plan, "data": "sbu", "setting": "matched"}])
    assert [t.name for t in each] == ["verdicts-nwucla-small-paper", "verdicts-sbu-small-matched"]
    assert table.columns == ["claim", "published", "nwucla small", "sbu small matched"]
    assert str(table.rows[0][2]) == "reproduced (+9.7)" and str(table.rows[2][3]) == "not tested"
    assert len(table.rows) == 4


def test_demo_scale_shows_the_difference_and_decides_nothing(tmp_path):
    (table,) = verdict_tables(*(lambda records, plan: (records, [plan]))(*runs_of(tmp_path, STM, scale="demo")))
    first = dict(zip(table.columns, map(str, table.rows[0])))
    assert first["difference"].startswith("+9.7")
    assert (first["verdict"], first["because"]) == ("not decided", "demo scale")


def test_one_pooling_serves_a_claim_about_native_pooling_and_transfer_any_target(tmp_path):
    scores: Scores = {"slim": [60, 61, 62], "mamp": [50, 51, 50]}
    found = words(*runs_of(tmp_path / "a", scores, ablation="methods"))
    assert found["slim-beats-mamp-linear"] == "reproduced on nwucla, small"
    other = "transfer:utdmhad fine-tuned"
    found = words(*runs_of(tmp_path / "b", scores, ablation="transfer", protocol=other))
    assert found["slim-beats-mamp-transfer"] == "reproduced on nwucla, small"
    frozen = words(*runs_of(tmp_path / "c", scores, ablation="transfer", protocol="transfer:utdmhad frozen"))
    assert frozen["slim-beats-mamp-transfer"] == "not tested"
    synthetic = words(*runs_of(tmp_path / "d", scores, ablation="transfer", protocol="transfer:demo20 fine-tuned"))
    assert synthetic["slim-beats-mamp-transfer"] == "not decided"


@pytest.mark.parametrize(
    ("teacher", "fewer", "word"),
    [
        (60.5, 91.4, "reproduced"),
        (66.0, 91.4, "contradicted"),
        (61.5, 91.4, "not decided"),
        (66.0, 97.0, "not decided"),  # smaller than the student of the claim
        (60.5, 50.0, "not decided"),  # larger
        (60.5, 97.0, "reproduced"),
    ],
)
def test_a_student_is_compared_with_its_own_teacher(tmp_path, teacher, fewer, word):
    metrics = {"teacher_top1": teacher, "parameter_reduction": fewer, "published_parameter_reduction": 91.4}
    records, plan = runs_of(
        tmp_path, {"asma-narrow": [60.0, 60.2, 60.4]}, ablation="distill", protocol="distill", metrics=metrics
    )
    (found,) = verdicts_of(plan, records)
    assert found.word == word and f"{fewer:.1f} % fewer parameters" in found.reason


def test_every_claim_can_be_tested_and_has_a_source():
    assert len({claim.id for claim in claims()}) == len(claims()) > 40
    for claim in claims():
        ablation = yaml.safe_load((ABLATIONS / f"{claim.ablation}.yaml").read_text())["ablation"]
        assert {claim.a, claim.b} - {"@teacher"} <= set(ablation["cells"]), claim.id
        assert claim.test in ("greater", "keeps") and (claim.margin > 0) == (claim.test == "keeps"), claim.id
        assert claim.source and claim.place and claim.claim, claim.id
        assert claim.published or "no numbers" in claim.note or "published for fine-tuning" in claim.note, claim.id


def rows_of(file: str) -> list[dict[str, str]]:
    with open(PUBLISHED / file, newline="") as opened:
        return list(csv.DictReader(opened))


def test_published_differences_of_ablations_are_those_of_their_table():
    table = {(row["ablation"], row["cell"]): row for row in rows_of("ablations.csv")}
    known = [claim for claim in claims() if (claim.ablation, claim.a) in table]
    assert len(known) == 15
    for claim in known:
        a, b = table[claim.ablation, claim.a], table[claim.ablation, claim.b]
        for place, column in (("ntu60 xsub", "ntu60_xsub_top1"), ("ntu60 xview", "ntu60_xview_top1")):
            assert claim.published[place] == pytest.approx(float(a[column]) - float(b[column])), claim.id
        assert claim.inferred == ("yes" in (a["cell_inferred"], b["cell_inferred"])), claim.id
        assert claim.place == f"Table {a['table']}"


def test_published_differences_of_methods_are_those_of_their_table():
    spelling = {"slim": "SLiM", "skeletonmae": "SkeletonMAE", "mamp": "MAMP", "sjepa": "S-JEPA", "gfp": "GFP"}
    spelling |= {"aimclr": "AimCLR", "pstl": "PTSL"}
    value = {
        (r["table"], r["label_fraction"], r["method"], f"{r['dataset']} {r['split']}"): float(r["value"])
        for r in rows_of("accuracies.csv")
    }
    known = [claim for claim in claims() if claim.source.startswith("SLiM") and claim.a in spelling]
    assert len(known) == 23
    for claim in known:
        table = claim.place.partition(";")[0].removeprefix("Table ")
        share = claim.protocol.partition(":")[2]
        assert len(claim.published) == 2
        for place, difference in claim.published.items():
            a, b = (value[table, share, spelling[cell], place] for cell in (claim.a, claim.b))
            assert difference == pytest.approx(a - b), (claim.id, place)
