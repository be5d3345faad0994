"""A table of strings, and how it is written: for the terminal, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field


@dataclass
class Table:
    """Strings in rows and columns, with a title above and notes below."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    rule_before: int | None = None  # a line separates the rows from here on (the floors)


def as_text(table: Table) -> str:
    """For the terminal."""
    widths = [max(len(r[i]) for r in [table.columns, *table.rows]) for i in range(len(table.columns))]

    def line(cells: list[str]) -> str:
        texts = (c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths)))
        return "  ".join(texts).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    body = [line(r) for r in table.rows]
    if table.rule_before is not None:
        body.insert(table.rule_before, rule)
    return "\n".join([table.title, rule, line(table.columns), rule, *body, rule, *table.notes]) + "\n"


def as_markdown(table: Table) -> str:
    """GitHub's tables."""
    lines = [f"### {table.title}", "", "| " + " | ".join(table.columns) + " |"]
    lines.append("|" + "|".join("---" if i < 2 else "---:" for i in range(len(table.columns))) + "|")
    lines += ["| " + " | ".join(r) + " |" for r in table.rows]
    return "\n".join([*lines, "", *(f"- {n}" for n in table.notes)]) + "\n"


def as_csv(table: Table) -> str:
    """Columns and rows; the notes as comment lines at the end."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([table.columns, *table.rows])
    return out.getvalue() + "".join(f"# {n}\n" for n in table.notes)


_TEX = {
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "$": r"\$",
    "~": r"\textasciitilde{}",
}


def as_latex(table: Table) -> str:
    """A booktabs table."""

    def tex(text: str) -> str:
        return "".join(_TEX.get(c, c) for c in text)

    def line(cells: list[str]) -> str:
        return " & ".join(map(tex, cells)) + r" \\"

    body = [line(r) for r in table.rows]
    if table.rule_before is not None:
        body.insert(table.rule_before, r"\midrule")
    align = "".join("l" if i < 2 else "r" for i in range(len(table.columns)))
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            *(f"% {n}" for n in table.notes),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{tex(table.title)}}}",
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


FORMATS = {"txt": as_text, "md": as_markdown, "csv": as_csv, "tex": as_latex}
