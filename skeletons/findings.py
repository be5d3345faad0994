"""What an audit says: findings, and the words they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skeletons.clips import Clips

OK, NOTE, PROBLEM = "ok", "note", "PROBLEM"
MANY = 0.1  # of the clips: what one in ten has is no outlier, it is how the set was made
IMBALANCE = 3.0  # clips of the largest class to those of the smallest


@dataclass(frozen=True)
class Finding:
    """One line or a few of the page.

    PROBLEM is what makes numbers wrong, or concerns so many clips (`MANY`) that it is how the set was made; NOTE is a
    clip or a few that a person should look at.

    Attributes:
        check: what was looked at.
        status: OK, NOTE or PROBLEM.
        text: what was found, with numbers.
        names: clips, the worst first.
        count: of how many.
    """

    check: str
    status: str
    text: str
    names: tuple[str, ...] = ()
    count: int = 0


def of_clips(clips: Clips, check: str, worst: np.ndarray, bad: np.ndarray, what: str, fine: str) -> Finding:
    """A finding about single clips: ok where there are none, a problem where they are `MANY`.

    Args:
        worst: (clip), larger is named first.
        bad: bool (clip).
        what: follows "N clips (S %) "; fine: said where there are none.
    """
    count = int(bad.sum())
    if not count:
        return Finding(check, OK, fine)
    rows = np.flatnonzero(bad)
    rows = rows[np.argsort(-np.nan_to_num(worst[rows], posinf=np.inf), kind="stable")]
    status = PROBLEM if count >= MANY * len(clips) else NOTE
    return Finding(check, status, f"{of_all(count, len(clips))} {what}", tuple(clips.names(rows)), count)


def of_all(count: int, of: int) -> str:
    """ "3 clips (0.5 %)"."""
    return f"{count} clip{'s' if count != 1 else ''} ({100 * count / of:.1f} %)"


def balance(check: str, clips: Clips, rows: np.ndarray, what: str = "") -> Finding:
    """How many clips the classes have among `rows`."""
    count = np.bincount(clips.labels[rows], minlength=len(clips.class_names))
    missing = [clips.class_names[c] for c in np.flatnonzero(count == 0)]
    least, most = count.argmin(), count.argmax()
    text = f"{what}{count[least]} ({clips.class_names[least]}) to {count[most]} ({clips.class_names[most]}) clips"
    if count[least] == count[most]:
        text = f"{what}{count[least]} clips of every class"
    if missing:
        return Finding(check, NOTE, f"{text}; none of {listed(missing)}")
    uneven = count[most] > IMBALANCE * count[least]
    return Finding(check, NOTE if uneven else OK, f"{text}{': mean class accuracy will differ' if uneven else ''}")


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
