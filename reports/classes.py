"""Accuracy of each class, and what another cell adds to it or takes away.

Intervals are over the class's test clips, 95 %, in forms that stay honest where a class has few clips or all are right:
Wilson's (1927) for an accuracy, and for a paired difference Agresti & Min's (2005): Wald's with two clips added, one on
which the cells agree and one on which they differ, half each way. They say nothing about seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.chosen import Arguments, Found, one_cell, predictions
from reports.style import BETTER, EVEN, LINE, SKY, WORSE, plain, titled
from skeletons.errors import BadInput
from sweeps.plan import UNTRAINED
from sweeps.records import Records

Z = 1.959964  # two-sided 95 %


def wilson(share: np.ndarray, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of shares (in 0..1) of so many clips."""
    middle = (share + Z**2 / (2 * clips)) / (1 + Z**2 / clips)
    half = Z * np.sqrt(share * (1 - share) / clips + Z**2 / (4 * clips**2)) / (1 + Z**2 / clips)
    return middle - half, middle + half


def paired(differences: np.ndarray) -> tuple[float, float]:
    """Bounds of a mean difference of right (1) and wrong (0) on the same clips.

    Args:
        differences: (clip), in [-1, 1].
    """
    clips = len(differences) + 2
    mean = differences.sum() / clips
    spread = (np.square(differences).sum() + 1) / clips - mean**2
    half = Z * np.sqrt(spread / clips)
    return float(mean - half), float(mean + half)


def right_in(found: Found) -> np.ndarray:
    """(test clip), share of its draws in which a clip was given its class."""
    return (found.predicted == found.truth).mean(0)


def class_accuracy(plan: dict[str, Any], records: Records, wanted: Arguments) -> Figure:
    """Bars, best class first; beside them the difference to another cell.

    Args:
        wanted: `cell`, `to` (the other cell; by default the untrained encoder), `protocol`, `split`, `seed`, where the
            command line has them.

    Raises:
        BadInput: there are no predictions, or they are not of the same clips.
    """
    cell = one_cell(plan, wanted)
    found = predictions(plan, records, cell, wanted)
    floor = cell != UNTRAINED and any(w["cell"] == UNTRAINED for w in plan["works"])
    other = wanted.get("to", UNTRAINED if floor else "")
    base = None
    if other:
        base = predictions(plan, records, one_cell(plan, {"cell": other}), {**wanted, "protocol": found.protocol})
        if not np.array_equal(base.truth, found.truth):
            raise BadInput(f"{cell} and {other} were not judged on the same clips")

    names, truth, right = found.class_names, found.truth, right_in(found)
    clips = np.bincount(truth, minlength=len(names))
    shown = np.flatnonzero(clips)
    share = np.array([right[truth == c].mean() for c in shown])
    order = np.argsort(share, kind="stable")  # the last is drawn on top
    shown, share = shown[order], share[order]
    size = 0.24 if len(shown) <= 60 else 0.16
    figure = Figure(figsize=(11.0 if base else 7.5, size * len(shown) + 1.6), layout="constrained")
    panels = figure.subplots(1, 2 if base else 1, sharey=True, squeeze=False)[0]
    font = 8 if len(shown) <= 60 else 6
    panels[0].set_yticks(range(len(shown)), [f"{names[c]} ({clips[c]})" for c in shown], fontsize=font)
    low, high = wilson(share, clips[shown])
    panels[0].barh(range(len(shown)), 100 * share, color=SKY, height=0.75)
    spans = 100 * np.stack([share - low, high - share]).clip(0)
    panels[0].errorbar(100 * share, range(len(shown)), xerr=spans, fmt="none", ecolor=LINE, elinewidth=0.9, capsize=1.5)
    overall = 100 * right.mean()
    panels[0].axvline(overall, color="black", linewidth=0.9, linestyle="--")
    panels[0].set_xlim(0, 100)
    panels[0].set_xlabel(f"% right; dashed: of all clips, {overall:.1f}")
    if base:
        _gains(panels[1], right - right_in(base), truth, shown, base.name)
    for axes in panels:
        axes.set_ylim(-0.7, len(shown) - 0.3)
        plain(axes, "x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    by_chance = f"; of {len(shown)} differences about {0.05 * len(shown):.1g} exclude 0 by chance alone" if base else ""
    titled(
        figure,
        f"{found.name}, {found.heading}, by class (test clips in brackets)",
        found.about(),
        f"lines are 95 % intervals over clips{by_chance}",
    )
    return figure


def _gains(axes: Axes, differences: np.ndarray, truth: np.ndarray, shown: np.ndarray, other: str) -> None:
    """Difference of each class to another cell."""
    for place, number in enumerate(shown):
        mine = differences[truth == number]
        low, high = (100 * bound for bound in paired(mine))
        colour, mark = (BETTER, ">") if low > 0 else (WORSE, "<") if high < 0 else (EVEN, "o")
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
        axes.plot(100 * mine.mean(), place, mark, color=colour, markersize=5)
    axes.axvline(0, color="black", linewidth=0.9)
    axes.set_xlabel(f"difference to {other}, points")
