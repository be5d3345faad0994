"""How accuracy falls as test clips get worse: a panel for each corruption, a line for each cell."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reports.chosen import Arguments, Found, cells_in, judged, protocols_in, split_in
from reports.style import TICK, looks, plain, titled
from reports.tables import FLOORS
from skeletons.errors import BadInput
from sweeps.records import Records

CLEAN = 0.0


def robustness_curves(plan: dict[str, Any], records: Records, wanted: Arguments) -> Figure:
    """Curves of the cells that have them, clean clips at the left.

    Args:
        wanted: `cell` (`a,b`; all by default), `protocol` (e.g. "robustness native"), `split`, `seed`.

    Raises:
        BadInput: no cell has a result.
    """
    split = split_in(plan, wanted)
    by = wanted.get("protocol") or next((p for p in protocols_in(plan) if p.startswith("robustness")), "robustness")
    asked = cells_in(plan, wanted.get("cell", ""))
    found, reason = [], BadInput("no cell to draw")
    for cell in [*(c for c in asked if c not in FLOORS), *(c for c in FLOORS if c in asked)]:
        try:
            found.append(judged(plan, records, cell, split, by, wanted, "corruption"))
        except BadInput as error:
            if "cell" in wanted:
                raise
            reason = error
    if not found:
        raise reason
    corruptions = list(dict.fromkeys(found[0].arrays[0]["corruption"].tolist()))
    rows = -(-len(corruptions) // 3)
    figure = Figure(figsize=(11.0, 2.9 * rows + 1.2), layout="constrained")
    panels = figure.subplots(rows, min(3, len(corruptions)), sharey=True, squeeze=False).flatten()
    look = looks([one.cell for one in found], FLOORS)
    for axes, corruption in zip(panels, corruptions):
        for one in found:
            strengths, accuracy = curve(one, corruption)
            score = np.mean([r["robust"] for r in one.results])
            label = f"{one.name} ({score:.1f})"
            axes.plot(range(len(strengths)), accuracy, markersize=4, label=label, **look[one.cell])
        axes.set_xticks(range(len(strengths)), ["clean", *(f"{s:g}" for s in strengths[1:])])
        axes.set_xlabel(found[0].results[0]["units"][corruption], fontsize=TICK)
        axes.set_title(corruption)
        plain(axes)
    for axes in panels[len(corruptions) :]:
        axes.set_visible(False)
    for axes in panels[:: min(3, len(corruptions))]:
        axes.set_ylabel("% right")
    panels[0].set_ylim(bottom=0)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=min(4, len(labels)))
    about = "frozen linear probe fitted on clean clips; in brackets the mean over all corruptions and strengths"
    titled(figure, f"{found[0].heading}, {found[0].about()}", about)
    return figure


def curve(one: Found, corruption: str) -> tuple[np.ndarray, np.ndarray]:
    """(strengths, accuracy in percent) of a corruption, growing, the clean test clips first; mean over seeds."""
    here = one.arrays[0]["corruption"] == corruption
    strengths = one.arrays[0]["strength"][here]
    right = np.mean([100 * (a["predicted"] == a["truth"]).mean(1)[here] for a in one.arrays], 0)
    order = np.argsort(strengths, kind="stable")
    clean = np.mean([r["clean"] for r in one.results])
    return np.concatenate([[CLEAN], strengths[order]]), np.concatenate([[clean], right[order]])
