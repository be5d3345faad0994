"""The table of settings says what is really built."""

from __future__ import annotations

import pytest

from methods.base import all_methods
from reports import make
from reports.counting import Costs
from reports.settings import settings_table


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[tuple[str, str], dict[str, str]]:
    """At the papers' scale, whose costs are remembered; test_costs_table.py holds them to what is counted."""
    table = settings_table(counted=Costs(tmp_path_factory.mktemp("runs")).counted)
    return {(r[0], r[1]): dict(zip(table.columns, r)) for r in table.rows}


def test_every_method_stands_there_in_both_settings(rows):
    assert set(rows) == {(m, s) for m in all_methods() for s in ("matched", "paper")}


def test_what_matched_makes_equal_is_equal(rows):
    matched = [row for (_, setting), row in rows.items() if setting == "matched" and row["steps"] != "-"]
    for column in ("frames", "patch", "tokens", "clips a step", "steps"):
        assert len({row[column] for row in matched}) == 1, column


def test_rows_are_what_the_methods_do(rows):
    mamp, slim = rows["mamp", "paper"], rows["slim", "paper"]
    assert (mamp["patch"], mamp["tokens"], mamp["encoded"]) == (
        "4 x 1",
        "750",
        "74",
    )  # int(750 x 0.1) in floating point
    assert (slim["patch"], slim["tokens"], slim["encoded"]) == ("8 x 1", "200", "205")
    assert slim["loss terms"] == "mfm, glcl, koleo" and mamp["loss terms"] == "one"
    assert float(slim["training only, M"]) > float(slim["encoder, M"])
    assert rows["skeletonclr", "paper"]["augmentation"] == "shear 0.5 (1)"
    assert rows["slim_released", "paper"]["augmentation"].endswith("(0.5), noise, dropped axes")
    assert "noise" not in rows["slim_released", "matched"]["augmentation"] + rows["slim", "paper"]["augmentation"]
    terms = {"sjepa": "one", "amr": "one", "aimclr": "contrast, d3m, d3m_dropped"}
    assert {method: rows[method, "paper"]["loss terms"] for method in terms} == terms
    assert rows["untrained", "paper"]["GFLOPs a clip"] == "-"


def test_the_command_prints_it(capsys, tmp_path):
    assert make.main(["table=settings", f"runs={tmp_path / 'runs'}", f"out={tmp_path}"]) == 0
    assert "What each method uses" in capsys.readouterr().out and (tmp_path / "settings.tex").is_file()
    assert not (tmp_path / "runs").exists(), "what it costs at the papers' scale is known"
