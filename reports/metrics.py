"""Tables of what protocols find beside their headline: robustness, distillation, and test clips without a twin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from reports.cells import BySeed, accuracy_cell, gap_cell, metric_cell, seeds_of
from reports.comparisons import legend, new_table, read
from reports.formats import Cell, Source, Table, rank_columns
from reports.intervals import estimate
from reports.matrix import UNTRAINED
from reports.provenance import run_of
from reports.tables import label_of
from sweeps.records import Records

PER_CORRUPTION = "robust_"
STUDENT = {
    "parameter_reduction": "parameters, % fewer",
    "flops_ratio": "FLOPs, times fewer",
    "speedup": "times faster",
    "student_milliseconds": "student, ms",
}
ALONE = ("-narrow", "-alone")  # the same student with its teacher and without


def robustness_tables(records: Records, plans: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """Of every plan with such results: clean, mean over all corruptions, what is kept, and each corruption."""
    for plan in plans:
        results, splits, protocols, cells = read(plan, records)
        for protocol in (p for p in protocols if p.partition(" ")[0] == "robustness"):
            found = {(c, s): results[c, s, protocol] for c in cells for s in splits if (c, s, protocol) in results}
            if not found:
                continue
            some = next(iter(next(iter(found.values())).values()))
            kinds = [key for key in some if key.startswith(PER_CORRUPTION)]
            table = new_table(
                plan, protocol.replace(" ", "-"), f"Robustness ({label_of(plan, protocol)})", "Robustness"
            )
            rows: list[list[str | Cell]] = []
            for (cell, split), by_seed in found.items():
                what = f"{cell}, {label_of(plan, protocol)}, {split}"
                row: list[str | Cell] = [
                    cell,
                    split,
                    metric_cell(table, f"{what}, clean", "clean", by_seed, plan["command"]),
                ]
                row.append(accuracy_cell(table, what, by_seed, records, plan["command"]))
                for metric in ("retained", *kinds):
                    row.append(metric_cell(table, f"{what}, {metric}", metric, by_seed, plan["command"]))
                rows.append([*row, seeds_of([by_seed])])
            names = [kind.removeprefix(PER_CORRUPTION) for kind in kinds]
            table.columns = ["cell", "split", "clean", "corrupted", "kept, %", *names, "seeds"]
            table.rows = rows
            floors = sum(row[0] in UNTRAINED for row in rows)
            table.rule_before = len(rows) - floors if floors and len(splits) == 1 else None
            rank_columns(table, range(2, len(table.columns) - 1))
            table.notes = [
                "a linear probe fitted on clean clips, test clips corrupted: mean over all ways and strengths, then of "
                f"each way; strengths: {_strengths(some)}",
                *legend(list(found.values()), plan),
            ]
            yield table


def _strengths(result: dict[str, Any]) -> str:
    units = result.get("units", {})
    ways = result.get("strengths", {}).items()
    return "; ".join(f"{units.get(name, name)}: {', '.join(f'{s:g}' for s in of)}" for name, of in ways) or "not told"


def distillation_tables(records: Records, plans: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """Of every plan with students: student and teacher, how much smaller, and what the teacher was good for."""
    for plan in plans:
        results, splits, protocols, cells = read(plan, records)
        for protocol in (p for p in protocols if p.partition(" ")[0].partition(":")[0] == "distill"):
            found = {(c, s): results[c, s, protocol] for c in cells for s in splits if (c, s, protocol) in results}
            if not found:
                continue
            table = new_table(plan, "students", "Distilled students", "Distillation")
            rows: list[list[str | Cell]] = []
            for (cell, split), by_seed in found.items():
                what = f"{cell}, {split}"
                row: list[str | Cell] = [cell, split, accuracy_cell(table, what, by_seed, records, plan["command"])]
                row.append(metric_cell(table, f"{what}, its teacher", "teacher_top1", by_seed, plan["command"]))
                row.append(_behind(table, what, by_seed, plan["command"]))
                alone = found.get((cell.replace(*ALONE), split), {}) if cell.endswith(ALONE[0]) else {}
                row.append(gap_cell(table, f"{what}, minus labels alone", by_seed, alone, plan["command"]))
                row += [metric_cell(table, f"{what}, {m}", m, by_seed, plan["command"]) for m in STUDENT]
                rows.append([*row, seeds_of([by_seed])])
            table.columns = ["student", "split", "student, top-1", "teacher, top-1", "student - teacher"]
            table.columns += ["to labels alone", *STUDENT.values(), "seeds"]
            table.rows = rows
            floors = sum(row[0] in UNTRAINED for row in rows)
            table.rule_before = len(rows) - floors if floors and len(splits) == 1 else None
            rank_columns(table, [2])
            table.notes = [
                "ASMa publishes 91.4 % fewer parameters and 3 times faster inference with competitive accuracy; its "
                "teacher, data and device are others",
                *legend(list(found.values()), plan),
            ]
            yield table


def _behind(table: Table, what: str, by_seed: BySeed, command: str) -> Cell:
    """A student minus its own teacher, paired by seed; clips cannot be paired, the teacher's are not kept."""
    known = [r for r in by_seed.values() if "teacher_top1" in r]
    if not known:
        return Cell("")
    found = estimate([np.array([(r["top1"] - r["teacher_top1"]) / 100]) for r in known])
    key = f"{what}, minus its teacher"
    table.sources[key] = Source(key, tuple(run_of(r) for r in known), command=command)
    return Cell(f"{found.mean:+.1f}" + (f" ±{found.half:.1f}" if found.how == "seeds" else ""), found.mean, source=key)


def twin_tables(records: Records, plans: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """Of every plan on data with identical clips in training and test: accuracy on all test clips and without them."""
    for plan in plans:
        results, _, protocols, cells = read(plan, records)
        found = {
            key: by_seed
            for key, by_seed in results.items()
            if by_seed and all("top1_without_twins" in r for r in by_seed.values())
        }
        if not found:
            continue
        order = {cell: i for i, cell in enumerate(cells)} | {p: i for i, p in enumerate(protocols)}
        table = new_table(
            plan, "leak-free", "With and without test clips that have a training twin", "Leak-free NW-UCLA"
        )
        rows: list[list[str | Cell]] = []
        for (cell, split, protocol), by_seed in sorted(found.items(), key=lambda f: (order[f[0][2]], order[f[0][0]])):
            what = f"{cell}, {label_of(plan, protocol)}, {split}"
            left = metric_cell(table, f"{what}, no twins", "top1_without_twins", by_seed, plan["command"])
            gaps = [r["top1_without_twins"] - r["top1"] for r in by_seed.values()]
            gap = float(np.mean(gaps))
            row: list[str | Cell] = [cell, label_of(plan, protocol), _judged_on(by_seed)]
            row += [accuracy_cell(table, what, by_seed, records, plan["command"]), left, Cell(f"{gap:+.1f}", gap)]
            some = next(iter(by_seed.values()))
            rows.append([*row, f"{some['clips_without_twins']} of {some['test_clips']}", seeds_of([by_seed])])
        table.columns = ["cell", "protocol", "judged on", "top-1", "without twins", "difference", "test clips", "seeds"]
        table.rows = rows
        table.row_tags = [{"protocol": str(row[1])} for row in rows]
        table.notes = [
            "without twins: on the test clips of which no training clip is an exact copy (see the audit of the data); "
            "the encoder and the probe are the same, trained on all training clips",
            *legend(list(found.values()), plan),
        ]
        yield table


def _judged_on(by_seed: BySeed) -> str:
    some = next(iter(by_seed.values()))
    return f"{some['data']} {some['split']}"
