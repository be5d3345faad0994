"""Does a whole table come out in the published order? Rank correlations of measured with published numbers.

p is exact: the share of all orders of the cells whose correlation is at least as far from 0. It says nothing of the
noise of the numbers themselves, and with three cells it cannot fall below 1/3.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import factorial
from typing import Any

import numpy as np

from reports.formats import Cell, Source, Table
from reports.intervals import scores
from reports.literature import published_columns
from reports.tables import folds_together, label_of, results_of
from sweeps.records import Records

EXACT = 8  # cells up to which every order is tried
DRAWS = 20_000  # orders that are drawn beyond that


@dataclass(frozen=True)
class Ranks:
    """Kendall's tau-b and Spearman's rho of two lists of numbers, each with its two-sided p; None where all numbers of
    a list are equal."""

    count: int
    tau: float | None
    tau_p: float | None
    rho: float | None
    rho_p: float | None


@cache
def _orders(count: int) -> np.ndarray:
    """int64 (order, place): all orders, or, of many places, some drawn at random, the given one first."""
    if count <= EXACT:
        return np.array(list(itertools.permutations(range(count))))
    drawn = np.random.default_rng(0).permuted(np.tile(np.arange(count), (DRAWS, 1)), axis=1)
    return np.concatenate([np.arange(count)[None], drawn])


def rank_correlation(these: Sequence[float], those: Sequence[float]) -> Ranks:
    """Both correlations of paired numbers.

    Args:
        these, those: of equal length, at least 2.
    """
    orders = _orders(len(these))
    first, second = (np.sign(np.subtract.outer(values, values)) for values in (these, those))
    tau, tau_p = _correlation(first, second, second[orders[:, :, None], orders[:, None, :]])
    ranks = [signs.sum(1) / 2 for signs in (first, second)]  # midranks, less their mean
    rho, rho_p = _correlation(ranks[0], ranks[1], ranks[1][orders])
    return Ranks(len(these), tau, tau_p, rho, rho_p)


def _correlation(first: np.ndarray, second: np.ndarray, reordered: np.ndarray) -> tuple[float | None, float | None]:
    """Correlation of two centred arrays, and the share of the reordered second ones that is as far from 0."""
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    if scale == 0:
        return None, None
    all_of_them = np.tensordot(reordered, first, first.ndim) / scale
    found = float((first * second).sum() / scale)
    return found, float((np.abs(all_of_them) >= abs(found) - 1e-9).mean())


def _tests(published: str, protocol: str, ablation: str) -> bool:
    """A protocol's numbers are of the kind that a published column has."""
    kind, _, share = protocol.removesuffix(" native").partition(":")
    if ablation == "semi":
        return kind == "semi" and f" {100 * float(share):g} % " in published
    wanted = {"retrieval": "retrieval", "transfer": "transfer"}.get(ablation, "linear")
    return kind.startswith(wanted)


COLUMNS = ["table", "measured by", "published", "cells", "Kendall's tau-b", "p", "Spearman's rho", "p of rho"]


def rank_tables(records: Records, plans: Sequence[dict[str, Any]]) -> list[Table]:
    """A table for each data set, stream, scale and setting, a row for each pair of a measured and a published column.

    Args:
        plans: the newest of each kind.
    """
    groups: dict[tuple[str, str, str, str], Table] = {}
    for plan in plans:
        data, stream, scale, setting = key = (plan["data"], plan.get("stream", "joint"), plan["scale"], plan["setting"])
        rows, sources = _rows(plan, records)
        if rows and key not in groups:
            told = f"data {data}, " + (f"{stream} stream, " if stream != "joint" else "")
            name = "-".join(["order", data, *([stream] if stream != "joint" else []), scale, setting])
            title = f"Order of whole tables, measured and published: {told}scale {scale}, setting {setting}"
            groups[key] = Table(name, title, COLUMNS, [], _notes(), section="Verdicts")
            groups[key].tags = {"data": data, "scale": scale, "setting": setting}
        if rows:
            groups[key].rows = [*groups[key].rows, *rows]
            groups[key].sources |= sources
    return list(groups.values())


def _rows(plan: dict[str, Any], records: Records) -> tuple[list[list[str | Cell]], dict[str, Source]]:
    columns = published_columns(plan["ablation"], plan["source"])
    if not columns:
        return [], {}
    splits = list(dict.fromkeys(work["split"] for work in plan["works"]))
    results, splits = folds_together(results_of(plan, records), splits)
    protocols = list(dict.fromkeys(p for work in plan["works"] for p in work["judgements"]))
    rows: list[list[str | Cell]] = []
    sources: dict[str, Source] = {}
    for split, protocol, (title, published) in itertools.product(splits, protocols, columns.items()):
        pairs = {
            cell: (100 * float(np.mean([scores(r).mean() for r in seeds.values()])), float(published[cell].strip("*")))
            for (cell, where, by), seeds in results.items()
            if where == split and by == protocol and published.get(cell, "-") != "-"
        }
        if len(pairs) < 3 or not _tests(title, protocol, plan["ablation"]):
            continue
        found = rank_correlation(*zip(*pairs.values()))
        key = f"order-{plan['name']}-{split}-{protocol}-{title}".replace(" ", "-")
        facts = {cell: f"measured {one:.1f}, published {other:g}" for cell, (one, other) in pairs.items()}
        sources[key] = Source(
            f"{plan['title']}, {label_of(plan, protocol)}, {title}", facts=facts, command=plan["command"]
        )
        by = label_of(plan, protocol) + (f", {split}" if len(splits) > 1 else "")
        numbers = [_number(found.tau, key), _p(found.tau_p), _number(found.rho, key), _p(found.rho_p)]
        rows.append([plan["ablation"], by, title.removeprefix("published "), str(found.count), *numbers])
    return rows, sources


def _number(value: float | None, source: str) -> Cell:
    return Cell("-" if value is None else f"{value:+.2f}", value, source=source)


def _p(value: float | None) -> Cell:
    return Cell("-" if value is None else f"{value:.3f}", value)


def _notes() -> list[str]:
    return [
        "1: the same order as published (on NTU-60, transfer on PKU-MMD II), -1: the reverse; cells that have both a "
        "measured mean over seeds and a published number, three at least; no floors",
        f"p: exact, the share of all orders as far from 0 (of more than {EXACT} cells: of {DRAWS:,} random orders); "
        f"its least value is 2/n!, {2 / factorial(3):.3f} with 3 cells and {2 / factorial(5):.3f} with 5; it knows "
        "nothing of seeds, and no verdict follows from it",
    ]
