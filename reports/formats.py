"""A table of cells, and how it is written: for the terminal, as Markdown, CSV and LaTeX. The page is in page.py.

A cell is plain text, or a `Cell` that knows its number, its place in the column, where it comes from or what would fill
it. Where cells are ranked the best of a column is bold and the second underlined: of the point estimates as printed, no
test of significance.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

RANKED = "bold is the best and underlined the second of a column, floors apart: point estimates, no significance"


NUMBER = re.compile(r"[-+−<~]?[\d,]*\.?\d+")
BLANK = ("", "-", "missing", "failed")


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table.

    Attributes:
        text: as printed.
        value: to sort and rank by; None sorts last and has no rank.
        rank: 1 for the best of its column, 2 for the second, else 0; `rank_columns` sets it.
        source: key of the table's `sources`, "" where there is none.
        missing: the command that would fill it, "" where nothing is missing.
    """

    text: str
    value: float | None = None
    rank: int = 0
    source: str = ""
    missing: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Source:
    """Where a number comes from: what the page shows when one clicks it.

    Attributes:
        what: e.g. "dual, 1-NN, X-Sub".
        runs: of each run, {"seed", "value", "run" (identity), "result" (identity), "commit", "machine", "date"}, as far
            as known.
        settings: configuration that differs from the defaults, dotted name -> value.
        facts: anything else, label -> text.
        command: what makes it again.
    """

    what: str
    runs: tuple[dict[str, Any], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    command: str = ""


@dataclass
class Table:
    """Cells in rows and columns, with a title above and notes below.

    Attributes:
        name: of its files and of its anchor on the page.
        rule_before: a line separates the rows from here on (the floors); they are not ranked and stay below.
        section: heading under which the page shows it.
        label: which of a paper's tables it is, e.g. "Table 6".
        tags: what the page filters tables by: {"data": "nwucla", "scale": "small"}.
        column_tags: of each column, what the page filters columns by: {"protocol": "1-NN", "split": "xsub"}; none: all
            columns always show. A tag that is not there is never filtered by.
        row_tags: of each row, the same.
        sources: key -> where a number comes from.
    """

    name: str
    title: str
    columns: list[str]
    rows: Sequence[Sequence[str | Cell]]
    notes: list[str] = field(default_factory=list)
    rule_before: int | None = None
    section: str = ""
    label: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    column_tags: list[dict[str, str]] = field(default_factory=list)
    row_tags: list[dict[str, str]] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)


def rank_columns(table: Table, columns: Collection[int], lowest: bool = False) -> None:
    """Mark the best and the second of each of these columns, by what is printed; equals share a place. Floors and
    columns in which all are equal have no place.

    Args:
        lowest: the lowest number is best.
    """
    rows = [list(row) for row in table.rows]
    for i in columns:
        ranked = [row for row in rows[: table.rule_before] if _shown(row[i]) is not None]
        places = sorted({_shown(row[i]) or 0.0 for row in ranked}, reverse=not lowest)
        for row in ranked if len(places) > 1 else ():
            place = places.index(_shown(row[i]) or 0.0)
            if place < 2:
                row[i] = replace(as_cell(row[i]), rank=place + 1)
    table.rows = rows


def _shown(cell: str | Cell) -> float | None:
    """The number as printed, so that two that look alike share a place."""
    if not isinstance(cell, Cell) or cell.value is None:
        return None
    found = NUMBER.match(cell.text)
    return float(found[0].strip("<~").replace(",", "").replace("−", "-")) if found else cell.value


def as_cell(cell: str | Cell) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(cell)


def right_aligned(table: Table, column: int) -> bool:
    """A column of numbers; the first column names the rows."""
    texts = [str(row[column]) for row in table.rows]
    known = [text for text in texts if text not in BLANK]
    return column > 0 and (
        2 * sum(bool(NUMBER.match(text)) for text in known) > len(known) or (column > 1 and not known)
    )


