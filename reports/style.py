"""One style for all pictures: colours, marks, dashes, hatches and sizes of letters.

Colours are Okabe & Ito's (2008), which the colour-blind tell apart; whoever has the same colour has another mark and
other dashes, and neighbours differ in brightness, so that a grey print can be read. What was measured is filled, what
was published elsewhere is hollow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import fill
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY, BLACK, OLIVE, GREY = "#e69f00", "#56b4e9", "#000000", "#999933", "#999999"
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE, BLACK, OLIVE)
MARKS = "os^DvPX*<>phd8H"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++")
PALE, LINE, INK, FRAME = "#e0e0e0", "#333333", "#555555", "#dddddd"  # grids, intervals, remarks, borders
BETTER, WORSE, EVEN = BLUE, VERMILLION, GREY  # than what it is compared to
TITLE, LABEL, TICK, NOTE = 10.0, 9.0, 8.0, 7.0  # points

matplotlib.rcParams.update(
    {
        "font.size": LABEL,
        "axes.titlesize": TITLE,
        "axes.labelsize": LABEL,
        "xtick.labelsize": TICK,
        "ytick.labelsize": TICK,
        "legend.fontsize": TICK,
        "legend.frameon": False,
        "figure.titlesize": TITLE,
        "lines.linewidth": 1.4,
        "lines.markersize": 5.0,
        "hatch.linewidth": 0.5,
        "pdf.fonttype": 42,  # letters stay letters in a PDF
    }
)


def class_look(number: int) -> dict[str, Any]:
    """Colour and mark of a class in a scatter plot; 120 differ."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKS[number // len(COLOURS) % len(MARKS)]}


def looks(names: Sequence[str], floors: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """Colour, mark and dashes of each name, in the order given; floors are grey and dotted."""
    found, low = {}, list(floors)
    for number, name in enumerate(n for n in names if n not in low):
        found[name] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKS[number % len(MARKS)],
            "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
        }
    for number, name in enumerate(n for n in names if n in low):
        found[name] = {"color": ("#777777", GREY)[number % 2], "marker": "x+"[number % 2], "linestyle": ":"}
    return found


def titled(figure: Figure, *lines: str) -> None:
    """What a picture shows, above it; lines that are longer than it is wide are broken."""
    letters = int(figure.get_figwidth() / 0.082)
    figure.suptitle("\n".join(fill(line, letters) for line in lines if line))


def plain(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """Two borders instead of four, a pale grid behind what is drawn.

    Args:
        grid: both, x or y.
    """
    axes.grid(axis=grid, color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
