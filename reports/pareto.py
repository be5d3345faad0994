"""Accuracy against what it costs: the encoder's FLOPs on one clip, and those of the whole training.

Above what was measured, below what was published, in panels of their own: other data, other sizes. On the Pareto front
is who has nobody that is both cheaper and better. Untrained encoders and raw coordinates are lines, and who was trained
with labels competes with nobody.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from methods.base import all_methods
from reports.chosen import Arguments
from reports.compared import Compared, compared, is_floor, left_out, name_of, span
from reports.flops import PUBLISHED as TABLE
from reports.intervals import Estimate
from reports.spent import Spent, spent
from reports.style import GREY, INK, LINE, NOTE, TICK, looks, plain, titled
from skeletons.errors import BadInput
from sweeps.plan import UNTRAINED
from sweeps.records import Records

PER_ROW = 5  # names in a row of the legend
BESIDE, MOST, ACROSS = 9.0, 120.0, 370.0  # points between those of equal cost, of all of them, and of a panel
MEASURED = {
    "inference": "encoder on one person of one clip",
    "training": "whole training, all views and networks, one person a clip",
}
PUBLISHED = (
    ("encoder, two persons, GFLOPs as printed", ("inference_encoder_gflops",)),
    (
        "encoder + decoder + target network, one view forward, GFLOPs as printed",
        ("training_encoder_gflops", "training_decoder_gflops", "training_tgn_gflops"),
    ),
)


def front(cost: Sequence[float], gain: Sequence[float]) -> list[int]:
    """Places of those on the Pareto front, the cheapest first: nobody else gains as much for less, or more for as
    much."""
    order = sorted(range(len(cost)), key=lambda i: (cost[i], -gain[i]))
    found: list[int] = []
    for i in order:
        if not found or gain[i] > gain[found[-1]]:
            found.append(i)
    return found


def unit(flops: float) -> tuple[str, float]:
    """Prefix and size of the unit in which so many FLOPs are a number that can be read."""
    found = [(prefix, size) for prefix, size in zip("GTPE", (1e9, 1e12, 1e15, 1e18)) if flops >= size]
    return found[-1] if found else ("G", 1e9)


def beside(cost: dict[str, float]) -> dict[str, float]:
    """Points by which each is moved aside, so that those of nearly equal cost do not hide each other."""
    groups: list[list[str]] = []
    for name in sorted(cost, key=lambda n: cost[n]):
        if groups and cost[name] < 1.03 * cost[groups[-1][0]]:
            groups[-1].append(name)
        else:
            groups.append([name])
    order, found = list(cost), {}
    for group in groups:
        step = min(BESIDE, MOST / len(group))
        for place, name in enumerate(sorted(group, key=order.index)):
            found[name] = step * (place - (len(group) - 1) / 2)
    return found


def pareto(plan: dict[str, Any], records: Records, wanted: Arguments) -> Figure:
    """Accuracy of each cell over inference FLOPs (left) and training FLOPs (right).

    Args:
        wanted: `cell` (`a,b`; all by default), `protocol`, `split`, `seed`, where the command line has them.

    Raises:
        BadInput: fewer than two cells have a result and a record of how they were trained.
    """
    there = compared(plan, records, wanted)
    left_out(plan, there, wanted)
    cost = costs(plan, records, there)
    trained = {w["cell"]: records.about(w["pretraining"]).get("method", "") for w in plan["works"]}
    low = [c for c in there.cells if is_floor(c) or trained[c] == UNTRAINED]
    apart = {c for c, method in trained.items() if method in all_methods() and all_methods()[method].uses_labels}
    cells = [c for c in there.cells if c in cost and c not in low]
    if len(cells) < 2:
        raise BadInput(
            f"plan {plan['name']}: fewer than two cells were trained here and judged, so none can be compared"
        )
    for cell in there.cells:
        if cell not in (*cost, *low):
            print(f"left out: {cell}: no record of its training, so no FLOPs")
    look = looks(cells)
    literature = _published(cells)
    rows = 2 if literature else 1
    figure = Figure(figsize=(11.0, 3.6 * rows + 0.75 + 0.22 * -(-len(cells) // PER_ROW)), layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False, sharey="row")
    each = {cell: there.estimate(cell) for cell in there.cells}
    for axes, (kind, label) in zip(panels[0], MEASURED.items()):
        prefix, size = unit(max(getattr(cost[c], kind) for c in cells))
        floors, points = {c: each[c] for c in low}, {c: getattr(cost[c], kind) / size for c in cells}
        _draw(axes, points, {c: each[c] for c in cells}, floors, look, apart)
        axes.set_xlabel(f"{label}, {prefix}FLOPs")
    panels[0][0].set_ylabel("% right, measured")
    for axes, (label, columns) in zip(panels[1] if literature else (), PUBLISHED):
        points = {c: sum(float(row[k] or 0) for k in columns) for c, row in literature.items()}
        gain = {c: float(row["ntu60_xsub_top1"]) for c, row in literature.items()}
        none = {c: Estimate(v, np.nan, np.nan, "none", 1) for c, v in gain.items()}
        _draw(axes, points, none, {}, look, apart, hollow=True)
        axes.set_xlabel(label)
    if literature:
        panels[1][0].set_ylabel("% right on NTU-60 X-Sub, published")
    handles = panels[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=PER_ROW)
    said = ["grey: Pareto front; FLOPs = 2 x MAC; equal costs beside each other"]
    said += ["hollow: published (SLiM, arXiv 2603.10648, Table 1), other data and sizes"] if literature else []
    titled(figure, f"{plan['title']}: accuracy against cost", there.about(), "; ".join(said))
    return figure


def costs(plan: dict[str, Any], records: Records, there: Compared) -> dict[str, Spent]:
    """Mean cost of each cell over its runs."""
    of: dict[str, list[str]] = {}
    for work in plan["works"]:
        if work["cell"] in there.cells and work["seed"] in there.cells[work["cell"]]:
            of.setdefault(work["cell"], []).append(work["pretraining"])
    known = spent(records, list(dict.fromkeys(i for each in of.values() for i in each)))
    found = {}
    for cell, identities in of.items():
        if mine := [known[i] for i in identities if i in known]:
            found[cell] = Spent(*(float(np.mean([getattr(s, k) for s in mine])) for k in ("inference", "training")))
    return found


def _published(cells: Sequence[str]) -> dict[str, dict[str, str]]:
    """Cell -> row of flops.csv, of the methods among the cells; nothing where there are fewer than two."""
    rows: dict[str, dict[str, str]] = {}
    with open(TABLE, newline="") as opened:
        for row in csv.DictReader(opened):
            name = row["method"].lower().replace("-", "")
            rows |= {cell: row for cell in cells if cell.removeprefix("method=") == name}
    return rows if len(rows) > 1 else {}


def _draw(
    axes: Axes,
    cost: dict[str, float],
    gain: dict[str, Estimate],
    low: dict[str, Estimate],
    look: dict[str, dict[str, Any]],
    apart: set[str],
    hollow: bool = False,
) -> None:
    """Points with intervals, and the front through those that are on it, by name.

    Args:
        low: what costs nothing to train, drawn as lines.
        apart: who is drawn, and not on the front.
    """
    names = list(cost)
    rivals = [c for c in names if c not in apart]
    on = [rivals[i] for i in front([cost[c] for c in rivals], [gain[c].mean for c in rivals])]
    axes.step(
        [cost[c] for c in on],
        [gain[c].mean for c in on],
        where="post",
        color=GREY,
        linewidth=3.0,
        alpha=0.55,
        zorder=1,
        solid_capstyle="round",
        linestyle=(0, (3, 1.2)) if hollow else "-",
    )
    aside = beside(cost)
    figure = axes.get_figure()
    assert figure is not None
    for name in names:
        one, colour = gain[name], look[name]["color"]
        moved = axes.transData + ScaledTranslation(aside[name] / 72, 0, figure.dpi_scale_trans)
        axes.plot([cost[name]] * 2, span(one), color=colour, linewidth=1.0, alpha=0.7, zorder=2, transform=moved)
        axes.plot(
            cost[name],
            one.mean,
            linestyle="none",
            marker=look[name]["marker"],
            markersize=7.5,
            color=colour,
            markerfacecolor="white" if hollow else colour,
            markeredgecolor=colour if hollow else "white",
            markeredgewidth=1.6 if hollow else 0.7,
            zorder=3,
            transform=moved,
            label=name_of(name) + (" (with labels)" if name in apart else ""),
        )
    for name in on:
        axes.annotate(
            name.removeprefix("method="),
            (cost[name], gain[name].mean),
            xytext=(aside[name] - 5, 6),
            textcoords="offset points",
            ha="right",
            fontsize=TICK,
            color=LINE,
            fontweight="bold",
        )
    bounds = [v for one in [*gain.values(), *low.values()] for v in span(one)]
    axes.set_ylim(min(bounds) - 0.06 * np.ptp(bounds), max(bounds) + 0.1 * np.ptp(bounds))
    axes.set_xscale("log")
    least, most = min(cost.values()), max(cost.values())
    left, right = 0.16 - min(aside.values()) / ACROSS, 0.05 + max(aside.values()) / ACROSS  # on the left stand names
    decades = max(0.4, float(np.log10(most / least))) / (1 - left - right)
    axes.set_xlim(least / 10 ** (left * decades), most * 10 ** (right * decades))
    paper = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.6}
    for cell, one in low.items():
        axes.axhline(one.mean, color=INK, linewidth=0.9, linestyle=":", zorder=0)
        place: dict[str, Any] = {
            "xy": (1, one.mean),
            "xycoords": ("axes fraction", "data"),
            "textcoords": "offset points",
        }
        axes.annotate(name_of(cell), **place, xytext=(-2, 2), ha="right", fontsize=NOTE, color=INK, bbox=paper)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    plain(axes)
