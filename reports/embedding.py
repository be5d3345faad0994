"""The map of the test clips (protocols/embedding.py), cells side by side.

A class has a colour and a mark (reports/style.py), so that 27 can be told apart, also by those who see colours
differently.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.chosen import Arguments, Found, cells_in, judged, split_in
from reports.style import TICK, class_look, titled
from skeletons.errors import BadInput
from sweeps.records import Records

PANEL, ACROSS = 3.9, 4  # inches; panels in a row


def embedding_map(plan: dict[str, Any], records: Records, wanted: Arguments) -> Figure:
    """A panel for each cell.

    Args:
        wanted: `cell` (several: `a,b`), `split`, `seed` (the first by default), `protocol` ("embedding native"),
            where the command line has them.

    Raises:
        BadInput: a cell that was asked for has no map, or none has.
    """
    split, protocol = split_in(plan, wanted), wanted.get("protocol", "embedding")
    cells, found, missing = cells_in(plan, wanted.get("cell", "")), [], []
    for cell in cells:
        try:
            found.append(judged(plan, records, cell, split, protocol, wanted, "map").first())
        except BadInput as error:
            missing.append(str(error))
    if missing and ("cell" in wanted or not found):
        raise BadInput(missing[-1])
    for line in missing:
        print(f"left out: {line}")

    names = found[0].class_names
    rows = math.ceil(len(found) / ACROSS)
    columns = math.ceil(len(found) / rows)
    width = max(7.0, PANEL * columns)
    entries = max(1, int(width / (0.062 * max(map(len, names)) + 0.4)))  # of the legend, in a row
    entries = math.ceil(len(names) / math.ceil(len(names) / entries))  # rows of equal length
    height = (PANEL + 0.55) * rows + 0.155 * math.ceil(len(names) / entries) + 0.85
    figure = Figure(figsize=(width, height), layout="compressed")
    for place, one in enumerate(found):
        _draw(figure.add_subplot(rows, columns, place + 1), one, len(names))
    marks = [figure.axes[0].scatter([], [], s=22, linewidths=0, label=n, **class_look(i)) for i, n in enumerate(names)]
    figure.legend(handles=marks, loc="outside lower center", ncols=entries, handletextpad=0.1)
    of = found[0].results[0]
    drawn = f" ({of['map_clips']} of them drawn)" if of["map_clips"] < of["test_clips"] else ""
    titled(
        figure,
        f"Test clips as the features place them: {found[0].about()}{drawn}",
        "t-SNE: who is near whom says something; the distance between groups, and their size, does not",
    )
    return figure


def _draw(axes: Axes, one: Found, classes: int) -> None:
    """One cell's map; what is said above it is of the drawn clips."""
    arrays, result = one.arrays[0], one.results[0]
    placed, truth = arrays["map"], arrays["truth"][arrays["map_clips"]]
    size = float(np.clip(9000 / len(placed), 6, 34))
    for number in range(classes):
        mine = placed[truth == number]
        axes.scatter(mine[:, 0], mine[:, 1], s=size, edgecolors="white", linewidths=0.3, **class_look(number))
    axes.set_title(
        f"{one.name}\nnearest test clip of own class: {result['alike_on_map']:.0f} % on the map, "
        f"{result['alike_by_features']:.0f} % by features\n"
        f"trustworthiness of the map {result['trustworthiness']:.1f} %",
        fontsize=TICK,
    )
    middle, half = (placed.max(0) + placed.min(0)) / 2, 0.54 * np.ptp(placed, 0).max()
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), xticks=[], yticks=[])
    axes.set_aspect("equal")
