"""`python reports/make.py [table=stm] [data=nwucla] [scale=small] [plan=NAME] [runs=DIR] [records=mlflow] [out=DIR]`:
print tables from the records (with records=mlflow, from those on the tracking server) and write them as text, Markdown,
CSV and LaTeX to reports/out (or out=, or $SKELBENCH_OUT). It never trains; what is missing shows as missing.
`table=settings` says what each method uses, and needs no records."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # this folder's own files must not stand in for packages of the same name

from reports.formats import FORMATS, Table, as_text
from reports.settings import settings_table
from reports.tables import ablation_table
from skeletons.errors import BadInput, command, unknown
from sweeps.records import Records, read_json, write_text
from sweeps.remote import fetch_for_reports

KEYS = ("table", "data", "scale", "setting", "plan", "runs", "records", "out")


def chosen_plans(records: Records, wanted: dict[str, str]) -> list[dict[str, Any]]:
    """Plans that match, the newest of each kind.

    Raises:
        BadInput: there is none.
    """
    plans = [read_json(p) for p in sorted((records.root / "plans").glob("*.json"))]
    newest: dict[tuple, dict[str, Any]] = {}
    for plan in sorted((p for p in plans if p), key=lambda p: p["written"]):
        if all(plan[key] == wanted[key] for key in ("data", "scale", "setting") if key in wanted):
            if "plan" in wanted and plan["name"] != wanted["plan"]:
                continue
            if "table" in wanted and plan["ablation"] != wanted["table"]:
                continue
            stream = plan.get("stream", "joint")  # plans from before there were streams
        newest[plan["ablation"] or plan["title"], plan["data"], stream, plan["scale"], plan["setting"]] = plan
    if not newest:
        names = ", ".join(sorted({p["name"] for p in plans if p})) or "none"
        what = " ".join(f"{k}={v}" for k, v in wanted.items() if k not in ("runs", "out")) or "any table"
        raise BadInput(f"{records.root}: no plan for {what}; known: {names}; run python sweeps/run.py first")
    return list(newest.values())


def tables(wanted: dict[str, str]) -> list[Table]:
    """The tables that the command line asks for."""
    if wanted.get("table") == "settings":
        return [settings_table([f"{k}={wanted[k]}" for k in ("data", "scale") if k in wanted])]
    records = Records(wanted.get("runs", "runs"))
    if wanted.get("records") == "mlflow":
        fetch_for_reports(records)
    return [ablation_table(plan, records) for plan in chosen_plans(records, wanted)]


def main(arguments: Sequence[str]) -> int:
    """Print and write the tables; returns the exit status."""
    wanted = dict(a.partition("=")[::2] for a in arguments)
    for key in wanted:
        if key not in KEYS:
            raise unknown("argument", key, KEYS)
    out = Path(wanted.get("out") or os.environ.get("SKELBENCH_OUT") or ROOT / "reports" / "out")
    for table in tables(wanted):
        print("\n" + as_text(table), end="")
        for suffix, render in FORMATS.items():
            write_text(out / f"{table.name}.{suffix}", render(table))
        print(f"written: {out / table.name}.{{{','.join(FORMATS)}}}")
    return 0


if __name__ == "__main__":
    command(main)
