"""`python sweeps/runs.py list|show|diff|prune`: what lies in the folder of all runs.

list [KEY=VALUE ...]     a line for each run; KEY: method, data, split, seed, scale, state, commit, plan, cell
show RUN                 settings that differ from the defaults, where it came from, its curve and its results
diff RUN RUN             in what two differ: settings, versions, data, code, scores
prune [KEY=VALUE ...]    remove what no table needs, after asking (yes=true: without); a run at work is left alone
runs=DIR                 the folder (default: runs)

RUN is an identity, the beginning of one, or a cell: PLAN:CELL, or CELL of the newest plan that has it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # this folder's own files must not stand in for packages of the same name

from skeletons.errors import BadInput, command, unknown
from sweeps.config import Config
from sweeps.inventory import (
    Entry,
    code_between,
    compared,
    entries,
    matching,
    one,
    plans_of,
    provenance_of,
    score,
    settings,
    size_of,
    sized,
)
from sweeps.records import Records
from sweeps.waste import remove, waste

FILTERS = ("method", "data", "split", "seed", "scale", "state", "commit", "plan", "cell")
BARS = "▁▂▃▄▅▆▇█"


def listed(found: list[Entry]) -> list[str]:
    """A line for each run, under a head."""
    if not found:
        return ["no runs"]
    rows = [list(found[0].facts), *(list(e.facts.values()) for e in found)]
    whole = sum(size_of(e.folder) for e in found)
    return [*_aligned(rows), f"{len(found)} runs, {sized(whole)}"]


def shown(entry: Entry, labels: dict[str, str]) -> list[str]:
    """All there is to say of a run.

    Args:
        labels: result's identity -> its heading in tables.
    """
    facts = entry.facts
    lines = [f"{entry.identity}: {facts['state']}, {facts['size']}"]
    lines += [f"  used by {plan} as {cell}, {split} seed {seed}" for plan, cell, split, seed, _ in entry.used]
    changed = [
        (k, own) for k, _, own in compared(defaults_of(entry), settings(entry)) if own != "-"
    ]  # -: newer than it
    lines += ["", "settings that differ from the defaults:", *(f"  {name} = {own}" for name, own in changed)]
    about = {k: v for k, v in provenance_of(entry).items() if not isinstance(v, dict)}
    about |= {k: entry.about[k] for k in ("finished", "seconds", "clips_per_second", "encoder") if entry.about.get(k)}
    versions = " ".join(f"{k} {v}" for k, v in entry.about.get("hashed", {}).get("versions", {}).items())
    lines += [
        "",
        "made from:",
        *(f"  {k} = {v}" for k, v in about.items()),
        *([f"  versions: {versions}"] * bool(versions)),
    ]
    if entry.lines:
        names = dict.fromkeys(k for line in entry.lines for k in line if k not in ("step", "time"))
        lines += ["", f"curves over {int(entry.lines[-1]['step'])} steps: first, last, and the way between them:"]
        lines += _aligned([_curve(name, [e[name] for e in entry.lines if name in e]) for name in names])
    if entry.results:
        lines += ["", "results:"]
        for identity, result in entry.results.items():
            what = labels.get(identity, result["protocol"])
            where = f"{result['data']} {result['split']}, pooling {result['pooling']}"
            lines.append(f"  {identity}  {what}: {score(result):.2f} on {where}; commit {result['commit']}")
    return lines


def _curve(name: str, values: list[float]) -> list[str]:
    few = [values[round(i * (len(values) - 1) / 39)] for i in range(40)] if len(values) > 40 else values
    low, high = min(few), max(few)
    marks = "".join(BARS[round(7 * (v - low) / (high - low))] if high > low else BARS[0] for v in few)
    return [f"  {name}", f"{values[0]:.4g}", f"{values[-1]:.4g}", marks]


def defaults_of(entry: Entry) -> dict[str, Any]:
    """The default settings of the run's method, as plain values."""
    from omegaconf import OmegaConf

    from methods.base import all_methods

    method = all_methods().get(str(entry.config.get("method", {}).get("name", "")))
    plain = OmegaConf.to_container(OmegaConf.structured(Config(method=method.Config()) if method else Config()))
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items() if k in settings(entry)}


