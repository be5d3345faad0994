"""A study of sweeps/tune.py as a picture: its history, the curves that pruned, and what mattered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.style import BLACK, BLUE, INK, NOTE, PALE, TICK, VERMILLION, titled
from skeletons.errors import BadInput, unknown
from sweeps.records import Records, read_json

SCORE = "% right, withheld subjects"
ACROSS, MOST = 3, 6  # panels in a row; settings that get one


def tuning_picture(records: Records, wanted: dict[str, str]) -> tuple[Figure, str]:
    """The picture of a study, and its name.

    Args:
        wanted: `study`; by default the newest.

    Raises:
        BadInput: there is none.
    """
    known = {path.stem: path for path in (records.root / "studies").glob("tune-*.json")}
    if not known:
        raise BadInput(f"{records.root}: no study yet; `python sweeps/tune.py tune=optimizer` makes one")
    name = wanted.get("study") or max(known, key=lambda n: known[n].stat().st_mtime)
    if name not in known:
        raise unknown("study", name, known)
    study = read_json(Path(known[name]))
    assert study is not None
    return draw(study), name


def draw(study: dict[str, Any]) -> Figure:
    """History, curves and importance in the first row, the settings below, those that mattered most first."""
    order = [*study["importance"], *(p["key"] for p in study["space"] if p["key"] not in study["importance"])]
    order = order[:MOST]
    rows = 1 + -(-len(order) // ACROSS)
    figure = Figure(figsize=(11.0, 3.0 * rows + 0.8), layout="constrained")
    panels = figure.subplots(rows, ACROSS, squeeze=False).flatten()
    _history(panels[0], study)
    _curves(panels[1], study)
    _importance(panels[2], study)
    settings = {p["key"]: p for p in study["space"]}
    for number, (axes, key) in enumerate(zip(panels[ACROSS:], order)):
        _setting(axes, study, settings[key])
        if number % ACROSS == 0:
            axes.set_ylabel(SCORE)
        if number == 0:
            axes.legend(fontsize=NOTE)
    for axes in panels[ACROSS + len(order) :]:
        axes.set_visible(False)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    held = study["withheld"]
    what = f"{study['method']} on {study['data']}, split {study['split']}, scale {study['scale']}"
    who = f"withheld training subjects ({held['clips']} of {held['of']} training clips)"
    titled(
        figure,
        f"{what}, seeds {study['seeds']}: {len(study['trials'])} trials",
        f"{study['heading']} of {who}, top-1 %; the test split was not read; commit {study['commit']}",
    )
    return figure


def _kinds(study: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """State -> its trials; pruned and diverged ones have no score."""
    states = ("complete", "pruned", "diverged", "failed")
    return {state: found for state in states if (found := [t for t in study["trials"] if t["state"] == state])}


def _unscored(axes: Axes, at: list[Any], label: str, mark: str, height: float) -> None:
    """Marks just above the axis, for trials without a score."""
    style: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False}
    axes.plot(at, [height] * len(at), linestyle="", marker=mark, color=INK, markersize=5, label=label, **style)


LOW = {"pruned": ("x", 0.03), "diverged": ("v", 0.09), "failed": ("s", 0.15)}


def _history(axes: Axes, study: dict[str, Any]) -> None:
    kinds = _kinds(study)
    done = kinds.get("complete", [])
    axes.plot([t["number"] for t in done], [t["value"] for t in done], "o", color=BLUE, markersize=5, label="complete")
    tops = [max(t["value"] for t in done[: n + 1]) for n in range(len(done))]
    ends = [*(t["number"] for t in done), len(study["trials"]) - 1] if done else []
    axes.step(ends, [*tops, *tops[-1:]], where="post", color=VERMILLION, linewidth=1.6, label="best so far")
    start = study["trials"][study["first"]]["value"]
    if start is not None:
        axes.axhline(start, color=BLACK, linewidth=1, linestyle="--", label="start")
    for state, (mark, height) in LOW.items():
        if state in kinds:
            _unscored(axes, [t["number"] for t in kinds[state]], state, mark, height)
    axes.set(title="history", xlabel="trial", ylabel=SCORE)
    axes.margins(y=0.25)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=PALE, linewidth=0.6)
    axes.legend(fontsize=NOTE, ncols=2, loc="best")


def _curves(axes: Axes, study: dict[str, Any]) -> None:
    """The online kNN accuracy of each trial's first seed; pruned ones end in a cross."""
    for trial in sorted(study["trials"], key=lambda t: t["number"] in (study["first"], study["best"])):
        places, knn = [int(p) for p in trial["curve"]], list(trial["curve"].values())
        if not places:
            continue
        if trial["number"] == study["best"]:
            axes.plot(
                places, knn, "-", color=VERMILLION, linewidth=2.2, label=f"best (trial {trial['number']})", zorder=4
            )
        elif trial["number"] == study["first"]:
            label = f"start (trial {trial['number']})"
            axes.plot(places, knn, "--", color=BLACK, linewidth=1.6, label=label, zorder=3)
        elif trial["state"] == "pruned":
            axes.plot(places, knn, ":", color=INK, linewidth=1)
            axes.plot(places[-1:], knn[-1:], "x", color=INK, markersize=5)
        else:
            axes.plot(places, knn, "-", color=BLUE, linewidth=0.9, alpha=0.6)
    axes.set(title="online kNN, which prunes", xlabel=f"evaluation, of {study['evaluations']}")
    axes.set_ylabel(SCORE)
    axes.set_xlim(0.8, study["evaluations"] + 0.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=PALE, linewidth=0.6)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=NOTE)


