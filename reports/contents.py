"""What a report is made of. A part is a function of the records and of the newest plan of each kind; a further one is a
line in PARTS. A part that fails, or one plan of it, leaves a gap that says why, and the others stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from reports.formats import Cell, Table
from reports.page import Gap
from reports.tables import ablation_table, place_of
from skeletons.errors import BadInput
from sweeps.records import Records

Plan = dict[str, Any]
Plans = Sequence[Plan]
Found = Iterable[Table | Gap]
ABLATIONS = Path(__file__).resolve().parents[1] / "sweeps" / "conf" / "ablation"


def of_plans(records: Records, plans: Plans) -> Iterator[Table | Gap]:
    """The table of each plan, a paper's in the paper's order."""
    for plan in sorted(plans, key=_order):
        section, label = place_of(plan.get("source", ""))
        yield from guarded(section, f"{label} {plan['name']}".strip(), partial(_of_plan, plan, records))


def _of_plan(plan: Plan, records: Records) -> Found:
    return [ablation_table(plan, records)]


def _order(plan: Plan) -> tuple:
    section, label = place_of(plan.get("source", ""))
    return not label, section, _number(label), plan["ablation"] or "~", plan["data"], plan["scale"], plan["name"]


def _number(label: str) -> int:
    """Of a paper's table; 99 where it is none."""
    number = label.rpartition(" ")[2]
    return int(number) if number.isdigit() else 99


def verdicts(records: Records, plans: Plans) -> Found:
    """What the papers claim, tried on what was measured here."""
    from reports.verdicts import verdict_tables

    return verdict_tables(records, plans)


def order(records: Records, plans: Plans) -> Found:
    """Whether whole tables rank their cells as the published ones do."""
    from reports.ranks import rank_tables

    return rank_tables(records, plans)


def matrix(records: Records, plans: Plans) -> Found:
    """Methods by protocols and data, joined from plans."""
    from reports.matrix import matrix_tables

    return matrix_tables(records, plans)


def comparisons(records: Records, plans: Plans) -> Iterator[Table]:
    """Pairs of a table side by side: poolings, paper and release, masking strategies."""
    from reports.comparisons import masking_tables, pooling_tables, release_tables

    for build in (pooling_tables, release_tables, masking_tables):
        yield from build(records, plans)


def metrics(records: Records, plans: Plans) -> Iterator[Table]:
    """What protocols find beside their headline: robustness, students, clips without a twin."""
    from reports.metrics import distillation_tables, robustness_tables, twin_tables

    for build in (robustness_tables, distillation_tables, twin_tables):
        yield from build(records, plans)


def flops(records: Records, plans: Plans) -> Found:
    """What methods cost."""
    from reports.costs_table import cost_tables
    from reports.counting import Costs

    return cost_tables(Costs(records.root))


def settings(records: Records, plans: Plans) -> Found:
    """What each method really uses."""
    from reports.counting import Costs, every_method
    from reports.settings import settings_of

    return [settings_of(every_method("paper").values(), Costs(records.root).counted)]


def not_run(records: Records, plans: Plans) -> Found:
    """The tables of which there is no plan, with the commands that would fill them."""
    there = {plan["ablation"] for plan in plans}
    rows: list[list[str | Cell]] = []
    for path in sorted(ABLATIONS.glob("*.yaml")):
        if path.stem not in there:
            about = yaml.safe_load(path.read_text())["ablation"]
            command = f"python sweeps/run.py ablation={path.stem}"
            hole = Cell("missing", missing=command)
            rows.append([about.get("title", path.stem), about.get("source", ""), hole, command])
    columns = ["table", "as published in", "results", "command"]
    return [Table("not-run", "Tables that nobody has run yet", columns, rows)] if rows else []


# Name -> what makes its tables, and the section of those that name none; in the order of the page.
PARTS: dict[str, tuple[Callable[[Records, Plans], Found], str]] = {
    "verdicts": (verdicts, "Verdicts"),
    "order": (order, "Verdicts"),
    "tables": (of_plans, "Tables"),
    "matrix": (matrix, "Methods"),
    "comparisons": (comparisons, "Methods"),
    "metrics": (metrics, "Further tables"),
    "flops": (flops, "FLOPs"),
    "settings": (settings, "Settings"),
    "not-run": (not_run, "Not run yet"),
}


def guarded(section: str, what: str, build: Callable[[], Found]) -> Iterator[Table | Gap]:
    """What is built, or the gap that its failure leaves."""
    try:
        found = list(build())
    except BadInput as error:
        found = [Gap(section, what, str(error))]
    except Exception as error:  # one damaged plan or record must not take the report with it
        found = [Gap(section, what, f"{type(error).__name__}: {error}")]
    for one in found:
        if isinstance(one, Table):
            one.section = one.section or section
        yield one


def everything(records: Records, plans: Plans) -> tuple[list[Table], list[Gap]]:
    """All tables, and what could not be made."""
    found: list[Table | Gap] = []
    for name, (part, section) in PARTS.items():
        found += guarded(section, name, partial(part, records, plans))
    tables = [one for one in found if isinstance(one, Table)]
    sections = list(dict.fromkeys(table.section for table in tables))
    tables.sort(key=lambda table: (sections.index(table.section), _number(table.label)))  # the others as they come
    return tables, [one for one in found if isinstance(one, Gap)]
