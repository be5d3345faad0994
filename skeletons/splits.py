"""Which clips train and which test.

A split is the name of a bool column `train_NAME`, or of a rule over subjects, cameras or setups: X-Sub, X-View and
X-Set of NTU RGB+D with their official lists, `subject:odd`, `camera:1,2`, or `fold:K` (fold K tests). Of its training
clips a part may be withheld for choosing, or a share be given labels (semi-supervised).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skeletons.clips import Clips
from skeletons.errors import BadInput
from skeletons.randomness import permutation

# The official training subjects (NTU RGB+D 60, section 3.2; NTU RGB+D 120).
NTU60_SUBJECTS = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
NTU120_SUBJECTS = (
    *NTU60_SUBJECTS,
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89),
    *(91, 92, 93, 94, 95, 97, 98, 100, 103),
)
OFFICIAL = {
    ("ntu60", "xsub"): ("subject", NTU60_SUBJECTS),
    ("ntu60", "xview"): ("camera", (2, 3)),
    ("ntu120", "xsub"): ("subject", NTU120_SUBJECTS),
    ("ntu120", "xset"): ("setup", tuple(range(2, 33, 2))),
}


@dataclass(frozen=True)
class Split:
    """Clip indices (int64) of both parts; `name` as the user wrote it."""

    name: str
    train: np.ndarray
    test: np.ndarray


def split(clips: Clips, name: str) -> Split:
    """The split called `name`.

    Raises:
        BadInput: the data has no such split, or one of its parts has no clips.
    """
    training = _training(clips, name)
    if training.all() or not training.any():
        empty = "test" if training.all() else "training"
        raise BadInput(f"data {clips.name}: split {name!r} has no {empty} clips; choose one of {available(clips)}")
    return Split(name, np.flatnonzero(training), np.flatnonzero(~training))


def available(clips: Clips) -> str:
    """The splits this data has, for messages."""
    columns = [c.removeprefix("train_") for c in clips.table if c.startswith("train_")]
    official = [s for d, s in OFFICIAL if d == clips.name and OFFICIAL[d, s][0] in clips.table]
    rules = [f"{c}:odd" for c in ("subject", "camera", "setup") if len(set(clips.table.get(c, ()))) > 1]
    folds = ["fold:K"] if "fold" in clips.table else []
    return ", ".join([*dict.fromkeys([*columns, *official]), *rules, *folds])


def _training(clips: Clips, name: str) -> np.ndarray:
    """bool (clip), True for training clips."""
    if f"train_{name}" in clips.table or clips.table.get(name, np.empty(0)).dtype == bool:
        column = clips.table.get(f"train_{name}", clips.table.get(name))
        assert column is not None
        return column.astype(bool)
    if (clips.name, name) in OFFICIAL and OFFICIAL[clips.name, name][0] in clips.table:
        column_name, members = OFFICIAL[clips.name, name]
        return np.isin(clips.table[column_name], members)
    column_name, _, rule = name.partition(":")
    if not rule or clips.table.get(column_name, np.empty(0)).dtype.kind not in "iu":
        raise BadInput(f"data {clips.name} has no split {name!r}; known: {available(clips)}")
    values = clips.table[column_name]
    if rule in ("odd", "even"):
        return values % 2 == (rule == "odd")
    try:
        members = tuple(int(v) for v in rule.split(","))
    except ValueError as error:
        raise BadInput(f"split {name!r}: write COLUMN:odd, COLUMN:even or COLUMN:1,2,3") from error
    return ~np.isin(values, members) if column_name == "fold" else np.isin(values, members)


def folds(clips: Clips) -> list[int]:
    """The folds of this data, for `fold:K`.

    Raises:
        BadInput: it has none.
    """
    if "fold" not in clips.table:
        raise BadInput(f"data {clips.name} has no folds; its splits: {available(clips)}")
    return sorted(set(clips.table["fold"].tolist()))


def withhold(clips: Clips, train: np.ndarray, share: float = 0.25, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cut a validation part of whole subjects out of the training clips, for choosing hyper-parameters.

    Args:
        train: int64, indices of the training clips.
        share: of the training subjects, at least one; where there is one subject or none is known, of the clips.

    Returns:
        (fit, validation), indices of clips, neither empty; validation has no subject of fit.

    Raises:
        BadInput: there are fewer than two training clips.
    """
    if len(train) < 2:
        raise BadInput(f"data {clips.name}: {len(train)} training clips cannot be cut into fit and validation parts")
    who = clips.table.get("subject", np.arange(len(clips)))[train]
    if len(set(who.tolist())) < 2:
        who = train
    subjects = np.unique(who)
    count = min(max(1, round(share * len(subjects))), len(subjects) - 1)
    held = subjects[permutation(len(subjects), seed, "validation")[:count]]
    out = np.isin(who, held)
    return train[~out], train[out]


def balanced_subset(clips: Clips, train: np.ndarray, share: float, *path: object) -> np.ndarray:
    """A share of the training clips of each class, at least one: max(1, round(n share)) of n, drawn at random.

    PSTL and AimCLR take round(n share) of a class, SLiM max(1, int(n share)); rounding halves is Python's, to even.
    Smaller shares of the same draw lie inside larger ones.

    Args:
        train: int64, indices of the training clips.
        share: in (0, 1].
        path: what keys the draw: a seed, a number.

    Returns:
        indices of clips, ascending. Classes without training clips have none.
    """
    order = train[permutation(len(train), *path, "subset")]
    labels = clips.labels[order]
    of_each = [order[labels == label] for label in np.unique(labels)]
    return np.sort(np.concatenate([rows[: max(1, round(len(rows) * share))] for rows in of_each]))


def random_subset(clips: Clips, train: np.ndarray, share: float, *path: object) -> np.ndarray:
    """int(N share) of all N training clips, whatever their classes, some of which may be missing: MAMP's draw
    (feeder/feeder_ntu_semi.py; there it is the same one in every run, and each GPU makes its own).

    Args, returns:
        as `balanced_subset`.

    Raises:
        BadInput: that is no clip.
    """
    count = int(len(train) * share)
    if not count:
        raise BadInput(f"data {clips.name}: a share {share:g} of {len(train)} training clips is none; take more")
    return np.sort(train[permutation(len(train), *path, "subset")[:count]])
