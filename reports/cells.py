"""Measured numbers as cells that know where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.formats import Cell, Source, Table
from reports.intervals import Estimate, difference, estimate, scores
from reports.provenance import difference_source, run_of, source_of
from sweeps.records import Records

BySeed = Mapping[int, dict[str, Any]]  # seed -> result


def with_interval(found: Estimate, sign: str = "") -> str:
    """The mean, and half its interval where there is one."""
    return f"{found.mean:{sign}.1f}" + (f" ±{found.half:.1f}" if found.how != "none" else "")


def accuracy_cell(table: Table, what: str, by_seed: BySeed, records: Records, command: str) -> Cell:
    """Mean over seeds of a protocol's headline.

    Args:
        table: gets the source.
        what: is shown, and is the source's key: no two cells of a table may share it.
        command: what makes it.
    """
    found = estimate([scores(r) for r in by_seed.values()])
    table.sources[what] = source_of(what, found, by_seed, records, command)
    return Cell(with_interval(found), found.mean, source=what)


def gap_cell(table: Table, what: str, these: BySeed, those: BySeed, command: str) -> Cell:
    """Paired difference of two headlines; empty where they share no seed."""
    found = difference(dict(these), dict(those))
    if found is None:
        return Cell("")
    table.sources[what] = difference_source(what, found, these, those, command)
    return Cell(with_interval(found, "+"), found.mean, source=what)


def metric_cell(table: Table, what: str, metric: str, by_seed: BySeed, command: str, digits: int = 1) -> Cell:
    """Mean over seeds of a number beside the headline; "-" where there is none."""
    found = [r[metric] for r in by_seed.values() if metric in r]
    if not found:
        return Cell("-")
    mean = sum(found) / len(found)
    runs = tuple({**run_of(r), "value": round(r[metric], 3)} for r in by_seed.values() if metric in r)
    table.sources[what] = Source(what, runs, facts={metric: f"{mean:.{digits + 1}f}, mean over seeds"}, command=command)
    return Cell(f"{mean:,.{digits}f}", mean, source=what)


def hole(command: str, failed: bool = False) -> Cell:
    """What stands where a result is missing."""
    return Cell("failed" if failed else "missing", missing=command + (" retry=failed" if failed else ""))


def seeds_of(found: list[BySeed]) -> str:
    """How many seeds numbers have: "3", or "1 to 3" where that differs."""
    counts = sorted({len(by_seed) for by_seed in found if by_seed})
    return "-" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
