"""Methods x protocols x data: every method a row, every data set and protocol a column, joined from all plans whose
cells are methods as they are configured.

Only numbers of one scale, setting and stream stand in one table, and of plans whose command changed nothing else: a
longer training or another batch would be a second difference between two rows.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from reports.cells import BySeed, accuracy_cell, hole, seeds_of
from reports.formats import Cell, Table, rank_columns
from reports.tables import FLOORS, folds_together, label_of, results_of
from sweeps.groups import options
from sweeps.records import Records

JOINED = ("methods", "semi", "retrieval", "transfer", "")  # ablations whose cells are methods; "": a plain run
# Keys of a command that leave every method as it is configured.
HARMLESS: tuple[str, ...] = (
    *(
        "ablation",
        "ablation.floors",
        "method",
        "grid.method",
        "data",
        "data.root",
        "data.cache",
        "data.split",
        "splits",
    ),
    *("scale", "setting", "seeds", "runs", "workers", "device", "launcher", "storage", "retry", "records"),
    *("protocol", "protocol.names", "protocol.targets", "protocol.pooling"),
)
UNTRAINED = (*FLOORS, "untrained-mae")
UNPOOLED = ("semi", "finetune", "distill")  # these train the encoder on, so no pooling is chosen
POOLING = {"native": "own pooling", "mean": "mean pooling", "": ""}


class Column(NamedTuple):
    """A column: judged on `data` (`split` of what it was trained on) by a protocol with a pooling."""

    data: str
    split: str
    label: str
    pooling: str

    @property
    def by(self) -> str:
        """The protocol in words."""
        return ", ".join(filter(None, (self.label, POOLING[self.pooling])))

    @property
    def title(self) -> str:
        return f"{self.data} {self.split}: {self.by}"


def as_configured(plan: dict[str, Any]) -> bool:
    """The plan's cells are methods, and its command changed nothing in them."""
    words = [word.partition("=")[0].lstrip("+") for word in shlex.split(plan["command"]) if "=" in word]
    return plan["ablation"] in JOINED and all(word in HARMLESS for word in words)


def pooling_of(plan: dict[str, Any], protocol: str, judged: set[str]) -> str:
    """Which pooling a key of the plan's judgements stands for: "native", "mean", or "" where there is none."""
    if protocol.endswith(" native"):
        return "native"
    if protocol.partition(":")[0] in UNPOOLED or protocol.endswith("fine-tuned"):
        return ""
    both = f"{protocol} native" in judged
    return "mean" if both or "protocol.pooling=mean" in shlex.split(plan["command"]) else "native"


Entry = tuple[dict[str, Any], BySeed]  # the plan, and the results of each seed


def joined(plans: Sequence[dict[str, Any]], records: Records) -> dict[Column, dict[str, Entry]]:
    """Column -> method -> what was found; of two plans the later one, but never a hole before a number."""
    found: dict[Column, dict[str, Entry]] = {}
    for plan in sorted(plans, key=lambda plan: plan["written"]):
        judged = {p for work in plan["works"] for p in work["judgements"]}
        splits = list(dict.fromkeys(work["split"] for work in plan["works"]))
        results, splits = folds_together(results_of(plan, records), splits)
        asked = dict.fromkeys(
            (work["cell"], split, p) for work in plan["works"] for p in work["judgements"] for split in splits
        )
        for cell, split, protocol in asked:
            method = cell.removeprefix("method=")
            if method in options("method") or method in UNTRAINED:
                label = label_of(plan, protocol).removesuffix(" native")
                column = Column(plan["data"], split, label, pooling_of(plan, protocol, judged))
                by_seed = results.get((cell, split, protocol), {})
                if by_seed or method not in found.get(column, {}):
                    found.setdefault(column, {})[method] = (plan, by_seed)
                if method == "raw" and column.pooling == "native" and by_seed:  # the same by every pooling
                    found[column][method] = (plan, by_seed)
    return found


