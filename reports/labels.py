"""The label-efficiency curve: accuracy over the share of training labels that an encoder was fine-tuned with.

Beside few labels stands what the same encoders reach with all of them, where the records have it: fine-tuned (the
line's end) and frozen under a linear probe (apart, half filled). Published curves are hollow and in a panel of their
own.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.chosen import Arguments, cells_in, command_for
from reports.intervals import estimate, scores
from reports.literature import published_columns
from reports.measured import BY_SEED, all_measured, is_floor, name_of
from reports.style import INK, looks, plain
from skeletons.errors import BadInput
from sweeps.records import Records, read_json

ALL, PER_ROW = 1.0, 5
PROBES = ("linear", "linear_fast")


def share_of(protocol: str) -> float | None:
    """The share of labels that a protocol fine-tunes with; None where it is another one."""
    kind, _, argument = protocol.partition(":")
    return float(argument) if kind == "semi" else ALL if protocol == "finetune" else None


def label_efficiency(plan: dict[str, Any], records: Records, wanted: Arguments) -> Figure:
    """A line for each cell, floors dotted.

    Args:
        wanted: `cell` (`a,b`; all by default), `split`, `seed`, where the command line has them.

    Raises:
        BadInput: no cell was judged on few labels.
    """
    results, split = all_measured(plan, records, wanted)
    cells = cells_in(plan, wanted.get("cell", ""))
    curves: dict[str, dict[float, BY_SEED]] = {}
    for (cell, of, protocol), seeds in results.items():
        share = share_of(protocol)
        if cell in cells and of == split and share is not None:
            curves.setdefault(cell, {})[share] = seeds
    for cell in [c for c in cells if not any(share < ALL for share in curves.get(c, {}))]:
        line = f"no semi of {cell} on {split} yet; run: {command_for(plan, 'semi:0.1')}"
        if "cell" in wanted or (cell == cells[-1] and len(curves) <= 1):
            raise BadInput(line)
        curves.pop(cell, None)
    if not curves:
        raise BadInput(f"no semi on {split} yet; run: {command_for(plan, 'semi:0.1')}")
    names = [c for c in cells if c in curves and not is_floor(c)] + [c for c in cells if c in curves and is_floor(c)]
    look = looks(names, [c for c in names if is_floor(c)])
    frozen = {}
    for cell in names:
        whole, probed = _of_all_labels(plan, records, cell, split, wanted)
        curves[cell].setdefault(ALL, whole) if whole else None
        frozen |= {cell: probed} if probed else {}
    published = _published(plan, names)
    figure = Figure(figsize=(11.0 if published else 6.5, 4.4 + 0.22 * -(-len(names) // PER_ROW)), layout="constrained")
    panels = figure.subplots(1, 2 if published else 1, squeeze=False)[0]
    for place, cell in enumerate(names):
        _line(panels[0], {s: estimate([scores(r) for r in by.values()]) for s, by in curves[cell].items()}, cell, look, place)
        if cell in frozen:
            one = estimate([scores(r) for r in frozen[cell].values()])
            panels[0].plot(ALL, one.mean, **{**look[cell], "linestyle": "none"}, fillstyle="left", markersize=7)
    for cell, points in published.items():
        shares = sorted(points)
        style = {**look[cell], "markerfacecolor": "white", "linestyle": (0, (4, 1.5))}
        panels[1].plot(shares, [points[s] for s in shares], label=cell, markersize=7, **style)
    for axes in panels:
        _shares(axes)
    panels[0].set_ylabel("% right, measured")
    if published:
        panels[1].set_ylabel("% right on NTU-60 X-Sub, published")
    some = next(iter(next(iter(curves[names[0]].values())).values()))
    handles, labels = panels[0].get_legend_handles_labels()
    if frozen:
        handles.append(Line2D([], [], color=INK, marker="o", linestyle="none", fillstyle="left", markersize=7))
        labels.append("all labels, frozen: linear probe")
    figure.legend(handles, labels, loc="outside lower center", ncols=PER_ROW)
    most = max(len(by) for shares in curves.values() for by in shares.values())
    how = f"{most} seeds, t-intervals over them" if most >= 3 else "intervals: bootstrap over test clips"
    said = [f"hollow: published ({plan['source']}), other data and sizes"] if published else []
    about = f"measured on {some['data']} {split}, scale {plan['scale']}, {some['test_clips']} test clips; {how} (95 %)"
    figure.suptitle("\n".join([f"{plan['title']}: accuracy over the share of labels", about, *said]))
    return figure


def _line(axes: Axes, points: dict[float, Any], cell: str, look: dict[str, dict[str, Any]], place: int) -> None:
    """A cell's curve; intervals of neighbours stand a little apart."""
    shares = np.array(sorted(points))
    at = shares * 1.025 ** (place - 3)
    axes.plot(shares, [points[s].mean for s in shares], label=name_of(cell), **look[cell])
    for share, x in zip(shares, at):
        one = points[share]
        if one.how != "none":
            axes.plot([x, x], [one.low, one.high], color=look[cell]["color"], linewidth=0.8, alpha=0.6)


def _shares(axes: Axes) -> None:
    """The axis of shares, in percent."""
    axes.set_xscale("log")
    shares = sorted({float(x) for line in axes.lines for x in line.get_xdata() if line.get_label()[0] != "_"})
    axes.set_xticks(shares, [f"{100 * s:g} %" for s in shares])
    axes.minorticks_off()
    axes.set_xlabel("share of training clips with labels (log scale)")
    plain(axes)


def _of_all_labels(
    plan: dict[str, Any], records: Records, cell: str, split: str, wanted: Arguments
) -> tuple[BY_SEED, BY_SEED]:
    """What the same encoders reached with all labels by any plan: fine-tuned, and frozen; seed -> the newest result."""
    found: tuple[BY_SEED, BY_SEED] = {}, {}
    for work in plan["works"]:
        if (work["cell"], work["split"]) != (cell, split) or wanted.get("seed", str(work["seed"])) != str(work["seed"]):
            continue
        for path in sorted((records.run(work["pretraining"]) / "eval").glob("*/result.json")):
            one = read_json(path) or {}
            if (one.get("data"), one.get("split"), one.get("seed")) != (plan["data"], split, work["seed"]):
                continue
            into = found[0] if one["protocol"] == "finetune" else found[1] if one["protocol"] in PROBES else None
            if into is not None and one["finished"] > into.get(work["seed"], {}).get("finished", ""):
                into[work["seed"]] = one
    return found


def _published(plan: dict[str, Any], cells: list[str]) -> dict[str, dict[float, float]]:
    """Cell -> share -> accuracy on NTU-60 X-Sub, as printed."""
    found: dict[str, dict[float, float]] = {}
    for title, column in published_columns(plan["ablation"], plan["source"]).items():
        share = re.fullmatch(r"published ([\d.]+) % X-Sub", title)
        for cell in cells if share else ():
            if cell in column:
                found.setdefault(cell, {})[float(share[1]) / 100] = float(column[cell].removesuffix("*"))
    return found
