"""`python -m skeletons.audit data=NAME [data.root=DIR] [data.file=PATH] [split=NAME]`: one page on what is wrong with a
set of recordings and its splits.

split=NAME looks at that split instead of all that the set has. Exit status 1 where a split leaks: a test clip is a
training clip, or a piece or a copy of one; else 0; 2 where the data cannot be read. The verdict is kept with the opened
store, and tables of results show it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from skeletons.checks import judge
from skeletons.clips import Clips
from skeletons.duplicates import duplicates
from skeletons.errors import BadInput, command, unknown
from skeletons.findings import NOTE, OK, PROBLEM, Finding
from skeletons.leaks import Verdict, both_sides, classes, leakage, twice
from skeletons.sources import DataConfig, open_clips
from skeletons.splits import OFFICIAL, folds, split
from skeletons.survey import survey
from skeletons.whole import written_whole

VERSION = 1  # of the checks: raise it with whatever changes a verdict
FILE = "audit.json"
WIDTH, FIRST = 118, 27  # columns of the page; where its text begins
SHOWN = 3  # names in a line
TOGETHER = 3  # so many splits have lines of their own for subjects and classes


def splits_of(clips: Clips) -> list[str]:
    """The splits that a set has: its columns, the official ones, its folds; where there are none, odd subjects."""
    names = [c.removeprefix("train_") for c in clips.table if c.startswith("train_")]
    names += [s for d, s in OFFICIAL if d == clips.name and OFFICIAL[d, s][0] in clips.table]
    names += [f"fold:{k}" for k in folds(clips)] if "fold" in clips.table else []
    if not names and len(set(clips.table.get("subject", np.empty(0)).tolist())) > 1:
        names = ["subject:odd"]
    return list(dict.fromkeys(names))


def audit(clips: Clips, asked: str = "") -> tuple[list[Finding], dict[str, Verdict]]:
    """All checks of a set, and of its splits.

    Args:
        asked: a split, to look at that one alone.

    Returns:
        (findings in the page's order, verdict on each split)

    Raises:
        BadInput: the data has no such split.
    """
    parts, found, verdicts = [], [], {}
    for name in [asked] if asked else splits_of(clips):
        try:
            parts.append(split(clips, name))
        except BadInput as error:
            if asked:
                raise
            found.append(Finding(f"split {name}", NOTE, str(error)))
    measured = survey(clips)
    pairs = duplicates(clips, measured.digest)
    for part in parts:
        leak, verdicts[part.name] = leakage(clips, part, pairs)
        found.append(leak)
        if len(parts) <= TOGETHER:
            found += [both_sides(clips, part), classes(clips, part)]
    if len(parts) > TOGETHER:
        for look in (both_sides, classes):
            found += _together({part.name: look(clips, part) for part in parts})
    of_recordings = [twice(clips, pairs), *judge(clips, measured)]
    if wrong := [finding.check for finding in of_recordings if finding.status == PROBLEM]:
        said = f"; the recordings have {len(wrong)} PROBLEM{'s' * (len(wrong) > 1)}: {', '.join(wrong)}"
        verdicts = {name: replace(verdict, text=verdict.text + said) for name, verdict in verdicts.items()}
    return [*found, *of_recordings], verdicts


def _together(each: dict[str, Finding]) -> list[Finding]:
    """Findings on many splits, one line for those of one status: the first one's, and whom it stands for."""
    lines = []
    for status in (PROBLEM, NOTE, OK):
        names = [name for name, finding in each.items() if finding.status == status]
        if names:
            first = each[names[0]]
            others = f" and {len(names) - 1} like it" if len(names) > 1 else ""
            lines.append(Finding(first.check, status, f"{names[0]}{others}: {first.text}"))
    return lines


def page(clips: Clips, found: Sequence[Finding], verdicts: dict[str, Verdict], kept: str) -> str:
    """What is printed."""

    def many(count: int, one: str, more: str = "") -> str:
        return f"{count} {one if count == 1 else more or one + 's'}"

    columns = [many(len(set(clips.table[c].tolist())), c) for c in ("subject", "camera", "setup") if c in clips.table]
    has = [many(len(clips), "clip"), many(len(clips.frames), "frame"), many(len(clips.class_names), "class", "classes")]
    bodies = (
        f"{many(clips.frames.shape[1], 'person', 'persons')} x {len(clips.topology)} joints ({clips.topology.name})"
    )
    lines = [f"audit of {clips.name}: {', '.join([*has, *columns])}; {bodies}"]
    lines += [f"{clips.source}; fingerprint {clips.fingerprint}, audit version {VERSION}", ""]
    for finding in found:
        head = f"{finding.status:<9}{finding.check:<{FIRST - 9}}"
        body = wrap(finding.text, WIDTH - FIRST) or [""]
        shown = ", ".join(finding.names[:SHOWN])
        if shown:
            more = max(finding.count, len(finding.names)) - SHOWN
            body += wrap(shown + (f", and {more} more" if more > 0 else ""), WIDTH - FIRST)
        lines += [(head if i == 0 else " " * FIRST) + text for i, text in enumerate(body)]
    counts = {s: sum(f.status == s for f in found) for s in (PROBLEM, NOTE)}
    leaking = [name for name, verdict in verdicts.items() if verdict.leaks]
    told = f"verdict: {many(counts[PROBLEM], 'problem')}, {many(counts[NOTE], 'note')}; "
    told += (
        f"LEAKS: {', '.join(leaking)}" if leaking else "no split leaks" if verdicts else "there is no split to check"
    )
    return "\n".join([*lines, "", told, kept])


def store_of(clips: Clips) -> Path | None:
    """The folder that these clips were opened from."""
    file = getattr(clips.frames, "filename", None)
    return Path(file).parent if file else None


def keep(clips: Clips, found: Sequence[Finding], verdicts: dict[str, Verdict]) -> str:
    """Put the verdict beside the clips, with those on other splits that are there; says where, or why not."""
    folder = store_of(clips)
    if folder is None:
        return "the verdict is not kept: these clips are in no store"
    content = {
        "version": VERSION,
        "fingerprint": clips.fingerprint,
        "splits": {**_kept(clips), **{name: asdict(verdict) for name, verdict in verdicts.items()}},
        "findings": [asdict(f) for f in found],
    }
    try:
        with written_whole(folder / FILE) as temporary:
            temporary.write_text(json.dumps(content, indent=1))
    except BadInput as error:
        return f"the verdict is not kept: {error}"
    return f"kept: {folder / FILE}"


def _kept(clips: Clips) -> dict[str, Any]:
    """Verdicts on file, by split; none where the clips or the checks have changed since."""
    folder = store_of(clips)
    if folder is None or not (folder / FILE).is_file():
        return {}
    content = json.loads((folder / FILE).read_text())
    return content["splits"] if (content["version"], content["fingerprint"]) == (VERSION, clips.fingerprint) else {}


def verdict_on(clips: Clips, name: str) -> str | None:
    """What the last audit said of this split, in a few words; None where there was none."""
    known = _kept(clips).get(name)
    return known["text"] if known else None


def _asked(arguments: Sequence[str]) -> tuple[DataConfig, str]:
    """The data that the command line names, and the split ("": all)."""
    known = {"data": "name", "split": "split", **{f"data.{f.name}": f.name for f in fields(DataConfig)}}
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in known:
            raise unknown("argument", key, known)
        if not equals or not value:
            raise BadInput(f"{argument}: write {key}=VALUE")
        given[known[key]] = value
    if "name" not in given:
        raise BadInput("say which data: data=NAME (nwucla, archive, ...)")
    asked = given.pop("split", "")
    return DataConfig(**given), asked


def main(arguments: Sequence[str]) -> int:
    """Audit what the command line names; returns the exit status."""
    if any(a in ("-h", "--help") for a in arguments):
        print(__doc__)
        return 0
    config, asked = _asked(arguments)
    clips = open_clips(config)
    found, verdicts = audit(clips, asked)
    print(page(clips, found, verdicts, keep(clips, found, verdicts)))
    return int(any(v.leaks for v in verdicts.values()))


if __name__ == "__main__":
    command(main)