def matrix_tables(records: Records, plans: Sequence[dict[str, Any]]) -> list[Table]:
    """A table for each stream, scale and setting.

    Args:
        plans: the newest of each kind.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for plan in filter(as_configured, plans):
        groups.setdefault((plan.get("stream", "joint"), plan["scale"], plan["setting"]), []).append(plan)
    tables = [_matrix(joined(group, records), key, records) for key, group in groups.items()]
    return [table for table in tables if table.rows]


def _matrix(found: dict[Column, dict[str, Entry]], key: tuple[str, str, str], records: Records) -> Table:
    stream, scale, setting = key
    columns = sorted((c for c in found if any(e[1] for e in found[c].values())), key=lambda c: (c.data, c.split))
    told = f"scale {scale}, setting {setting}" + (f", {stream} stream" if stream != "joint" else "")
    name = "-".join(["matrix", scale, setting, *([stream] if stream != "joint" else [])])
    table = Table(name, f"Methods, protocols and data: {told}", [], [], section="Methods")
    table.tags = {"scale": scale, "setting": setting, "stream": stream}
    known = [method for column in columns for method in found[column]]
    rows: list[list[str | Cell]] = []
    methods = [m for m in _order() if m in known]
    for method in methods:
        row: list[str | Cell] = [method]
        for column in columns:
            plan, by_seed = found[column].get(method, ({}, {}))
            if by_seed:
                row.append(accuracy_cell(table, f"{method}, {column.title}", by_seed, records, plan["command"]))
            elif plan:
                row.append(hole(plan["command"], _failed(plan, method, records)))
            else:
                row.append("-")
        row.append(seeds_of([found[column].get(method, ({}, {}))[1] for column in columns]))
        rows.append(row)
    one = len({(c.data, c.split) for c in columns}) == 1  # then the table's title says which
    table.title += f", data {columns[0].data} {columns[0].split}" if one else ""
    table.columns = ["method", *(c.by if one else c.title for c in columns), "seeds"]
    table.column_tags = [{}, *({"data": c.data, "split": c.split, "protocol": c.label} for c in columns), {}]
    table.rows = rows
    floors = sum(method in UNTRAINED for method in methods)
    table.rule_before = len(rows) - floors if floors else None
    rank_columns(table, range(1, len(columns) + 1))
    if rows:
        table.notes = _notes(found, columns)
    return table


def _order() -> list[str]:
    """Methods as they stand in tables, the floors last."""
    names = [name for name in options("method") if name not in UNTRAINED]
    first = [name for name in ("supervised", "slim", "slim_released") if name in names]
    return [*first, *(name for name in names if name not in first), "untrained", "untrained-mae", "raw"]


def _failed(plan: dict[str, Any], method: str, records: Records) -> bool:
    mine = [work for work in plan["works"] if work["cell"].removeprefix("method=") == method]
    return any(records.failure(work["pretraining"]) for work in mine)


def _notes(found: dict[Column, dict[str, Entry]], columns: Sequence[Column]) -> list[str]:
    entries = [entry for column in columns for entry in found[column].values() if entry[1]]
    results = [result for _, by_seed in entries for result in by_seed.values()]
    commits = sorted({r["commit"] + ("+changes" if r.get("dirty") else "") for r in results if "commit" in r})
    commands = dict.fromkeys(plan["command"] for plan, _ in entries)
    few = any(len(by_seed) < 3 for _, by_seed in entries)
    notes = [
        "top-1 %, mean over seeds; ±: half of a 95 % interval, Student's t over seeds"
        + (" (with fewer than three a bootstrap over test clips, which says nothing of seeds)" if few else ""),
        "one scale, setting and stream, methods as they are configured; own pooling: what the method's authors pool "
        "by; mean pooling: the mean of patch tokens for all; -: no plan asks for it",
    ]
    for column in columns:
        some = next(r for _, by_seed in found[column].values() for r in by_seed.values())
        notes.append(f"{column.title}: {some.get('train_clips')} training, {some.get('test_clips')} test clips")
    if commits:
        notes.append(f"commit {', '.join(commits)}" + (" (MIXED)" if len(commits) > 1 else ""))
    return [*notes, *(f"made by: {command}" for command in commands)]
