"""`python -m skeletons.audit data=NAME [data.root=DIR] [data.file=PATH] [split=NAME]`: one page on what is wrong with a
set of recordings and its splits.

split=NAME looks at that split instead of all that the set has. Exit status 1 where a split leaks: a test clip is a
training clip, or a piece or a copy of one; else 0; 2 where the data cannot be read. The verdict is kept with the opened
store, and tables of results show it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from skeletons.checks import NOTE, OK, PROBLEM, Finding, balance, judge
from skeletons.clips import Clips, written_whole
from skeletons.duplicates import HALF, NEAR, Duplicates, duplicates
from skeletons.errors import BadInput, command, unknown
from skeletons.sources import DataConfig, open_clips
from skeletons.splits import OFFICIAL, Split, folds, split
from skeletons.survey import survey

VERSION = 1  # of the checks: raise it with whatever changes a verdict
FILE = "audit.json"
WIDTH, FIRST = 118, 27  # columns of the page; where its text begins
SHOWN = 3  # names in a line


@dataclass(frozen=True)
class Verdict:
    """What is said of one split wherever its results are shown.

    Attributes:
        leaks: it has test clips that are training clips.
        text: in a few words, e.g. "95 of 464 test clips have an identical training clip".
    """

    leaks: bool
    text: str


def splits_of(clips: Clips) -> list[Split]:
    """The splits that a set has: its columns, the official ones, its folds; where there are none, odd subjects."""
    names = [c.removeprefix("train_") for c in clips.table if c.startswith("train_")]
    names += [s for d, s in OFFICIAL if d == clips.name and OFFICIAL[d, s][0] in clips.table]
    names += [f"fold:{k}" for k in folds(clips)] if "fold" in clips.table else []
    if not names and len(set(clips.table.get("subject", ()))) > 1:
        names = ["subject:odd"]
    return [split(clips, name) for name in dict.fromkeys(names)]


def audit(clips: Clips, parts: Sequence[Split]) -> tuple[list[Finding], dict[str, Verdict]]:
    """All checks of a set, and of these splits.

    Returns:
        (findings in the page's order, verdict on each split)
    """
    measured = survey(clips)
    pairs = duplicates(clips, measured.digest)
    found, verdicts = [], {}
    for part in parts:
        leak, verdicts[part.name] = leakage(clips, part, pairs)
        found += [leak, both_sides(clips, part), _classes(clips, part)]
    found += [twice(clips, pairs), *judge(clips, measured)]
    return found, verdicts


def leakage(clips: Clips, part: Split, pairs: Duplicates) -> tuple[Finding, Verdict]:
    """Test clips that are training clips, most blatant kind first, each clip counted once."""
    side = np.zeros(len(clips), int)
    side[part.train], side[part.test] = 1, 2
    across = side[pairs.first] * side[pairs.second] == 2
    at = np.flatnonzero(across)
    swap = side[pairs.first[at]] == 2
    test = np.where(swap, pairs.first[at], pairs.second[at])
    train = np.where(swap, pairs.second[at], pairs.first[at])
    kinds = {
        "have an identical training clip": (pairs.share[at] == 1) & (clips.lengths[test] == clips.lengths[train]),
        "are a piece of a training clip, or hold one": pairs.share[at] == 1,
        "share half of their frames or more with a training clip": pairs.share[at] >= HALF,
        f"are within {1000 * NEAR:.0f} mm of a training clip": pairs.share[at] == 0,
    }
    done = np.zeros(len(clips), bool)
    told, names = [], []
    for kind, of_kind in kinds.items():
        new = of_kind & ~done[test]
        count = len(np.unique(test[new]))
        if count:
            told.append(f"{count} of {len(part.test)} test clips {kind}")
        first = np.unique(test[new], return_index=True)[1]
        names += [f"{b} = {a}" for b, a in zip(clips.names(test[new][first]), clips.names(train[new][first]))]
        done[test[new]] = True
    count = int(done.sum())
    if count:
        share = f"({100 * count / len(part.test):.1f} % of the test clips)"
        text = f"LEAKS: {'; '.join(told)} {share}"
        return Finding(f"split {part.name}", PROBLEM, text, tuple(names), count), Verdict(True, "; ".join(told))
    few = len(np.unique(test))
    clean = f"no test clip is a training clip ({len(part.train)} training, {len(part.test)} test clips)"
    if few:
        text = f"{clean}; {few} share single frames with one"
        names = [f"{b} ~ {a}" for b, a in zip(clips.names(test), clips.names(train))]
        return Finding(f"split {part.name}", NOTE, text, tuple(names), few), Verdict(False, clean)
    return Finding(f"split {part.name}", OK, clean), Verdict(False, clean)


def both_sides(clips: Clips, part: Split) -> Finding:
    """Persons who train and test: wrong in a split by subjects, as it must be in one by views or setups."""
    check = "  subjects"
    columns = [c for c in clips.table if c == "subject" or c.endswith("_subject")]
    if not columns:
        return Finding(check, NOTE, "nobody knows who is seen: the set has no column 'subject'")

    def common(column: str) -> np.ndarray:
        return np.intersect1d(clips.table[column][part.train], clips.table[column][part.test])

    persons = [c for c in columns if c != "subject"] or columns
    train, test = (np.unique(np.concatenate([clips.table[c][r] for c in persons])) for r in (part.train, part.test))
    shared = np.intersect1d(train, test)
    if not len(shared):
        return Finding(check, OK, f"none on both sides ({len(train)} train, {len(test)} test)")
    by = next((c for c in ("camera", "setup") if c in clips.table and not len(common(c))), None)
    who = f"{len(shared)} of {len(test)} persons of the test clips are in training clips too"
    if by:
        return Finding(check, OK, f"{who}, as expected: the split is by {by}, which never is on both sides")
    if persons != ["subject"] and "subject" in clips.table and not len(common("subject")):
        return Finding(check, NOTE, f"{who}: the split is by 'subject' (none on both sides), which here is a group")
    named = "sub" in part.name
    listed = ", ".join(map(str, shared[:8])) + (", ..." if len(shared) > 8 else "")
    return Finding(check, PROBLEM if named else NOTE, f"{who}{', in a split by subjects' if named else ''}: {listed}")


def _classes(clips: Clips, part: Split) -> Finding:
    train, test = (np.bincount(clips.labels[r], minlength=len(clips.class_names)) for r in (part.train, part.test))
    unknown_ = np.flatnonzero((train == 0) & (test > 0))
    if len(unknown_):
        names = ", ".join(clips.class_names[c] for c in unknown_[:4])
        return Finding("  classes", PROBLEM, f"{len(unknown_)} are tested but have no training clip: {names}")
    return balance("  classes", clips, part.test, "of a class tested: ")


def twice(clips: Clips, pairs: Duplicates) -> Finding:
    """The same recording anywhere in the set; worst where the copies bear different classes."""
    same = (pairs.share >= HALF) | (pairs.share == 0)
    other = clips.labels[pairs.first] != clips.labels[pairs.second]
    few = int((~same).sum())
    names = [
        f"{a} = {b}" if whole else f"{a} ~ {b}"
        for a, b, whole in sorted(
            zip(clips.names(pairs.first), clips.names(pairs.second), same), key=lambda p: not p[2]
        )
    ]
    told = [f"{same.sum()} pairs of clips are one recording"] if same.any() else []
    told += [f"{few} pairs share single frames: cut from one recording"] if few else []
    if other.any():
        told.append(f"{other.sum()} of these pairs bear different classes")
        order = np.argsort(~other, kind="stable")
        names = [
            f"{a} ({clips.class_names[x]}) {'=' if s else '~'} {b} ({clips.class_names[y]})"
            for a, b, x, y, s in zip(
                clips.names(pairs.first[order]),
                clips.names(pairs.second[order]),
                clips.labels[pairs.first[order]],
                clips.labels[pairs.second[order]],
                same[order],
            )
        ]
    if not told:
        return Finding("same recording", OK, "no two clips share a frame, no two are nearly equal")
    status = PROBLEM if (other & same).any() else NOTE
    return Finding("same recording", status, "; ".join(told), tuple(names), len(pairs))


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
    found, verdicts = audit(clips, [split(clips, asked)] if asked else splits_of(clips))
    print(page(clips, found, verdicts, keep(clips, found, verdicts)))
    return int(any(v.leaks for v in verdicts.values()))


if __name__ == "__main__":
    command(main)
