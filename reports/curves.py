"""Training curves: loss, online 1-NN and rank of the features, over clips seen.

Losses of different methods are different quantities, so each is drawn as a share of its first value wherever more than
one method is shown. Seeds are averaged where all of them have a line; the band is from the least to the greatest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reports.chosen import Arguments, cells_in, split_in
from reports.style import looks, plain, titled
from skeletons.errors import BadInput, unknown
from sweeps.records import Records

PANELS = {
    "loss": "training loss",
    "knn": "online 1-NN, withheld training subjects, %",
    "feature_rank": "effective rank of the features",
}
PER_ROW = 5


def lines_of(records: Records, identity: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What a run logged: name -> (clips seen, values). Empty where it trained nothing, or left no lines."""
    path, settings = records.run(identity) / "metrics.jsonl", records.run(identity) / "config.yaml"
    if not path.is_file() or not settings.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    batch = _batch(settings.read_text())
    found = {}
    for name in PANELS:
        mine = [(line["step"] * batch, line[name]) for line in lines if name in line]
        if mine:
            clips, values = np.array(mine, float).T
            found[name] = clips, values
    return found


def _batch(text: str) -> int:
    """Of a configuration as sweeps write it, `train.batch`; reading all of it takes far longer."""
    found = re.search(r"^train:\n(?:  .*\n)*?  batch: (\d+)$", text, re.MULTILINE)
    assert found is not None, "a run's configuration has a section `train` with a batch"
    return int(found[1])


def together(seeds: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(clips, mean, least, greatest) over seeds, where every seed has a value."""
    clips = seeds[0][0]
    for other, _ in seeds[1:]:
        clips = np.intersect1d(clips, other)
    values = np.stack([y[np.searchsorted(x, clips)] for x, y in seeds])
    return clips, values.mean(0), values.min(0), values.max(0)


def training_curves(plan: dict[str, Any], records: Records, wanted: Arguments) -> Figure:
    """Curves of the cells that were trained.

    Args:
        wanted: `cell` (`a,b`; all by default), `split`, `seed`, where the command line has them.

    Raises:
        BadInput: no cell has been trained yet.
    """
    split = split_in(plan, wanted)
    works = [w for w in plan["works"] if w["split"] == split and w["cell"] in cells_in(plan, wanted.get("cell", ""))]
    if "seed" in wanted and wanted["seed"] not in (known := {str(w["seed"]) for w in works}):
        raise unknown("seed", wanted["seed"], known)
    found: dict[str, list[dict[str, tuple[np.ndarray, np.ndarray]]]] = {}
    methods = set()
    for work in works:
        if "seed" in wanted and str(work["seed"]) != wanted["seed"]:
            continue
        if lines := lines_of(records, work["pretraining"]):
            found.setdefault(work["cell"], []).append(lines)
            methods.add(records.about(work["pretraining"]).get("method", ""))
    if not found:
        raise BadInput(f"nothing of plan {plan['name']} has been trained yet; run: {plan['command']}")
    look, count = looks(list(found)), max(len(seeds) for seeds in found.values())
    figure = Figure(figsize=(12.0, 3.9 + 0.22 * -(-len(found) // PER_ROW)), layout="constrained")
    shown = [name for name in PANELS if any(name in one for seeds in found.values() for one in seeds)]
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, name in zip(panels, shown):
        share = name == "loss" and len(methods) > 1
        for cell, seeds in found.items():
            mine = [one[name] for one in seeds if name in one]
            if not mine:
                continue
            if share:
                mine = [(x, y / y[0]) for x, y in mine if y[0] > 0]
            if not mine:
                continue
            clips, mean, low, high = together(mine)
            style = {k: v for k, v in look[cell].items() if k != "marker"}
            if name != "loss":
                style |= {"marker": look[cell]["marker"], "markersize": 4.5}
            axes.plot(clips, mean, label=cell, **style)
            if len(mine) > 1:
                axes.fill_between(clips, low, high, color=look[cell]["color"], alpha=0.15, linewidth=0)
        axes.set_xlabel("clips seen")
        axes.set_title("training loss, share of its first value" if share else PANELS[name])
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
        axes.set_xlim(left=0)
        plain(axes)
    figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=PER_ROW)
    of = f"mean of {count} seeds, bands from the least to the greatest" if count > 1 else "one seed"
    titled(figure, f"{plan['title']}: training on {plan['data']} {split}, scale {plan['scale']}, {of}")
    return figure
