"""The confusion matrix: which class the clips of each class were given. A row is a true class and sums to 100 %."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reports.chosen import Arguments, one_cell, predictions
from reports.style import FRAME, titled
from sweeps.records import Records

NUMBERED = 12  # up to so many classes, the cells have numbers


def shares(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Percent (true class, given class) of each class's clips, mean over draws; NaN where a class has no clip.

    Args:
        predicted: int (draw, clip).
        truth: int (clip).
    """
    counts = np.zeros((classes, classes))
    np.add.at(counts, (np.broadcast_to(truth, predicted.shape), predicted), 1)
    of = counts.sum(1, keepdims=True)
    return np.divide(100 * counts, of, out=np.full_like(counts, np.nan), where=of > 0)


def confusion_matrix(plan: dict[str, Any], records: Records, wanted: Arguments) -> Figure:
    """One cell's, by one protocol; several seeds or draws are averaged.

    Args:
        wanted: `cell`, `protocol`, `split`, `seed`, where the command line has them.

    Raises:
        BadInput: there are no predictions.
    """
    found = predictions(plan, records, one_cell(plan, wanted), wanted)
    names, classes = found.class_names, len(found.class_names)
    share = shares(found.predicted, found.truth, classes)
    square = max(3.2, (0.5 if classes <= NUMBERED else 0.25 if classes <= 60 else 0.16) * classes)
    font = 9 if classes <= NUMBERED else 8 if classes <= 60 else 6
    label = 0.0076 * font * max(map(len, names))  # inches, roughly
    figure = Figure(figsize=(max(6.0, square + label + 1.5), square + label + 1.0), layout="compressed")
    axes = figure.add_subplot()
    axes.set_facecolor("#f0f0f0")  # shines through where a class has no clip
    drawn = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(classes), names, rotation=90, fontsize=font)
    axes.set_yticks(range(classes), names, fontsize=font)
    axes.set_xticks(np.arange(1, classes) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, classes) - 0.5, minor=True)
    axes.grid(which="minor", color=FRAME, linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("given class")
    axes.set_ylabel("true class")
    if classes <= NUMBERED:
        for (i, j), value in np.ndenumerate(share):
            if value >= 0.5:
                axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=8, color=_ink(value))
    figure.colorbar(drawn, ax=axes, label="% of the true class", fraction=0.04, pad=0.02)
    right = 100 * float((found.predicted == found.truth).mean())
    draws = f", mean of {len(found.predicted)} predictions a clip" if len(found.predicted) > 1 else ""
    titled(figure, f"{found.name}, {found.heading}: {right:.1f} %", f"{found.about()}{draws}")
    return figure


def _ink(value: float) -> str:
    """Colour of a number that can be read on its cell."""
    return "white" if value > 55 else "black"
