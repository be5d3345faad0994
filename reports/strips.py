"""Strips: a test clip and the training clips that the features find nearest, drawn as skeletons.

A row begins with the query; its neighbours follow, nearest first, framed green and solid where they are of its class,
red and dashed where not.
"""

from __future__ import annotations

from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.bodies import draw_bodies, from_the_front
from reports.chosen import Arguments, judged, one_cell, split_in
from reports.style import GREEN, INK, LINE, VERMILLION, titled
from skeletons.topology import topology_of
from sweeps.records import Records

SAME, OTHER, QUERY = GREEN, VERMILLION, LINE
WIDTH, WRITING = 12.5, 0.42  # inches: of the figure, and above and below the bodies of a row
LENGTH = 5.5  # metres of bodies side by side in a box: so many frames are shown
FAR = 1.6  # a joint so many times further out than 99 % of them, a sensor's mistake, may leave the picture


def side_by_side(
    joints: np.ndarray,
    observed: np.ndarray,
    parents: np.ndarray,
    names: np.ndarray,
    *,
    length: float = LENGTH,
    most: int = 5,
    turn: float | np.ndarray = 0.0,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Bodies of all clips from the front, frame beside frame.

    Args:
        joints: (query, clip, frame, person, joint, 3), metres.
        observed: bool, without the last dimension.
        length: metres that a clip's frames fill, of which there are 3 to `most`.
        turn: as for `from_the_front`, one for all or for each clip, flat.

    Returns:
        points (query, clip, shown frame, person, joint, 2), which joints of them were observed, and the distance from
        one frame to the next.
    """
    topology = topology_of(names, parents)
    flat, seen = joints.astype(np.float32).reshape(-1, *joints.shape[2:]), observed.reshape(-1, *observed.shape[2:])
    points = np.stack(
        [from_the_front(x, o, topology, by) for x, o, by in zip(flat, seen, np.broadcast_to(turn, len(flat)))]
    )
    if not seen.any():
        return points.reshape(*joints.shape[:-1], 2), observed, 1.0
    x = np.ma.array(points[..., 0], mask=~seen)
    middle = (x.max((2, 3)) + x.min((2, 3))) / 2  # who walks stays in the picture
    points[..., 0] -= np.ma.filled(middle, 0)[..., None, None]
    reach = np.abs(points[..., 0][seen])
    reach = min(float(reach.max()), FAR * float(np.quantile(reach, 0.99)))
    step = max(2.1 * reach, 0.3 * float(np.ptp(points[..., 1][seen])))
    shown = int(np.clip(round(length / step), 3, most))
    at = np.unique(np.linspace(0, points.shape[1] - 1, shown).round().astype(int))
    points, seen = points[:, at], seen[:, at]
    points[..., 0] += step * np.arange(len(at))[:, None, None]
    shape = (*joints.shape[:2], *points.shape[1:-1])
    return points.reshape(*shape, 2), seen.reshape(shape), step


def neighbour_strips(plan: dict[str, Any], records: Records, wanted: Arguments) -> Figure:
    """A row for each query of one cell.

    Args:
        wanted: `cell`, `split`, `seed`, `protocol` ("embedding native"), where the command line has them.

    Raises:
        BadInput: the cell has no strips.
    """
    protocol = wanted.get("protocol", "embedding")
    found = judged(
        plan, records, one_cell(plan, wanted), split_in(plan, wanted), protocol, wanted, "strip_joints"
    ).first()
    arrays, names = found.arrays[0], found.class_names
    topology = topology_of(arrays["joint_names"], arrays["parents"])
    points, seen, step = side_by_side(
        arrays["strip_joints"], arrays["strip_observed"], arrays["parents"], arrays["joint_names"]
    )
    queries, clips, frames = points.shape[:3]
    y = points[..., 1][seen]
    low, middle, high = np.quantile(y, [0.01, 0.5, 0.99]) if len(y) else (-1.0, 0.0, 1.0)
    low = max(y.min(initial=low), middle - FAR * (middle - low))
    high = min(y.max(initial=high), middle + FAR * (high - middle))
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    box = (WIDTH - 0.3) / clips - 0.12
    row = box * (high - low) / (step * frames) + WRITING
    figure = Figure(figsize=(WIDTH, row * queries + 0.75), layout="constrained")
    of = arrays["truth"][arrays["strip_queries"]]
    for i, j in np.ndindex(queries, clips):
        axes = figure.add_subplot(queries, clips, i * clips + j + 1)
        for line in range(1, frames):
            axes.axvline((line - 0.5) * step, color="#e4e4e4", linewidth=0.6, zorder=0)
        draw_bodies(axes, points[i, j], seen[i, j], topology)
        axes.set(xlim=(-step / 2, step * (frames - 0.5)), ylim=(low, high), xticks=[], yticks=[])
        axes.set_aspect("equal")
        clip = str(arrays["strip_clips"][i, j])
        axes.set_xlabel(clip, fontsize=6.5, color=INK, labelpad=1.5)
        if j == 0:
            _frame(axes, QUERY, "-", f"query: {names[of[i]]}", "bold")
            continue
        mine, near = arrays["strip_classes"][i, j - 1], arrays["strip_near"][i, j - 1]
        measure = f"cosine {near:.3f}" if found.results[0]["measure"] == "cosine" else f"distance {near:.1f} m"
        axes.set_xlabel(f"{clip}, {measure}", fontsize=6.5, color=INK, labelpad=1.5)
        same = mine == of[i]
        _frame(axes, SAME if same else OTHER, "-" if same else "--", f"{'✓' if same else '✗'} {names[mine]}")
    alike = float((arrays["strip_classes"] == of[:, None]).mean())
    titled(
        figure,
        f"Nearest training clips of {queries} test clips: {found.name}, {found.about()}",
        f"{100 * alike:.0f} % of those shown are of the query's class (✓); "
        "queries drawn at random, the same for every cell; left limbs lighter; clips turned to the front",
    )
    return figure


def _frame(axes: Axes, colour: str, style: str, text: str, weight: str = "normal") -> None:
    """The border of a clip, and what stands above it."""
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=1.8, linestyle=style)
    axes.set_title(fill(text, 34), fontsize=7.5, color=colour, fontweight=weight, pad=3)
