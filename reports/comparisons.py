"""Pairs that a method's table holds but does not set side by side: a method's own pooling against the mean of its
tokens, SLiM's paper against its released code, each masking strategy against the method's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reports.cells import BySeed, accuracy_cell, gap_cell, hole, seeds_of
from reports.formats import Cell, Table, rank_columns
from reports.matrix import UNTRAINED
from reports.tables import Results, folds_together, label_of, results_of
from sweeps.records import Records

OWN_MASKING = {"mamp": "motion", "slim": "tube"}
PAPER, RELEASE = "slim", "slim_released"


def read(plan: dict[str, Any], records: Records) -> tuple[Results, list[str], list[str], list[str]]:
    """Results, splits, protocols and cells of a plan."""
    splits = list(dict.fromkeys(work["split"] for work in plan["works"]))
    results, splits = folds_together(results_of(plan, records), splits)
    fullest = sorted(plan["works"], key=lambda work: -len(work["judgements"]))
    protocols = list(dict.fromkeys(p for work in fullest for p in work["judgements"]))
    cells = list(dict.fromkeys(work["cell"] for work in plan["works"]))
    return results, splits, protocols, [c for c in cells if c not in UNTRAINED] + [c for c in cells if c in UNTRAINED]


def new_table(plan: dict[str, Any], kind: str, title: str, section: str) -> Table:
    """An empty table that belongs to a plan."""
    stream = plan.get("stream", "joint")
    told = f"data {plan['data']}, scale {plan['scale']}, setting {plan['setting']}"
    told += f", {stream} stream" if stream != "joint" else ""
    table = Table(f"{kind}-{plan['name']}", f"{title}: {told}", [], [], section=section)
    table.tags = {"data": plan["data"], "scale": plan["scale"], "setting": plan["setting"], "stream": stream}
    return table


def legend(seeds: Sequence[BySeed], plan: dict[str, Any]) -> list[str]:
    """What the numbers are, how sure, and what made them."""
    found = [by_seed for by_seed in seeds if by_seed]
    fewest = min((len(by_seed) for by_seed in found), default=0)
    how = "Student's t over seeds" if fewest >= 3 else "with fewer than three seeds a bootstrap over test clips"
    commits = sorted({r["commit"] for by_seed in found for r in by_seed.values() if "commit" in r})
    return [
        f"top-1 %, mean over seeds ({seeds_of(found)}); ±: half of a 95 % interval, {how}; differences are paired",
        *([f"commit {', '.join(commits)}" + (" (MIXED)" if len(commits) > 1 else "")] if commits else []),
        f"made by: {plan['command']}",
    ]


def pooling_tables(records: Records, plans: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """Of every plan that judges by both poolings: the mean of patch tokens, the method's own, and the difference."""
    for plan in plans:
        judged = list(dict.fromkeys(p for work in plan["works"] for p in work["judgements"]))
        both = [p for p in judged if f"{p} native" in judged]
        if not both:
            continue
        results, splits, _, cells = read(plan, records)
        of = f", ablation {plan['ablation']}" if plan["ablation"] else ""
        table = new_table(plan, "pooling", f"Mean pooling and the method's own{of}", "Methods")
        rows: list[list[str | Cell]] = []
        for cell in [c for c in cells if c != "raw"]:
            row: list[str | Cell] = [cell]
            for split in splits:
                for protocol in both:
                    mean, own = (results.get((cell, split, p), {}) for p in (protocol, f"{protocol} native"))
                    what = f"{cell}, {label_of(plan, protocol)}, {split}"
                    for by_seed, how in ((mean, "mean pooling"), (own, "own pooling")):
                        row.append(_or_hole(table, f"{what}, {how}", by_seed, records, plan))
                    row.append(gap_cell(table, f"{what}, own minus mean", own, mean, plan["command"]))
            rows.append(row)
        heads = [(split, label_of(plan, p)) for split in splits for p in both]
        titles = [f"{label} {split}, {how}" for split, label in heads for how in ("mean", "own", "own - mean")]
        table.columns, table.rows = ["method", *titles], rows
        table.column_tags = [{}, *({"protocol": label, "split": split} for split, label in heads for _ in range(3))]
        floors = sum(cell in UNTRAINED for cell in cells if cell != "raw")
        table.rule_before = len(rows) - floors if floors else None
        rank_columns(table, [i for i in range(1, len(titles) + 1) if i % 3])
        table.notes = [
            "mean: of the patch tokens, the same for all; own: what the method's authors pool by",
            *legend([by for (_, _, p), by in results.items() if p.removesuffix(" native") in both], plan),
        ]
        yield table


