"""Markdown, LaTeX, CSV and text of one table that has everything, beside files to read and compare (`golden/`). After a
wanted change: `python -m tests.reports.test_golden` writes them anew; read the difference before you commit it."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.formats import FORMATS, Cell, Table, as_latex, as_markdown, rank_columns

GOLDEN = Path(__file__).parent / "golden"


def table() -> Table:
    rows = [
        ["a_b", "λ = 0.1, κ < 1 & τ > 0", Cell("87.7*", 87.7), Cell("63.0 ±3.9", 63.04), "", Cell("1,234", 1234)],
        ["50 %", r"x^2 ~ {y} \ $z$ #1 | <b>", Cell("85.3", 85.3), Cell("63.0 ±2.1", 62.96), "-1.5 ±0.3", "2,000"],
        ["[c→d]", "“é” – 2 × 3…", Cell("85.3", 85.3), Cell("61.5 ±4", 61.5), "+0.2", "-"],
        ["e", "`code` *star* _under_ [link]", "-", Cell("missing", missing="run"), "", Cell("failed", missing="run")],
        ["raw", "a floor\nin two lines", "-", Cell("99.0", 99.0), "-0.1", ""],
    ]
    found = Table("gold/en", "Tables & 100 % of _it_", ["cell", "what", "published", "1-NN", "to a_b", "n"], rows)
    found.notes = ["a note: 5 % of *all*,\non two lines", r"\input{/etc/passwd} is no command here"]
    found.rule_before, found.tags = 4, {"data": "nw_ucla", "scale": "small"}
    rank_columns(found, [2, 3])
    return found


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_table_is_written_as_agreed(suffix):
    assert FORMATS[suffix](table()) == (GOLDEN / f"everything.{suffix}").read_text()


def test_equals_share_a_place_and_floors_have_none():
    ranks = [[cell.rank if isinstance(cell, Cell) else 0 for cell in row[2:4]] for row in table().rows]
    assert ranks == [[1, 1], [2, 1], [2, 2], [0, 0], [0, 0]], "63.04 and 62.96 are printed alike"
    alone = Table("t", "t", ["a", "b"], [["x", Cell("5", 5.0)], ["y", Cell("5", 5.0)]])
    rank_columns(alone, [1])
    assert all(row[1].rank == 0 for row in alone.rows), "where all are equal none is best"
    rank_columns(
        costs := Table("t", "t", ["a", "b"], [["x", Cell("5", 5.0)], ["y", Cell("<4", 4.0)]]), [1], lowest=True
    )
    assert [row[1].rank for row in costs.rows] == [2, 1]


def test_no_text_breaks_out_of_its_place():
    latex, markdown = as_latex(table()), as_markdown(table())
    for line in latex.splitlines():
        if line.lstrip().startswith(r"\input"):
            raise AssertionError("a note became a command")
    cells = [line.replace(r"\&", "") for line in latex.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in cells} == {5}
    bars = {line.replace(r"\|", "").count("|") for line in markdown.splitlines() if line.startswith("|")}
    assert bars == {7} and "<b>" not in markdown.replace(r"\<b", "")


if __name__ == "__main__":
    for suffix, render in FORMATS.items():
        (GOLDEN / f"everything.{suffix}").write_text(render(table()))
