"""Attention over the body: how much each joint is attended to at each time, mean over a class's test clips.

A row is a class: on the left joints by part and time patches, on the right the body of one of its clips in the middle
of some patches, a joint the larger and darker the more is attended to it. 1 is an even share.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from reports.bodies import from_the_front
from reports.chosen import Arguments, Found, judged, one_cell, split_in
from reports.style import EVEN, FRAME, INK, NOTE, TICK, titled
from skeletons.errors import BadInput, unknown
from skeletons.topology import Topology, topology_of
from sweeps.records import Records

ROWS, MOMENTS = 6, 6  # classes shown unless some are named; bodies in a row
ROW, WIDTH = 1.35, 11.5  # inches
SHADES = "Blues"


def shown_classes(found: Found, shares: np.ndarray, wanted: Arguments) -> list[int]:
    """Numbers of the classes that were asked for (`class=a,b`), or of those whose attention differs most from the mean
    of all, in the data's order.

    Args:
        shares: (class, patch, joint), NaN where a class has no clip.

    Raises:
        BadInput: an unknown class, or one without test clips on the map.
    """
    there = np.flatnonzero(np.isfinite(shares).all((1, 2)))
    if "class" in wanted:
        chosen = []
        for name in wanted["class"].split(","):
            if name not in found.class_names:
                raise unknown("class", name, found.class_names)
            chosen.append(found.class_names.index(name))
            if chosen[-1] not in there:
                raise BadInput(f"class {name!r} has no clip among those that attention was kept of")
        return chosen
    apart = np.square(shares[there] - shares[there].mean(0)).sum((1, 2))
    return sorted(there[np.argsort(-apart, kind="stable")[:ROWS]].tolist())


def attention_map(plan: dict[str, Any], records: Records, wanted: Arguments) -> Figure:
    """One cell's, of its first seed.

    Args:
        wanted: `cell`, `class` (`a,b`), `split`, `seed`, `protocol` ("embedding native"), where the command line has
            them.

    Raises:
        BadInput: nothing was kept, or the encoder does not attend.
    """
    protocol, cell = wanted.get("protocol", "embedding"), one_cell(plan, wanted)
    found = judged(plan, records, cell, split_in(plan, wanted), protocol, wanted, "map").first()
    arrays = found.arrays[0]
    if "attention" not in arrays:
        raise BadInput(f"{cell}: its encoder has no attention to draw (or was judged by an older version of embedding)")
    topology = topology_of(arrays["joint_names"], arrays["parents"])
    kept = arrays["attention"].astype(float)
    tokens = kept[0].size
    relative, chosen = kept * tokens, shown_classes(found, kept, wanted)
    most = max(1.5, float(relative[chosen].max()))
    order = [j for members in topology.parts.values() for j in members]
    patches = np.unique(np.linspace(0, kept.shape[1] - 1, MOMENTS).round().astype(int))
    figure = Figure(figsize=(WIDTH, ROW * len(chosen) + 1.3), layout="constrained")
    ratios = [3.2, *[1.0] * len(patches)]
    grid = figure.add_gridspec(len(chosen), 1 + len(patches), width_ratios=ratios)
    for row, number in enumerate(chosen):
        axes = figure.add_subplot(grid[row, 0])
        last = row == len(chosen) - 1
        drawn = _map(axes, relative[number][:, order], topology, most, last)
        axes.set_title(found.class_names[number], fontsize=TICK, loc="left", pad=2)
        joints, seen = (arrays[f"attention_{name}"][number][:, None] for name in ("joints", "observed"))
        points = from_the_front(joints.astype(np.float32), seen, topology)[:, 0]
        spots = points[patches][seen[patches, 0]]
        x, y = (spots.max(0) + spots.min(0)) / 2
        half = 0.56 * float(np.ptp(spots, axis=0).max())
        for column, patch in enumerate(patches):
            axes = figure.add_subplot(grid[row, 1 + column])
            _body(axes, points[patch], seen[patch, 0], relative[number, patch], topology, most)
            axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half))
            if row == 0:
                axes.set_title(f"patch {patch + 1}", fontsize=TICK, pad=2)
    bar = figure.colorbar(drawn, ax=figure.axes, fraction=0.012, pad=0.01, aspect=40)
    bar.set_label("attention (1: an even share)")
    bar.ax.axhline(1, color=INK, linewidth=0.9)
    elsewhere = 100 * (1 - float(np.nanmean(kept.sum((1, 2)))))
    few = "" if "class" in wanted or len(chosen) == len(found.class_names) else "; classes that differ most"
    titled(
        figure,
        f"What the last layer attends to: {found.name}, {found.about()}",
        "mean over heads, persons and the test clips of a class, drawn on the clip whose own map is nearest to that"
        f"{few}",
        f"{elsewhere:.0f} % goes to tokens before the patches" if elsewhere > 0.5 else "",
    )
    return figure


def _map(axes: Axes, share: np.ndarray, topology: Topology, most: float, last: bool) -> Any:
    """Patches along x, joints by part along y."""
    drawn = axes.pcolormesh(share.T, cmap=SHADES, vmin=0, vmax=most, edgecolors="white", linewidth=0.3)
    axes.invert_yaxis()
    sizes = np.array([len(members) for members in topology.parts.values()])
    ends = sizes.cumsum()
    for end in ends[:-1]:
        axes.axhline(end, color=INK, linewidth=0.6)
    axes.set_yticks(ends - sizes / 2, [part.replace("_", " ") for part in topology.parts], fontsize=NOTE - 1)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_color(FRAME)
    if last:
        axes.set_xlabel("time patches", fontsize=TICK)
    return drawn


def _body(axes: Axes, points: np.ndarray, seen: np.ndarray, share: np.ndarray, topology: Topology, most: float) -> None:
    """A body, its joints by attention."""
    child, parent = np.array(topology.bones).T
    there = seen[child] & seen[parent]
    lines = np.stack([points[child], points[parent]], 1)[there]
    axes.add_collection(LineCollection(list(lines), colors=EVEN, linewidths=1.0, zorder=1))
    size = 6 + 55 * (share / most) ** 1.5
    x, y = points[seen].T
    look: dict[str, Any] = {"cmap": SHADES, "vmin": 0, "vmax": most, "edgecolors": INK, "linewidths": 0.4, "zorder": 2}
    axes.scatter(x, y, s=size[seen], c=share[seen], **look)
    axes.set_aspect("equal")
    axes.axis("off")
