"""What the audit judges of splits: training clips that test, persons and classes on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skeletons.clips import Clips
from skeletons.duplicates import HALF, NEAR, Duplicates
from skeletons.findings import NOTE, OK, PROBLEM, Finding, balance
from skeletons.splits import Split


@dataclass(frozen=True)
class Verdict:
    """What is said of one split wherever its results are shown.

    Attributes:
        leaks: it has test clips that are training clips.
        text: in a few words, e.g. "95 of 464 test clips have an identical training clip".
    """

    leaks: bool
    text: str


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
    clean = "no test clip is a training clip"
    counts = f"({len(part.train)} training, {len(part.test)} test clips)"
    if few:
        text = f"{clean}; {few} share single frames with one {counts}"
        names = [f"{b} ~ {a}" for b, a in zip(clips.names(test), clips.names(train))]
        return Finding(f"split {part.name}", NOTE, text, tuple(names), few), Verdict(False, clean)
    return Finding(f"split {part.name}", OK, f"{clean} {counts}"), Verdict(False, clean)


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


def classes(clips: Clips, part: Split) -> Finding:
    """Classes without training clips, and how even the tested ones are."""
    train, test = (np.bincount(clips.labels[r], minlength=len(clips.class_names)) for r in (part.train, part.test))
    unknown_ = np.flatnonzero((train == 0) & (test > 0))
    if len(unknown_):
        names = ", ".join(clips.class_names[c] for c in unknown_[:4])
        return Finding("  classes", PROBLEM, f"{len(unknown_)} are tested but have no training clip: {names}")
    return balance("  classes", clips, part.test, "of a class tested: ")


def twice(clips: Clips, pairs: Duplicates) -> Finding:
    """The same recording anywhere in the set; named first where the copies bear different classes."""
    if not len(pairs):
        return Finding("same recording", OK, "no two clips share a frame, no two are nearly equal")
    same = (pairs.share >= HALF) | (pairs.share == 0)
    classes = clips.labels[pairs.first], clips.labels[pairs.second]
    other = classes[0] != classes[1]
    told = [f"{same.sum()} pairs of clips are one recording"] if same.any() else []
    told += [f"{(~same).sum()} pairs share single frames, as if cut from one recording"] if not same.all() else []
    told += [f"{other.sum()} of these pairs bear different classes"] if other.any() else []
    names = []
    for row in np.lexsort([-pairs.share, ~same, ~other]):
        one, two = clips.names(np.array([pairs.first[row], pairs.second[row]]))
        said = [f" ({clips.class_names[c[row]]})" if other[row] else "" for c in classes]
        names.append(f"{one}{said[0]} {'=' if same[row] else '~'} {two}{said[1]}")
    return Finding("same recording", PROBLEM if (other & same).any() else NOTE, "; ".join(told), tuple(names))
