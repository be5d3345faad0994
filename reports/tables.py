"""A plan's table: what was measured beside what was published, never mixed up with it.

Rows are cells; the floors (untrained encoder, raw coordinates) stand below. Every measured number has its interval, and
the difference to the reference cell is paired, seed by seed and clip by clip.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reports.intervals import Estimate, difference, estimate, scores
from sweeps.records import Records

PUBLISHED = Path(__file__).resolve().parent / "published"
MISSPELT = {"ptsl": "pstl"}  # in SLiM's tables
FLOORS = {"untrained": "untrained encoder", "raw": "raw coordinates"}


@dataclass
class Table:
    """Strings in rows and columns, with a title above and notes below."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    rule_before: int | None = None  # a line separates the rows from here on (the floors)


def published_cells(ablation: str, source: str = "") -> dict[str, dict[str, str]]:
    """cell -> its published accuracies: the ablation's rows of ablations.csv, or else the methods' linear probes in the
    table of accuracies.csv that `source` names, e.g. "SLiM (arXiv 2603.10648), Table 2"."""
    with open(PUBLISHED / "ablations.csv", newline="") as file:
        found = {row["cell"]: row for row in csv.DictReader(file) if row["ablation"] == ablation}
    if found or not ablation:
        return found
    with open(PUBLISHED / "accuracies.csv", newline="") as file:
        for row in csv.DictReader(file):
            if (row["protocol"], row["dataset"]) == (
                "linear",
                "ntu60",
            ) and source == f"{row['source']}, Table {row['table']}":
                cell = row["method"].lower().replace("-", "")
                one = found.setdefault(MISSPELT.get(cell, cell), {"cell_inferred": "no"})
                one[f"ntu60_{row['split']}_top1"] = row["value"]
    return found


def results_of(plan: dict[str, Any], records: Records) -> dict[tuple[str, str, str], dict[int, dict]]:
    """(cell, split, protocol) -> seed -> result, as far as there are any."""
    found: dict[tuple[str, str, str], dict[int, dict]] = {}
    for work in plan["works"]:
        for protocol, judgement in work["judgements"].items():
            result = records.result(work["pretraining"], judgement)
            if result is not None:
                found.setdefault((work["cell"], work["split"], protocol), {})[work["seed"]] = result
    return found


def ablation_table(plan: dict[str, Any], records: Records) -> Table:
    """The table of a plan.

    Args:
        plan: as `sweeps/run.py` left it in runs/plans.
        records: the runs.
    """
    results = results_of(plan, records)
    cells = list(dict.fromkeys(w["cell"] for w in plan["works"] if w["cell"] not in FLOORS))
    floors = [c for c in FLOORS if any(w["cell"] == c for w in plan["works"])]
    splits = list(dict.fromkeys(w["split"] for w in plan["works"]))
    protocols = list(dict.fromkeys(p for w in plan["works"] for p in w["judgements"]))
    published = published_cells(plan["ablation"], plan["source"])
    reference = plan["reference"] if plan["reference"] in cells else ""
    differs = {**FLOORS, **plan["differs"]}

    columns = ["cell", *(["what differs"] if plan["differs"] else [])]
    columns += ["published X-Sub", "published X-View"] if published else []
    for split in splits:
        for protocol in protocols:
            columns.append(f"{label_of(plan, protocol)} {split}")
            if reference:
                columns.append(f"to {reference}")
    rows = []
    for cell in [*cells, *floors]:
        row = [cell, *([differs.get(cell, "")] if plan["differs"] else [])]
        if published:
            source = published.get(cell, {})
            mark = "*" if source.get("cell_inferred") == "yes" else ""
            row += [f"{source[k]}{mark}" if k in source else "-" for k in ("ntu60_xsub_top1", "ntu60_xview_top1")]
        for split in splits:
            for protocol in protocols:
                mine = results.get((cell, split, protocol))
                found = estimate([scores(r) for r in mine.values()]) if mine else None
                row.append(_number(found) if found else _hole(plan, records, cell, protocol))
                if reference:
                    base = results.get((reference, split, protocol))
                    seeds = dict.fromkeys(base, mine[0]) if mine and base and cell == "raw" else mine
                    gap = difference(seeds, base) if seeds and base and cell != reference else None
                    row.append(_signed(gap) if gap else "")
        rows.append(row)
    table = Table(plan["name"], plan["title"], columns, rows, rule_before=len(cells) if floors else None)
    table.notes = _notes(plan, records, results, published)
    return table


