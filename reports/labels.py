"""The label-efficiency curve: accuracy over the share of training labels that an encoder was fine-tuned with.

Beside few labels stands what the same encoders reach with all of them, where the records have it: fine-tuned (the
line's end) and frozen under a linear probe (apart, at the right). Published curves are hollow and in a panel of their
own.
"""

from __future__ import annotations

import re
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, Transform

from reports.chosen import Arguments, cells_in, command_for
from reports.compared import BY_SEED, all_results, is_floor, name_of, span
from reports.intervals import Estimate, estimate, scores
from reports.literature import published_columns
from reports.style import looks, plain, titled
from skeletons.errors import BadInput
from sweeps.records import Records, read_json

ALL, FROZEN, PER_ROW = 1.0, 2.0, 5  # where all labels stand on the axis, and where frozen encoders do
BESIDE = 3.0  # points from one cell to the next, so that intervals do not hide each other
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
    results, split = all_results(plan, records, wanted)
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
    frozen: dict[str, BY_SEED] = {}
    for cell in names:
        whole, probed = _of_all_labels(plan, records, cell, split, wanted)
        curves[cell].setdefault(ALL, whole) if whole else None
        frozen |= {cell: probed} if probed else {}
    published = _published(plan, names)
    figure = Figure(figsize=(11.0 if published else 7.0, 4.4 + 0.22 * -(-len(names) // PER_ROW)), layout="constrained")
    panels = figure.subplots(1, 2 if published else 1, squeeze=False)[0]
    for place, cell in enumerate(names):
        moved = ScaledTranslation(BESIDE * (place - (len(names) - 1) / 2) / 72, 0, figure.dpi_scale_trans)
        points = {share: estimate([scores(r) for r in by.values()]) for share, by in curves[cell].items()}
        _line(panels[0], points, look[cell], moved, name_of(cell))
        if cell in frozen:
            _line(panels[0], {FROZEN: estimate([scores(r) for r in frozen[cell].values()])}, look[cell], moved)
    for cell, shown in published.items():
        style = {**look[cell], "markerfacecolor": "white", "linestyle": (0, (4, 1.5))}
        panels[1].plot(sorted(shown), [shown[s] for s in sorted(shown)], markersize=7, **style)
    _shares(panels[0], {share for of in curves.values() for share in of} | ({FROZEN} if frozen else set()))
    if published:
        _shares(panels[1], {share for of in published.values() for share in of})
    panels[0].set_ylabel("% right, measured")
    if published:
        panels[1].set_ylabel("% right on NTU-60 X-Sub, published")
    some = next(iter(next(iter(curves[names[0]].values())).values()))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=PER_ROW)
    most = max(len(by) for shares in curves.values() for by in shares.values())
    how = f"{most} seeds, t-intervals over them" if most >= 3 else "intervals: bootstrap over test clips"
    said = [f"hollow: published ({plan['source']}), other data and sizes"] if published else []
    about = f"measured on {some['data']} {split}, scale {plan['scale']}, {some['test_clips']} test clips; {how} (95 %)"
    titled(figure, f"{plan['title']}: accuracy over the share of labels", about, *said)
    return figure


def _line(axes: Axes, points: dict[float, Estimate], look: dict[str, Any], moved: Transform, name: str = "") -> None:
    """A cell's curve with its intervals, a little aside."""
    shares, place = sorted(points), axes.transData + moved
    means = [points[share].mean for share in shares]
    axes.plot(shares, means, transform=place, label=name or "_frozen", **look)
    axes.update_datalim([(share, v) for share in shares for v in span(points[share])])
    for share in shares:
        ends = span(points[share])
        axes.plot([share] * 2, ends, color=look["color"], linewidth=0.9, alpha=0.7, transform=place, label="_interval")


def _shares(axes: Axes, shares: set[float]) -> None:
    """The axis of shares, in percent."""
    axes.set_xscale("log")
    labels = {FROZEN: "100 %,\nfrozen"}
    axes.set_xticks(sorted(shares), [labels.get(s, f"{100 * s:g} %") for s in sorted(shares)])
    axes.minorticks_off()
    axes.set_xlim(min(shares) / 1.5, max(shares) * 1.4)
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
        if share is not None:
            for cell in (c for c in cells if c in column):
                found.setdefault(cell, {})[float(share[1]) / 100] = float(column[cell].removesuffix("*"))
    return found