def different(a: Entry, b: Entry, labels: dict[str, str]) -> list[str]:
    """In what two runs differ."""
    lines: list[str] = []
    for title, part in (("settings", settings), ("versions, data and machine", provenance_of)):
        rows = [list(row) for row in compared(part(a), part(b))]
        told = _aligned([["  ", a.identity, b.identity], *([f"  {k}", *v] for k, *v in rows)])
        lines += ["", f"{title}:", *(told if rows else ["  the same"])]
    commits = [provenance_of(e).get("commit", "unknown") for e in (a, b)]
    dirty = [e.identity for e in (a, b) if provenance_of(e).get("dirty")]
    if commits[0] != commits[1]:
        between = code_between(*commits) or ["  not both commits are in this repository"]
        lines += ["", f"code, {commits[0]} to {commits[1]}:", *between]
    lines += [f"  {identity} was made with changes that were not committed" for identity in dirty]
    scores = [{_about(r, labels.get(i, "")): score(r) for i, r in e.results.items()} for e in (a, b)]
    names = list(dict.fromkeys([*scores[0], *scores[1]]))
    table = [["  ", a.identity, b.identity, "difference"]]
    for name in names:
        first, second = (s.get(name) for s in scores)
        gap = f"{second - first:+.2f}" if first is not None and second is not None else ""
        table.append([name, *("-" if v is None else f"{v:.2f}" for v in (first, second)), gap])
    lines += ["", "scores:", *_aligned(table)]
    return lines[1:]


def _about(result: dict[str, Any], label: str) -> str:
    return f"  {label or result['protocol']} on {result['data']} {result['split']}, pooling {result['pooling']}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(text.ljust(w) for text, w in zip(row, widths)).rstrip() for row in rows]


def prune(records: Records, found: list[Entry], wanted: dict[str, str], sure: bool) -> int:
    """List what no table needs, ask, and remove it.

    Raises:
        BadInput: there is nobody to ask.
    """
    chosen = {e.identity for e in matching(found, wanted)}
    useless = [w for w in waste(records, found) if (w.entry.identity in chosen if w.entry else not wanted)]
    for what in useless:
        facts = what.entry.facts if what.entry else {}
        of = f" ({facts['method']} on {facts['data']} {facts['split']})" if facts else ""
        print(f"{sized(size_of(what.path)):>8}  {what.path.relative_to(records.root)}  {what.why}{of}")
    busy = [e.identity for e in found if e.owned]
    if busy:
        print(f"left alone, at work: {', '.join(busy)}")
    if not useless:
        print("nothing to remove: every run and result is in a plan's table")
        return 0
    total = sized(sum(size_of(what.path) for what in useless))
    if not sure:
        if not sys.stdin.isatty():
            raise BadInput(f"prune would remove these {len(useless)} ({total}); nobody is here to ask, so say yes=true")
        if input(f"remove these {len(useless)} ({total})? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 0
    freed = sum(remove(records, what) for what in useless)
    print(f"removed: {sized(freed)}")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit status."""
    if not arguments or any(a in ("-h", "--help", "help") for a in arguments):
        print(__doc__)
        return 0
    verbs = {"list": 0, "show": 1, "diff": 2, "prune": 0}
    verb, names, wanted = arguments[0], list[str](), dict[str, str]()
    if verb not in verbs:
        raise unknown("command", verb, verbs)
    records = Records(next((a.removeprefix("runs=") for a in arguments if a.startswith("runs=")), "runs"))
    found = entries(records)
    cells = {place.cell for entry in found for place in entry.used}
    for argument in arguments[1:]:
        key, given, value = argument.partition("=")
        # The cells of a grid have a = too: masking.ratio=0.7, method=mamp.
        if given and not set(key) & {".", ":"} and not (verbs[verb] and argument in cells):
            wanted[key] = value
        else:
            names.append(argument)
    if len(names) != verbs[verb]:
        raise BadInput(f"{verb} takes {verbs[verb]} run(s), given {len(names)}; see python sweeps/runs.py --help")
    wanted.pop("runs", "")
    sure = wanted.pop("yes", "false") == "true"
    for key in wanted:
        if key not in FILTERS:
            raise unknown("argument", key, (*FILTERS, "runs", "yes"))
    labels = {
        identity: plan.get("labels", {}).get(protocol, protocol)
        for plan in plans_of(records)
        for work in plan["works"]
        for protocol, identity in work["judgements"].items()
    }
    if verb == "prune":
        return prune(records, found, wanted, sure)
    if verb == "list":
        lines = listed(matching(found, wanted))
    elif verb == "show":
        lines = shown(one(matching(found, wanted), names[0]), labels)
    else:
        a, b = (one(matching(found, wanted), name) for name in names)
        lines = different(a, b, labels)
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    command(main)