def as_text(table: Table) -> str:
    """For the terminal."""
    rows = [[" ".join(str(cell).split()) for cell in row] for row in table.rows]
    widths = [max(len(r[i]) for r in [table.columns, *rows]) for i in range(len(table.columns))]
    right = [right_aligned(table, i) for i in range(len(table.columns))]

    def line(cells: list[str]) -> str:
        return "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right)).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    body = [line(r) for r in rows]
    if table.rule_before is not None:
        body.insert(table.rule_before, rule)
    return "\n".join([table.title, rule, line(table.columns), rule, *body, rule, *table.notes]) + "\n"


def as_markdown(table: Table) -> str:
    """GitHub's tables; the second is underlined by `ins`, which GitHub lets through and `u` not."""

    def plain(text: str) -> str:
        return re.sub(r"([\\`*|<>\[\]]|\b_|_\b)", r"\\\1", " ".join(text.split()))  # a_b is no emphasis

    def mark(cell: str | Cell) -> str:
        text = plain(str(cell))
        return {1: f"**{text}**", 2: f"<ins>{text}</ins>"}.get(as_cell(cell).rank, text)

    lines = [f"### {plain(table.title)}", "", "| " + " | ".join(map(plain, table.columns)) + " |"]
    lines.append("|" + "|".join("---:" if right_aligned(table, i) else "---" for i in range(len(table.columns))) + "|")
    lines += ["| " + " | ".join(map(mark, r)) + " |" for r in table.rows]
    notes = [*table.notes, *([RANKED] if is_ranked(table) else [])]
    return "\n".join([*lines, "", *(f"- {plain(n)}" for n in notes)]) + "\n"


def as_csv(table: Table) -> str:
    """Columns and rows; the notes as comment lines at the end."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([table.columns, *table.rows])
    return out.getvalue() + "".join(f"# {' '.join(n.split())}\n" for n in table.notes)


def is_ranked(table: Table) -> bool:
    """Some cell is the best or the second of its column."""
    return any(as_cell(cell).rank for row in table.rows for cell in row)


_LETTERS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi "
_LETTERS += "pi rho sigma tau upsilon phi chi psi omega"
_GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψω", _LETTERS.split()))
_TEX = {c: "\\" + c for c in "&%_#${}"} | {c: rf"$\{name}$" for c, name in _GREEK.items()}
_TEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"}
_TEX |= {"<": r"\textless{}", ">": r"\textgreater{}", '"': "''", "’": "'", "–": "--", "—": "---", "…": r"\dots{}"}
_TEX |= {
    "†": r"$^\dagger$",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\to$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "·": r"$\cdot$",
}


def as_latex(table: Table) -> str:
    """A booktabs table; what follows % is for the one who opens the file."""

    def tex(text: str) -> str:
        escaped = "".join(_TEX.get(c, c) for c in " ".join(text.split()))
        return re.sub(r"(?<![\w}.])-(?=\d)", "$-$", escaped)  # a minus, not a hyphen

    def mark(cell: str | Cell) -> str:
        text = tex(str(cell))
        return {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(as_cell(cell).rank, text)

    def line(cells: Sequence[str | Cell]) -> str:
        text = " & ".join(map(mark, cells)) + r" \\"
        return "{}" + text if text[0] in "[*" else text  # not what the line break before it would read as its own

    body = [line(r) for r in table.rows]
    if table.rule_before is not None:
        body.insert(table.rule_before, r"\midrule")
    align = "".join("r" if right_aligned(table, i) else "l" for i in range(len(table.columns)))
    notes = [*table.notes, *([RANKED] if is_ranked(table) else [])]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            *(f"% {' '.join(n.split())}" for n in notes),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{tex(', '.join([table.title, *_where(table)]))}}}",
            rf"\label{{tab:{re.sub('[^A-Za-z0-9.-]+', '-', table.name)}}}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            line(table.columns),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _where(table: Table) -> list[str]:
    """What was measured on, in short."""
    return [f"{key} {table.tags[key]}" for key in ("data", "scale", "setting") if key in table.tags]


FORMATS = {"txt": as_text, "md": as_markdown, "csv": as_csv, "tex": as_latex}