def label_of(plan: dict[str, Any], protocol: str) -> str:
    """A protocol's heading, as the plan has it."""
    return plan["labels"].get(protocol, protocol)


def _number(e: Estimate) -> str:
    return f"{e.mean:.1f}" + (f" ±{e.half:.1f}" if e.how != "none" else "")


def _signed(e: Estimate) -> str:
    return f"{e.mean:+.1f}" + (f" ±{e.half:.1f}" if e.how != "none" else "")


def _hole(plan: dict[str, Any], records: Records, cell: str, protocol: str) -> str:
    """What stands where a result is missing."""
    if not any(protocol in w["judgements"] for w in plan["works"] if w["cell"] == cell):
        return "-"
    failed = any(records.failure(w["pretraining"]) for w in plan["works"] if w["cell"] == cell)
    return "failed" if failed else "missing"


def _notes(
    plan: dict[str, Any],
    records: Records,
    results: dict[tuple[str, str, str], dict[int, dict]],
    published: dict,
) -> list[str]:
    notes = []
    if published:
        stars = any(row["cell_inferred"] == "yes" for row in published.values())
        inferred = "; * which cell this is was inferred" if stars else ""
        notes.append(f"published: {plan['source']}, linear probe on NTU-60, top-1 %{inferred}")
    one = [r for by_seed in results.values() for r in by_seed.values()]
    for split in dict.fromkeys(r["split"] for r in one):
        some = next(r for r in one if r["split"] == split)
        notes.append(
            f"measured: data {some['data']} ({some['fingerprint']}), split {split}: {some['train_clips']} training and "
            f"{some['test_clips']} test clips; scale {plan['scale']}, setting {plan['setting']}; top-1 %"
        )
        twins = [(c, p, by) for (c, s, p), by in results.items() if s == split]
        shown = [
            f"{c} {label_of(plan, p)} {sum(r['top1_without_twins'] for r in by.values()) / len(by):.1f}"
            for c, p, by in twins
            if all("top1_without_twins" in r for r in by.values())
        ]
        if shown:
            clips = next(r["clips_without_twins"] for r in one if "clips_without_twins" in r)
            notes.append(f"on the {clips} test clips of {split} without an identical training clip: {', '.join(shown)}")
    native = any(p.endswith(" native") for _, _, p in results)
    for protocol in dict.fromkeys(r["protocol"] for r in one):
        some = next(r for r in one if r["protocol"] == protocol and r["pooling"] != "raw") if one else {}
        pooling = some["pooling"] if not native else "mean of patch tokens; native: the method's own (class token)"
        notes.append(f"{label_of(plan, protocol)}: {some['recipe']}, pooling {pooling}; {some['selection']}")
    seeds = sorted({w["seed"] for w in plan["works"]})
    how = (
        "Student's t over seeds" if len(seeds) >= 3 else "bootstrap over test clips (too few seeds for one over seeds)"
    )
    notes.append(f"seeds {seeds}; ± is half of a 95 % interval: {how}; differences are paired")
    runs = [records.about(w["pretraining"]) for w in plan["works"] if w["pretraining"] != "raw"]
    runs = [r for r in runs if r]
    if runs:
        commits = sorted({r["commit"] + ("+changes" if r["dirty"] else "") for r in runs})
        mixed = " (MIXED)" if len(commits) > 1 else ""
        trained = [r for r in runs if r["clips_per_second"]]
        notes.append(
            f"commit {', '.join(commits)}{mixed}; {runs[0]['machine']}, torch {runs[0]['torch']}; "
            f"training {sum(r['seconds'] for r in trained):.0f} s in all"
        )
    notes.append(f"made by: {plan['command']}")
    return notes


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


_TEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$", "$": r"\$", "~": r"\textasciitilde{}"}


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
