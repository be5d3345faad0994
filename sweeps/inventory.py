"""What lies in the folder of all runs: each run's state, size and users, and in what two differ."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from skeletons.errors import BadInput, unknown
from sweeps.config import flat
from sweeps.execute import metrics_of
from sweeps.identity import RAW
from sweeps.mirror import OF_THE_PLAN
from sweeps.records import Records, read_json

IDENTITY = re.compile(rf"[0-9a-f]{{12}}|{RAW}")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where it was compiled


class Place(NamedTuple):
    """Where a run stands in a plan, and when that was written (seconds since the epoch)."""

    plan: str
    cell: str
    split: str
    seed: int
    written: float


@dataclass
class Entry:
    """One run.

    Attributes:
        identity: of its encoder; raw for what was judged without one.
        folder: where it lies.
        used: its places in plans, the oldest first.
        owned: somebody works on it now.
    """

    identity: str
    folder: Path
    used: list[Place] = field(default_factory=list)
    owned: bool = False

    @cached_property
    def about(self) -> dict[str, Any]:
        """Its run.json."""
        return read_json(self.folder / "run.json") or {}

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its settings, nested; nothing where it has none."""
        path = self.folder / "config.yaml"
        found = yaml.load(path.read_text(), LOADER) if path.is_file() else None
        return found if isinstance(found, dict) else {}

    @cached_property
    def lines(self) -> list[dict[str, float]]:
        """Its metrics."""
        return metrics_of(self.folder)

    @cached_property
    def results(self) -> dict[str, dict[str, Any]]:
        """Its results by identity."""
        return {p.parent.name: read_json(p) or {} for p in sorted(self.folder.glob("eval/*/result.json"))}

    @property
    def state(self) -> str:
        """running, complete, failed and why, or unfinished and where."""
        if self.owned:
            return "running"
        places = [self.folder / "failure.json", *sorted(self.folder.glob("eval/*/failure.json"))]
        if failure := next((found for place in places if (found := read_json(place))), None):
            return f"failed: {failure['reason']}"
        if self.about or self.identity == RAW:
            return "complete"
        at = f", checkpoint at step {int(self.lines[-1]['step'])}" if self.lines else ""
        return f"unfinished{at if (self.folder / 'checkpoint.pt').is_file() else ''}"

    @cached_property
    def facts(self) -> dict[str, str]:
        """What `list` shows and filters by."""
        c, about, plans = self.config, self.about, list(dict.fromkeys(place.plan for place in self.used))
        commit = (about or next(iter(self.results.values()), {})).get("commit", "")
        return {
            "identity": self.identity,
            "method": RAW if self.identity == RAW else about.get("method") or str(_at(c, "method.name")),
            "data": about.get("data") or str(_at(c, "data.name")),
            "split": about.get("split") or str(_at(c, "data.split")),
            "seed": " ".join(map(str, c.get("seeds") or [])),
            "scale": str(c.get("scale", "")),
            "steps": str(int(self.lines[-1]["step"])) if self.lines else "",
            "kNN": next((f"{line['knn']:.1f}" for line in reversed(self.lines) if "knn" in line), ""),
            "results": str(len(self.results)),
            "commit": commit + ("+" if about.get("dirty") else ""),
            "size": sized(size_of(self.folder)),
            "state": self.state,
            "used by": f"{plans[-1]}{f' +{len(plans) - 1}' if len(plans) > 1 else ''}" if plans else "no plan",
        }


def _at(tree: dict[str, Any], path: str) -> Any:
    found: Any = tree
    for name in path.split("."):
        found = found.get(name, "") if isinstance(found, dict) else ""
    return found


def plans_of(records: Records) -> list[dict[str, Any]]:
    """All plans, the oldest first.

    Raises:
        BadInput: a file is damaged.
    """
    found = [plan for path in sorted((records.root / "plans").glob("*.json")) if (plan := read_json(path))]
    return sorted(found, key=lambda plan: plan["written"])


