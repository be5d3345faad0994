"""An ablation as bars: what was measured of each cell, and its difference to the reference beside the published one.

Accuracies on other data share no axis with ours; differences do, so only they stand side by side: measured ones filled,
with their paired intervals, published ones hollow.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.chosen import Arguments
from reports.compared import Compared, compared, is_floor, left_out, name_of, span
from reports.literature import published_columns, what_is_published
from reports.style import BETTER, BLUE, EVEN, GREY, INK, LINE, NOTE, SKY, WORSE, plain, titled
from sweeps.records import Records

ROW = 0.34  # inches
HOLLOW = "Ds^v<>"  # marks of what was published


def ablation_bars(plan: dict[str, Any], records: Records, wanted: Arguments) -> Figure:
    """A bar for each cell, in the table's order, floors below.

    Args:
        wanted: `cell` (`a,b`; all by default), `protocol`, `to` (another reference than the plan's), `split`, `seed`,
            where the command line has them.

    Raises:
        BadInput: no cell has a result.
    """
    there = compared(plan, records, wanted)
    left_out(plan, there, wanted)
    cells = [c for c in there.cells if not is_floor(c)] + [c for c in there.cells if is_floor(c)]
    reference = wanted.get("to", plan["reference"])
    base = reference if reference in cells and len(cells) > 1 else ""
    published = {k: v for k, v in published_columns(plan["ablation"], plan["source"]).items() if base in v}
    if there.protocol.startswith("semi:"):  # the same share of labels alone
        share = f"published {100 * float(there.protocol.removeprefix('semi:')):g} % "
        published = {k: v for k, v in published.items() if k.startswith(share)}
    figure = Figure(figsize=(11.0 if base else 7.5, ROW * len(cells) + (2.2 if base else 1.5)), layout="constrained")
    panels = figure.subplots(1, 2 if base else 1, sharey=True, squeeze=False)[0]
    _bars(panels[0], there, cells, base)
    panels[0].set_yticks(range(len(cells)), [_label(plan, c) for c in cells])
    panels[0].set_ylim(len(cells) - 0.4, -0.6)
    said = []
    if base:
        _differences(panels[1], there, cells, base, published)
        said.append("right: paired differences, 95 % intervals; blue above 0, vermillion below, grey: 0 is inside")
    if base and published:
        said.append(f"hollow: {what_is_published(published, plan['source'])}")
    titled(figure, plan["title"], there.about(), *said)
    return figure


def _label(plan: dict[str, Any], cell: str) -> str:
    """Name of a cell, and in what it differs, where that is short."""
    differs = plan["differs"].get(cell, "")
    return f"{name_of(cell)}\n{differs}" if differs and len(differs) <= 40 else name_of(cell)


def _bars(axes: Axes, there: Compared, cells: list[str], base: str) -> None:
    """Accuracies; the reference darker, floors hatched."""
    each = [there.estimate(c) for c in cells]
    for place, (cell, one) in enumerate(zip(cells, each)):
        floor = is_floor(cell)
        colour = "white" if floor else BLUE if cell == base else SKY
        axes.barh(
            place,
            one.mean,
            color=colour,
            edgecolor=GREY if floor else colour,
            hatch="////" if floor else "",
            height=0.7,
        )
        axes.plot(span(one), [place, place], color=LINE, linewidth=1.1)
        beside: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": NOTE}
        axes.annotate(f"{one.mean:.1f}", (span(one)[1], place), xytext=(4, 0), **beside)
    axes.set_xlim(0, min(108.0, 1.12 * max(span(one)[1] for one in each)))
    axes.set_xlabel("% right")
    axes.tick_params(axis="y", length=0)
    plain(axes, "x")
    axes.spines["left"].set_visible(False)


def _differences(
    axes: Axes, there: Compared, cells: list[str], base: str, published: dict[str, dict[str, str]]
) -> None:
    """Differences to the reference: measured with intervals, published hollow."""
    shift = 0.2 if published else 0.0
    for place, cell in enumerate(cells):
        gap = there.difference(cell, base) if cell != base else None
        if gap is not None:
            colour = EVEN if gap.how == "none" or not gap.excludes_zero() else BETTER if gap.mean > 0 else WORSE
            axes.plot(span(gap), [place - shift / 2] * 2, color=colour, linewidth=1.8)
            axes.plot(gap.mean, place - shift / 2, "o", color=colour, markersize=6.5, label=f"measured {cell}")
        for number, column in enumerate(published.values()):
            if cell == base or cell not in column:
                continue
            marker = HOLLOW[number % len(HOLLOW)]
            value = _number(column[cell]) - _number(column[base])
            axes.plot(
                value,
                place + shift,
                marker,
                color=INK,
                markerfacecolor="white",
                markersize=6,
                label=f"published {cell}",
            )
            if column[cell].endswith("*"):
                axes.annotate("*", (value, place + shift), xytext=(4, -4), textcoords="offset points", fontsize=NOTE)
    axes.axvline(0, color=LINE, linewidth=0.9)
    axes.set_xlabel(f"difference to {base}, points")
    axes.tick_params(axis="y", length=0)
    plain(axes, "x")
    axes.spines["left"].set_visible(False)
    for place in range(len(cells)):
        axes.axhline(place + 0.5, color="#f0f0f0", linewidth=0.6, zorder=0)
    filled = Line2D([], [], color=INK, marker="o", markersize=6.5, linewidth=1.8, label="measured")
    hollow = [
        Line2D([], [], color=INK, marker=m, markerfacecolor="white", linestyle="none", markersize=6, label=title)
        for title, m in zip(published, HOLLOW)
    ]
    axes.figure.legend(handles=[filled, *hollow], loc="outside lower center", ncols=1 + len(hollow))


def _number(text: str) -> float:
    return float(text.removesuffix("*"))
