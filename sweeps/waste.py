"""What lies in the folder of all runs and no table needs, and its removal."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeps.inventory import Entry, plans_of, size_of
from sweeps.records import Records

OLD = 3600.0  # seconds after which a temporary file outside of runs is nobody's: it has no owner to ask


@dataclass(frozen=True)
class Waste:
    """Something that no table needs.

    Attributes:
        path: file or folder.
        why: in words.
        entry: the run that it belongs to, if any.
    """

    path: Path
    why: str
    entry: Entry | None = None


def needed(records: Records, found: Iterable[Entry]) -> dict[str, set[str]]:
    """Run -> its results that plans' tables are made from. Runs whose scores or encoders those were made of are there
    too, with no results of their own."""
    keep: dict[str, set[str]] = {}
    for plan in plans_of(records):
        for work in plan["works"]:
            keep.setdefault(work["pretraining"], set()).update(work["judgements"].values())
    known, queue = {entry.identity: entry for entry in found}, list(keep)
    while queue:
        about = known[identity].about if (identity := queue.pop()) in known else {}
        given = Path(about.get("encoder") or "/")
        for source in [*about.get("fused", ()), *([given.parent.name] if given.parent.parent == records.root else [])]:
            if source not in keep:
                keep[source] = set()
                queue.append(source)
    return keep


def trials(records: Records) -> set[str]:
    """Runs that were trials of a tuning, whose scores and curves are kept by its study."""
    found: set[str] = set()
    for journal in (records.root / "studies").glob("*.log"):
        for runs in re.findall(r'"user_attr": ?\{"runs": ?\[([^]]*)\]', journal.read_text()):
            found |= set(re.findall(r"\w+", runs))
    return found


def waste(records: Records, found: list[Entry]) -> Iterator[Waste]:
    """What no table needs; runs that somebody works on are left alone."""
    keep, tried = needed(records, found), trials(records)
    for entry in found:
        if entry.owned:
            continue
        if entry.identity not in keep:
            tuning = ", but a tuning's trial; its score stays" if entry.identity in tried else ""
            yield Waste(entry.folder, f"run in no plan{tuning}", entry)
            continue
        wanted = keep[entry.identity]
        for result in sorted((entry.folder / "eval").glob("[!.]*")):
            if wanted and result.name not in wanted:  # what others were made of keeps all it has
                yield Waste(result, "result in no plan", entry)
        for pattern in (".*.*", "eval/.*.*", "eval/*/.*.*"):
            for path in sorted(entry.folder.glob(pattern)):
                yield Waste(path, "left by a process that was killed", entry)
        if entry.about and (entry.folder / "checkpoint.pt").is_file():
            yield Waste(entry.folder / "checkpoint.pt", "checkpoint of a complete run", entry)
    for path in sorted(
        [*records.root.glob(".*.*"), *records.root.glob("plans/.*.*"), *records.root.glob("mlflow/.*.*")]
    ):
        if time.time() - path.lstat().st_mtime > OLD:
            yield Waste(path, "left by a process that was killed")


def remove(records: Records, what: Waste) -> int:
    """Remove it; returns bytes, 0 where somebody works on that run by now, or a plan needs it by now."""
    if what.entry is None:
        return _removed(what.path)
    with records.owned_now(what.entry.identity) as free:
        wanted = needed(records, [what.entry]).get(what.entry.identity)
        if not free or (what.path == what.entry.folder and wanted is not None) or what.path.name in (wanted or ()):
            return 0
        return _removed(what.path)


def _removed(path: Path) -> int:
    """Remove a file, a folder or a link (not what it leads to); returns bytes."""
    size = size_of(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    return size