def entries(records: Records) -> list[Entry]:
    """All runs; links, and folders that are none, are left alone."""
    if not records.root.is_dir():
        raise BadInput(f"{records.root}: no such folder; name the one with your runs: runs=DIR")
    folders = [p for p in sorted(records.root.iterdir()) if IDENTITY.fullmatch(p.name) and not p.is_symlink()]
    found = {p.name: Entry(p.name, p, owned=records.is_owned(p.name)) for p in folders if p.is_dir()}
    for plan in plans_of(records):
        for work in plan["works"]:
            if work["pretraining"] in found:
                place = Place(plan["name"], work["cell"], work["split"], work["seed"], plan["written"])
                found[work["pretraining"]].used.append(place)
    return list(found.values())


def matching(found: Iterable[Entry], wanted: dict[str, str]) -> list[Entry]:
    """Runs whose facts start as wanted; of a plan or a cell: that are used there."""
    kept = []
    for entry in found:
        places = {"plan": [u.plan for u in entry.used], "cell": [u.cell for u in entry.used]}
        if all(
            any(name == value for name in places[key])
            if key in places
            else entry.facts[key].startswith(value)
            if key in ("identity", "commit", "state")
            else entry.facts[key] == value
            for key, value in wanted.items()
        ):
            kept.append(entry)
    return kept


def one(found: list[Entry], name: str) -> Entry:
    """The run that is meant by an identity, the beginning of one, or the cell of a plan (`PLAN:CELL`, or `CELL` alone:
    of the newest plan that has it).

    Raises:
        BadInput: none or several are meant.
    """
    same = [e for e in found if e.identity.startswith(name)]
    if not same:
        plan, _, cell = name.rpartition(":")
        places = [(place, e) for e in found for place in e.used if place.cell == cell and plan in ("", place.plan)]
        if not places:
            raise unknown("run or cell", name, {e.identity for e in found} | {u.cell for e in found for u in e.used})
        newest = plan or max(places, key=lambda one: one[0].written)[0].plan
        same = list({e.identity: e for place, e in places if place.plan == newest}.values())
    if len(same) > 1:
        which = ", ".join(f"{e.identity} ({e.facts['split']} seed {e.facts['seed']})" for e in same)
        raise BadInput(f"{name!r} may be any of {which}; name one of them, or say split= or seed=")
    return same[0]


def score(result: dict[str, Any]) -> float:
    """The headline of a result (older ones have it as top-1 alone)."""
    return float(result.get("value", result.get("top1", float("nan"))))


def compared(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value in a, value in b) of what differs in two trees; - where it is not there."""
    one, two = flat(a), flat(b)
    keys = sorted(one.keys() | two.keys())
    return [(k, str(one.get(k, "-")), str(two.get(k, "-"))) for k in keys if one.get(k) != two.get(k)]


def settings(entry: Entry) -> dict[str, Any]:
    """Its settings without those that are its plan's."""
    return {k: v for k, v in entry.config.items() if k not in OF_THE_PLAN}


def provenance_of(entry: Entry) -> dict[str, Any]:
    """What a run was made from beside its settings: versions, data, machine."""
    known = entry.about or next(iter(entry.results.values()), {})
    found = {k: known.get(k) for k in ("commit", "dirty", "python", "torch", "numpy", "machine") if k in known}
    hashed = {
        k: v for k, v in entry.about.get("hashed", {}).items() if k not in ("fields", "topology", "masking", "method")
    }
    return found | {k: v for k, v in hashed.items() if k != "torch"}


def code_between(a: str, b: str) -> list[str]:
    """Commits and changed files between two commits, in words; empty where they are not both here."""
    here = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> list[str] | None:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True)
        return done.stdout.splitlines() if done.returncode == 0 else None

    if not all(re.fullmatch(r"[0-9a-f]{7,40}", commit) for commit in (a, b)):
        return []
    ahead, behind = git("log", "--oneline", f"{a}..{b}"), git("log", "--oneline", f"{b}..{a}")
    files = git("diff", "--stat=100", a, b, "--", "skeletons", "methods", "protocols", "sweeps")
    if ahead is None or behind is None or files is None:
        return []
    found = [f"  {line}" for line in ahead]
    found += [f"  (only in the first) {line}" for line in behind]
    return [*found, *(f"  {line.strip()}" for line in files)]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(size_of(inside) for inside in path.iterdir())


def sized(size: float) -> str:
    """A size in words."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
