"""The literature's numbers, as columns of a plan's table: from reports/published/*.csv, each with its source."""

from __future__ import annotations

import csv
import re
from pathlib import Path

PUBLISHED = Path(__file__).resolve().parent / "published"
MISSPELT = {"ptsl": "pstl"}  # in SLiM's tables
SPLITS = {"xsub": "X-Sub", "xview": "X-View", "xset": "X-Set"}
SETS = {"ntu60": "NTU-60", "ntu120": "NTU-120", "pkummd1": "PKU-MMD I", "pkummd2": "PKU-MMD II"}


def _rows(file: str) -> list[dict[str, str]]:
    with open(PUBLISHED / file, newline="") as opened:
        return list(csv.DictReader(opened))


def published_columns(ablation: str, source: str = "") -> dict[str, dict[str, str]]:
    """Title -> {cell: published accuracy}; a number whose cell had to be inferred is marked with a star.

    Args:
        ablation: its rows of ablations.csv; where it has none, the methods of a table of accuracies.csv, the cell being
            the method's name: of tables with NTU-60 that part alone, else (transfer) all.
        source: of that table, e.g. "SLiM (arXiv 2603.10648), Table 2".
    """
    found: dict[str, dict[str, str]] = {}
    for row in _rows("ablations.csv") if ablation else ():
        if row["ablation"] == ablation:
            star = "*" if row["cell_inferred"] == "yes" else ""
            for split in ("xsub", "xview"):
                found.setdefault(f"published {SPLITS[split]}", {})[row["cell"]] = row[f"ntu60_{split}_top1"] + star
    if found or not ablation:
        return found
    table = [row for row in _rows("accuracies.csv") if f"{row['source']}, Table {row['table']}" == source]
    plain = [row for row in table if row["dataset"] == "ntu60"]
    for row in plain or table:
        cell = row["method"].lower().replace("-", "")
        found.setdefault(_title(row), {})[MISSPELT.get(cell, cell)] = row["value"]
    return dict(sorted(found.items(), key=lambda column: _naturally(column[0])))


def _naturally(title: str) -> list[tuple[bool, int, str]]:
    """Numbers in a title sort as numbers: 1 % before 10 %, NTU-60 before NTU-120."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", title)]


def _title(row: dict[str, str]) -> str:
    share = f"{100 * float(row['label_fraction']):g} % " if row["label_fraction"] else ""
    if "->" not in row["dataset"]:
        return f"published {share}{SPLITS[row['split']]}"
    return "published " + " to ".join(SETS[name] for name in row["dataset"].split("->"))


def what_is_published(columns: dict[str, dict[str, str]], source: str) -> str:
    """The note below the table."""
    kind = "linear probe on NTU-60"
    if any("%" in title for title in columns):
        kind = "fine-tuned on a share of NTU-60's labels"
    elif any(" to " in title for title in columns):
        kind = "transfer, as printed there (frozen by the text, almost certainly fine-tuned)"
    elif source.endswith("Table 4"):
        kind = "1-NN on NTU-60"
    stars = any(value.endswith("*") for values in columns.values() for value in values.values())
    return f"published: {source}, {kind}, top-1 %" + ("; * which cell this is was inferred" if stars else "")
