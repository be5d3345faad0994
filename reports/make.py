"""`python reports/make.py [data=nwucla] [scale=small] [setting=paper] [runs=DIR] [out=DIR]`: the report of records, in
reports/out/report.html, and beside it every table as text, Markdown, CSV and LaTeX (or in out=, or $SKELBENCH_OUT). It
never trains; what is missing shows as missing, with the command that would fill it.

table=stm          one table alone: any ablation; flops, settings, verdicts, order, not-run
figure=pareto ...  one picture alone, as reports/figures.py draws it
plan=NAME          prints the table of this plan, then makes the report (page=false: does not)
records=mlflow     of the records on the tracking server
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # this folder's own files must not stand in for packages of the same name

from reports.formats import FORMATS, Table, as_text
from skeletons.errors import BadInput, command, unknown
from sweeps.records import Records, out_folder, read_json, write_text

KEYS = ("table", "figure", "page", "data", "scale", "setting", "plan", "runs", "records", "out")
PAGE = "report.html"
NEEDED = {"name", "ablation", "title", "data", "scale", "setting", "written", "works"}  # of a plan


def read_plans(records: Records) -> tuple[list[dict[str, Any]], list[str]]:
    """All plans, the oldest first, and what was said of the damaged ones."""
    plans, damaged = [], []
    for path in sorted((records.root / "plans").glob("*.json")):
        try:
            plan = read_json(path)
        except BadInput as error:
            damaged.append(str(error))
            continue
        if isinstance(plan, dict) and plan.keys() >= NEEDED and isinstance(plan["works"], list):
            plans.append(plan)
        elif plan is not None:  # None: it was removed just now
            damaged.append(f"{path}: no plan as sweeps/run.py writes it; remove it and run again")
    return sorted(plans, key=lambda plan: plan["written"]), damaged


def chosen_plans(records: Records, wanted: dict[str, str]) -> list[dict[str, Any]]:
    """Plans that match, the newest of each kind.

    Raises:
        BadInput: there is none.
    """
    plans, damaged = read_plans(records)
    newest: dict[tuple, dict[str, Any]] = {}
    for plan in plans:
        known = {"plan": plan["name"], "table": plan["ablation"]} | {k: plan[k] for k in ("data", "scale", "setting")}
        if all(known[key] == wanted[key] for key in known if key in wanted):
            stream = plan.get("stream", "joint")  # plans from before there were streams
            newest[plan["ablation"] or plan["title"], plan["data"], stream, plan["scale"], plan["setting"]] = plan
    for line in damaged:
        print(f"left out: {line}", file=sys.stderr)
    if not newest:
        names = ", ".join(sorted({plan["name"] for plan in plans})) or "none"
        what = " ".join(f"{k}={v}" for k, v in wanted.items() if k not in ("runs", "out")) or "any table"
        raise BadInput(f"{records.root}: no plan for {what}; known: {names}; run python sweeps/run.py first")
    return list(newest.values())


def records_of(wanted: dict[str, str]) -> Records:
    """The records asked for; those on the tracking server are fetched."""
    records = Records(wanted.get("runs", "runs"))
    if wanted.get("records") == "mlflow":
        from sweeps.remote import fetch_for_reports

        fetch_for_reports(records)
    return records


def write_tables(tables: Iterable[Table], out: Path) -> None:
    """Each in every format."""
    for table in tables:
        for suffix, render in FORMATS.items():
            write_text(out / f"{table.name}.{suffix}", render(table))


def one_table(wanted: dict[str, str], records: Records) -> list[Table]:
    """What `table=` or `plan=` asks for.

    Raises:
        BadInput: there is no plan for it.
    """
    from reports.contents import PARTS
    from reports.settings import settings_table
    from reports.tables import ablation_table

    name = wanted.get("table", "")
    if name == "settings":
        from reports.counting import Costs

        overrides = [f"{k}={wanted[k]}" for k in ("data", "scale") if k in wanted]
        return [settings_table(overrides, Costs(records.root).counted)]
    if name == "flops":
        return [t for t in PARTS[name][0](records, []) if isinstance(t, Table)]
    plans = chosen_plans(records, {k: v for k, v in wanted.items() if k != "table" or v not in PARTS})
    if name in PARTS:
        return [t for t in PARTS[name][0](records, plans) if isinstance(t, Table)]
    return [ablation_table(plan, records) for plan in plans]


def write_report(wanted: dict[str, str], records: Records, out: Path) -> Path:
    """The page and all tables; what could not be made is said in a line each."""
    from reports.contents import everything
    from reports.drawn import Drawing
    from reports.page import Gap, Report, as_page

    narrowed = {k: v for k, v in wanted.items() if k in ("data", "scale", "setting")}
    there = any((records.root / "plans").glob("*.json"))
    plans = chosen_plans(records, narrowed) if there or narrowed else []
    with Drawing(plans, records, out) as drawing:
        if drawing.todo:
            print(f"drawing {len(drawing.todo)} picture(s) for the page ...", file=sys.stderr, flush=True)
        tables, gaps = everything(records, plans)
        drawn, undrawn = drawing.finished()
    gaps += [*undrawn, *(Gap("Tables", "a plan", line) for line in read_plans(records)[1])]
    write_tables(tables, out)
    runs = {work["pretraining"] for plan in plans for work in plan["works"]} - {"raw"}
    about = [
        f"{len(tables)} tables and {len(drawn)} pictures from the records of {len(runs)} runs. Click a number to see "
        "where it comes from, a heading to sort by it.",
        f"Made {time.strftime('%Y-%m-%d %H:%M')} from {records.root}; nothing was trained or measured for it.",
    ]
    write_text(out / PAGE, as_page(Report("SkelBench report", about, tables, drawn, gaps)))
    for gap in gaps:
        print(f"not in the report: {gap.what}: {gap.why}" + (f"; {gap.command}" if gap.command else ""))
    print(f"written: {len(tables)} tables as {', '.join(FORMATS)}, {len(drawn)} pictures, in {out}")
    return out / PAGE


def main(arguments: Sequence[str]) -> int:
    """Make what is asked for; returns the exit status."""
    if any(a in ("-h", "--help") for a in arguments):
        print(__doc__)
        return 0
    wanted = dict(a.partition("=")[::2] for a in arguments)
    if "figure" in wanted:
        from reports import figures

        return figures.main(arguments)
    for key in wanted:
        if key not in KEYS:
            raise unknown("argument", key, KEYS)
    out = Path(wanted.get("out") or out_folder())
    records = records_of(wanted)
    if "table" in wanted or "plan" in wanted:
        tables = one_table(wanted, records)
        write_tables(tables, out)
        for table in tables:
            print("\n" + as_text(table), end="")
            print(f"written: {out / table.name}.{{{','.join(FORMATS)}}}")
    if "table" not in wanted and wanted.get("page") != "false":
        print(f"page: {write_report(wanted, records, out)}")
    return 0


if __name__ == "__main__":
    command(main)