def _or_hole(table: Table, what: str, by_seed: BySeed, records: Records, plan: dict[str, Any]) -> Cell:
    return accuracy_cell(table, what, by_seed, records, plan["command"]) if by_seed else hole(plan["command"])


def release_tables(records: Records, plans: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """SLiM as its paper has it and as its released code trains it, of every plan that has both."""
    for plan in plans:
        results, splits, protocols, cells = read(plan, records)
        if not {PAPER, RELEASE} <= set(cells):
            continue
        table = new_table(plan, "release", "SLiM, paper and release", "Paper and release")
        rows: list[list[str | Cell]] = []
        for split in splits:
            for protocol in protocols:
                paper, release = (results.get((cell, split, protocol), {}) for cell in (PAPER, RELEASE))
                label = label_of(plan, protocol)
                row: list[str | Cell] = [label, split]
                for by_seed, cell in ((paper, PAPER), (release, RELEASE)):
                    row.append(_or_hole(table, f"{cell}, {label}, {split}", by_seed, records, plan))
                row.append(gap_cell(table, f"{label}, {split}: release minus paper", release, paper, plan["command"]))
                rows.append([*row, seeds_of([paper, release])])
        table.columns, table.rows = ["protocol", "split", "paper", "release", "release - paper", "seeds"], rows
        table.row_tags = [{"protocol": str(row[0]), "split": str(row[1])} for row in rows]
        table.notes = [
            "release: github KAIST-VICLab/SLiM @ 2b8bb41; its differences one at a time: python sweeps/run.py "
            f"ablation=slim_released data={plan['data']} scale={plan['scale']}",
            *legend([by for (cell, _, _), by in results.items() if cell in (PAPER, RELEASE)], plan),
        ]
        yield table


def masking_tables(records: Records, plans: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """Masking strategies as rows, the methods that they serve as columns, each with the difference to its own."""
    for plan in plans:
        if plan["ablation"] != "masking":
            continue
        results, splits, protocols, cells = read(plan, records)
        served = [m for m in OWN_MASKING if any(cell.startswith(f"{m}-") for cell in cells)]
        strategies = list(
            dict.fromkeys(c.removeprefix(f"{m}-") for m in served for c in cells if c.startswith(f"{m}-"))
        )
        table = new_table(plan, "strategies", "Masking strategies", "Masking strategies")
        heads = [(split, p, m) for split in splits for p in protocols for m in served]
        rows: list[list[str | Cell]] = []
        for strategy in strategies:
            row: list[str | Cell] = [strategy]
            for split, protocol, method in heads:
                mine = results.get((f"{method}-{strategy}", split, protocol), {})
                own = results.get((f"{method}-{OWN_MASKING[method]}", split, protocol), {})
                what = f"{strategy} under {method}, {label_of(plan, protocol)}, {split}"
                asked = f"{method}-{strategy}" in cells
                row.append(_or_hole(table, what, mine, records, plan) if asked else "-")
                less = f"{what}, minus {OWN_MASKING[method]}"
                same = strategy == OWN_MASKING[method]
                row.append("" if same else gap_cell(table, less, mine, own, plan["command"]))
            rows.append(row)
        titles = []
        for split, protocol, method in heads:
            titles += [f"{method}: {label_of(plan, protocol)} {split}", f"to {OWN_MASKING[method]}"]
        table.columns, table.rows = ["strategy", *titles], rows
        tags = [{"protocol": label_of(plan, p), "split": split} for split, p, _ in heads]
        table.column_tags = [{}, *(tag for tag in tags for _ in range(2))]
        rank_columns(table, range(1, len(titles) + 1, 2))
        own_ones = ", ".join(f"{strategy} is {method}'s own" for method, strategy in OWN_MASKING.items())
        table.notes = [f"{own_ones}; the ratio is the method's own", *legend(list(results.values()), plan)]
        yield table
