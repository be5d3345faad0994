"""Which clips train and which test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from skeletons.clips import Clips
from skeletons.errors import BadInput
from skeletons.splits import available, balanced_subset, folds, random_subset, split, withhold


def with_columns(clips: Clips, name: str = "synthetic", **columns: object) -> Clips:
    """`clips` as a table of these columns alone."""
    count = len(np.atleast_1d(next(iter(columns.values()))))
    table = {"label": np.zeros(count, dtype=np.int64), **{k: np.asarray(v) for k, v in columns.items()}}
    return replace(clips, name=name, table=table, offsets=np.arange(count + 1))


def trains(clips: Clips, name: str, column: str) -> list[int]:
    part = split(clips, name)
    assert sorted([*part.train, *part.test]) == list(range(len(clips)))
    assert part.name == name
    return sorted(set(clips.table[column][part.train].tolist()))


# fmt: off
XSUB60 = [1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38]
XSUB120_TEST = [
    3, 6, 7, 10, 11, 12, 20, 21, 22, 23, 24, 26, 29, 30, 32, 33, 36, 37, 39, 40, 41, 42, 43, 44, 48, 51, 60, 61, 62,
    63, 64, 65, 66, 67, 68, 69, 71, 72, 73, 75, 76, 77, 79, 87, 88, 90, 96, 99, 101, 102, 104, 105, 106,
]
# fmt: on


def test_ntu60_cross_subject_is_the_official_list(clips):
    assert len(XSUB60) == 20
    assert trains(with_columns(clips, "ntu60", subject=range(1, 41)), "xsub", "subject") == XSUB60


def test_ntu60_cross_view_trains_on_cameras_2_and_3(clips):
    assert trains(with_columns(clips, "ntu60", camera=[1, 2, 3, 1, 2, 3]), "xview", "camera") == [2, 3]


def test_ntu120_cross_subject_is_the_official_list(clips):
    data = with_columns(clips, "ntu120", subject=range(1, 107))
    found = trains(data, "xsub", "subject")
    assert len(found) == 53
    assert sorted(set(range(1, 107)) - set(found)) == XSUB120_TEST


def test_ntu120_cross_setup_trains_on_even_setups(clips):
    assert trains(with_columns(clips, "ntu120", setup=range(1, 33)), "xset", "setup") == list(range(2, 33, 2))


@pytest.mark.parametrize(
    ("rule", "column", "expected"),
    [
        ("subject:odd", "subject", [1, 3, 5]),
        ("subject:even", "subject", [2, 4]),
        ("camera:1,2", "camera", [1, 2]),
        ("camera:3", "camera", [3]),
        ("fold:0", "fold", [1, 2]),  # the named fold tests
        ("fold:0,2", "fold", [1]),
    ],
)
def test_rules(clips, rule, column, expected):
    data = with_columns(clips, subject=[1, 2, 3, 4, 5, 1], camera=[1, 2, 3, 1, 2, 3], fold=[0, 0, 1, 1, 2, 2])
    assert trains(data, rule, column) == expected


@pytest.mark.parametrize("name", ["xview", "train_xview", "clean"])
def test_a_bool_column_is_a_split_by_its_name(clips, name):
    data = with_columns(clips, train_xview=[True, False, True], clean=[True, False, True])
    assert split(data, name).train.tolist() == [0, 2]
    assert split(data, name).test.tolist() == [1]
    assert split(data, name).train.dtype == np.int64


@pytest.mark.parametrize("name", ["xsub", "nonsense", "clip:odd", "label", "weight:1", "subject:"])
def test_an_unknown_split_lists_the_known_ones(clips, name):
    data = with_columns(clips, train_xview=[True, False], subject=[1, 2], clip=["a", "b"], weight=[0.5, 1.0])
    with pytest.raises(BadInput, match=r"has no split .*known: xview, subject:odd$"):
        split(data, name)


def test_official_splits_are_listed_where_their_column_is_there(clips):
    assert available(with_columns(clips, "ntu60", subject=[1, 2], setup=[1, 1])) == "xsub, subject:odd"
    assert available(with_columns(clips, "sbu", fold=[0, 1])) == "fold:K"


@pytest.mark.parametrize(("name", "empty"), [("subject:9", "training"), ("subject:1,2", "test"), ("fold:7", "test")])
def test_a_split_with_an_empty_part_is_refused(clips, name, empty):
    data = with_columns(clips, subject=[1, 2], fold=[0, 1])
    with pytest.raises(BadInput, match=f"split '{name}' has no {empty} clips; choose one of subject:odd, fold:K"):
        split(data, name)


def test_a_rule_that_cannot_be_read_says_how_to_write_one(clips):
    with pytest.raises(BadInput, match="'subject:first': write COLUMN:odd, COLUMN:even or COLUMN:1,2,3"):
        split(with_columns(clips, subject=[1, 2]), "subject:first")


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("subjects", [2, 3, 16])
def test_validation_is_whole_subjects_and_neither_part_is_empty(clips, subjects, share):
    data = with_columns(clips, subject=np.arange(60) % subjects)
    train = np.arange(3, 60)
    fit, validation = withhold(data, train, share)
    assert sorted([*fit, *validation]) == train.tolist()
    assert len(fit)
    assert len(validation)
    who = data.table["subject"]
    assert not set(who[fit]) & set(who[validation])
    expected = min(max(1, round(share * subjects)), subjects - 1)
    assert len(set(who[validation])) == expected


def test_validation_depends_on_the_seed_alone(clips):
    data, train = with_columns(clips, subject=np.arange(100) % 20), np.arange(100)
    first = withhold(data, train)
    for part, again in zip(first, withhold(data, train)):
        np.testing.assert_array_equal(part, again)
    assert any(withhold(data, train, seed=s)[1].tolist() != first[1].tolist() for s in (1, 2))


@pytest.mark.parametrize("columns", [{"subject": np.ones(8, dtype=np.int64)}, {"camera": np.ones(8, dtype=np.int64)}])
def test_without_subjects_to_tell_apart_clips_are_withheld(clips, columns):
    fit, validation = withhold(with_columns(clips, **columns), np.arange(8))
    assert (len(fit), len(validation)) == (6, 2)
    assert sorted([*fit, *validation]) == list(range(8))


def test_a_single_training_clip_cannot_be_cut(clips):
    with pytest.raises(BadInput, match="1 training clips cannot be cut"):
        withhold(with_columns(clips, subject=[1, 2]), np.array([0]))


def test_folds_are_named_or_refused(clips):
    assert folds(with_columns(clips, fold=[2, 0, 1, 2, 0, 1])) == [0, 1, 2]
    with pytest.raises(BadInput, match="has no folds"):
        folds(with_columns(clips, subject=[1, 2]))


def classes(clips: Clips, *counts: int) -> Clips:
    """Clips of so many of each class, in mixed order."""
    label = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    return with_columns(clips, label=label)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.5, 1.0])
def test_a_balanced_subset_has_its_share_of_each_class_and_at_least_one(clips, share):
    data = classes(clips, 41, 30, 5, 1, 8)
    train = np.flatnonzero(np.arange(len(data)) % 7 > 0)
    rows = balanced_subset(data, train, share, 3)
    assert rows.tolist() == sorted(set(rows.tolist())) and set(rows.tolist()) <= set(train.tolist())
    for c in range(5):
        n = sum(int(data.labels[row]) == c for row in train)
        assert sum(int(data.labels[row]) == c for row in rows) == (max(1, round(n * share)) if n else 0)
    if share == 1.0:
        assert np.array_equal(rows, train)


def test_smaller_shares_lie_in_larger_ones_of_the_same_draw(clips):
    data, train = classes(clips, 40, 40, 40), np.arange(10, 120)
    for draw in (balanced_subset, random_subset):
        few, more = draw(data, train, 0.1, 0, 1), draw(data, train, 0.4, 0, 1)
        assert set(few.tolist()) < set(more.tolist())


@pytest.mark.parametrize("draw", [balanced_subset, random_subset])
def test_seed_and_number_decide_the_subset(clips, draw):
    data, train = classes(clips, 40, 40, 40), np.arange(120)
    found = [tuple(draw(data, train, 0.1, *path)) for path in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert len(set(found)) == 3 and found[0] == found[3]


def test_every_clip_of_a_class_is_as_likely(clips):
    data = classes(clips, 10, 30)
    drawn = np.concatenate([balanced_subset(data, np.arange(40), 0.3, seed) for seed in range(400)])
    often = np.bincount(drawn, minlength=40)
    assert abs(often - 120).max() < 45  # each 3 of 10 times; std 9


def test_mamps_subset_is_a_share_of_all_whatever_their_classes(clips):
    data = classes(clips, 40, 40, 40)
    counts = []
    for seed in range(30):
        rows = random_subset(data, np.arange(0, 120, 2), 0.06, seed)
        assert len(rows) == int(60 * 0.06) == 3 and rows.tolist() == sorted(set(rows.tolist()))
        assert not any(row % 2 for row in rows)
        counts.append(np.bincount(data.labels[rows], minlength=3))
    assert (np.min(counts, 1) == 0).any()  # a class is missing
    with pytest.raises(BadInput, match=r"a share 0.01 of 60 training clips is none"):
        random_subset(data, np.arange(60), 0.01, 0)