def _importance(axes: Axes, study: dict[str, Any]) -> None:
    shares = study["importance"]
    complete = sum(t["state"] == "complete" for t in study["trials"])
    axes.set_title(f"importance (fANOVA, {complete} complete trials)")
    if not shares:
        axes.text(0.5, 0.5, "too few complete trials", ha="center", va="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    names = list(shares)[::-1]
    axes.barh(names, [100 * shares[n] for n in names], color=BLUE, height=0.65)
    for place, name in enumerate(names):
        axes.text(100 * shares[name] + 1, place, f"{100 * shares[name]:.0f}", va="center", fontsize=TICK)
    axes.set_xlabel("share of the score's variance, %")
    axes.set_xlim(0, 112 * max(shares.values()))


def _setting(axes: Axes, study: dict[str, Any], parameter: dict[str, Any]) -> None:
    """The score against one setting's value; the other settings differ too."""
    key, kinds = parameter["key"], _kinds(study)
    whole = parameter["kind"] == "categorical"
    choices = list(dict.fromkeys(t["params"][key] for t in study["trials"]))
    if whole:
        choices.sort(key=lambda c: parameter["choices"].index(c))

    def at(trial: dict[str, Any]) -> Any:
        value = trial["params"][key]
        return choices.index(value) + 0.12 * ((trial["number"] * 5) % 7 - 3) / 3 if whole else value

    done = kinds.get("complete", [])
    axes.plot([at(t) for t in done], [t["value"] for t in done], "o", color=BLUE, markersize=5)
    for name, mark, colour, size in (("first", "D", BLACK, 6), ("best", "*", VERMILLION, 13)):
        one = next((t for t in done if t["number"] == study[name]), None)
        if one is not None:
            label = "start" if name == "first" else name
            axes.plot([at(one)], [one["value"]], mark, color=colour, markersize=size, label=label, linestyle="")
    for state, (mark, height) in LOW.items():
        if state in kinds:
            _unscored(axes, [at(t) for t in kinds[state]], "", mark, height)
    if whole:
        axes.set_xticks(range(len(choices)), choices)
        axes.set_xlim(-0.5, len(choices) - 0.5)
    elif parameter["log"]:
        axes.set_xscale("log")
    if not whole:  # all of the range, and a little more, so that marks at its ends are seen
        low, high = parameter["low"], parameter["high"]
        room = (high / low) ** 0.04 if parameter["log"] else 0.04 * (high - low)
        axes.set_xlim(*((low / room, high * room) if parameter["log"] else (low - room, high + room)))
    axes.margins(y=0.25)
    axes.set_xlabel(key)
    axes.grid(color=PALE, linewidth=0.6)
