"""The audit finds what a split lets through: copies, persons on both sides, classes that nobody trains."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from skeletons import duplicates
from skeletons.findings import NOTE, OK, PROBLEM
from skeletons.topology import KINECT_V2
from tests.skeletons.planted import a_pair, added, rows, where_seen

COPIES: dict[str, tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], str]] = {
    "as it is": (lambda x, rng: x, "have an identical training clip"),
    "without its last frames": (lambda x, rng: x[:-7], "are a piece of a training clip"),
    "its end": (lambda x, rng: x[len(x) // 2 :], "are a piece of a training clip"),
    "with zeros at its end": (lambda x, rng: np.concatenate([x, 0 * x[:9]]), "are a piece of a training clip"),
    "its end, and its own": (
        lambda x, rng: np.concatenate([x[12:], x[:8] + np.float32(0.5)]),
        "share half of their frames or more",
    ),
    "centred": (lambda x, rng: where_seen(x, x - x[0, 0, 0]), "are within 20 mm of a training clip"),
    "centred in every frame": (lambda x, rng: where_seen(x, x - x[:, :1, :1]), "are within 20 mm"),
    "with 1 mm of noise": (
        lambda x, rng: where_seen(x, x + rng.normal(0, 0.001, x.shape)),
        "are within 20 mm of a training clip",
    ),
    "one frame later, rounded": (lambda x, rng: np.round(x[1:] * 1000) / 1000, "are within 20 mm"),
    "ends a frame apart, rounded": (lambda x, rng: np.round(x[:-1] * 512) / 512, "are within 20 mm"),
    "at four fifths of the rate": (
        lambda x, rng: x[np.linspace(0, len(x) - 1, len(x) * 4 // 5).round().astype(int)] * 0.999,
        "are within 20 mm",
    ),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_across_a_split_are_found(found, people, rng, how):
    train, test = a_pair(people)
    change, said = COPIES[how]
    if "rate" in how:  # slow enough that a rounded moment is within the limit
        piece = people["joints"][rows(people, train)]
        people["joints"][rows(people, train)] = piece[:1] + 0.1 * (piece - piece[:1])
    copy = change(people["joints"][rows(people, train)], rng)
    leak = found(added(people, copy, test))["split xsub"]
    assert leak.status == PROBLEM and f"1 of 25 test clips {said}" in leak.text, leak.text
    assert leak.names == (f"planted = {people['clip'][train]}",)
    within = found(added(people, copy, train))
    assert within["split xsub"].status == OK and within["same recording"].status == NOTE


OTHERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored": lambda x: (x * np.float32([-1, 1, 1]))[:, :, list(KINECT_V2.mirror)],
    "seen from elsewhere": lambda x: x[..., [2, 1, 0]] * np.float32([1, 1, -1]),
    "played backwards and moved": lambda x: x[::-1] + np.float32(0.01),
    "a tenth larger": lambda x: x * np.float32(1.1),
    "a quarter of it, moved": lambda x: where_seen(x, x + np.float32(0.3))[: len(x) // 4],
}


@pytest.mark.parametrize("how", OTHERS)
def test_what_is_no_copy_is_not_called_one(found, people, how):
    train, test = a_pair(people)
    other = OTHERS[how](people["joints"][rows(people, train)])
    assert found(added(people, other, test))["split xsub"].status == OK


def test_copies_with_other_labels_are_a_problem(found, people):
    train, _ = a_pair(people)
    made = added(people, people["joints"][rows(people, train)], train)
    made["label"][-1] = (made["label"][-1] + 1) % 12
    told = found(made)["same recording"]
    assert told.status == PROBLEM and "1 of these pairs bear different classes" in told.text
    assert "planted" in told.names[0] and people["class_names"][made["label"][-1]] in told.names[0]


def test_single_common_frames_are_a_note(found, people):
    train, test = a_pair(people)
    piece = people["joints"][rows(people, test)].copy()
    piece[:3] = people["joints"][rows(people, train)][-3:]
    people["joints"][rows(people, test)] = piece
    told = found(people)
    assert told["split xsub"].status == NOTE and "1 share single frames" in told["split xsub"].text
    assert "single frames" in told["same recording"].text


def test_pairs_are_those_of_a_plain_search(stored, people, rng):
    """The descriptor and the blocks rule nothing out that comparing all with all finds."""
    train, test = a_pair(people)
    clip = people["joints"][rows(people, train)]
    for k, noise in enumerate((0.0005, 0.001, 0.002)):
        copy = where_seen(clip, clip + rng.normal(0, noise, clip.shape))[k:]
        people = added(people, copy, test, f"planted{k}")
    clips = stored(people)
    bodies = [duplicates._body(clips, i) for i in range(len(clips))]
    plain = {
        (i, j)
        for i in range(len(clips))
        for j in range(i + 1, len(clips))
        if duplicates._distance(bodies[i], bodies[j]) <= duplicates.NEAR
    }
    assert {(i, j) for i, j, _ in duplicates.near_pairs(clips, np.arange(len(clips)))} == plain and len(plain) >= 3


def test_many_copies_of_one_clip_are_all_found(found, people):
    train, test = a_pair(people)
    clip = people["joints"][rows(people, train)]
    for k in range(130):
        people = added(people, clip, test if k % 2 else train, f"copy{k}")
    leak = found(added(people, where_seen(clip, clip + np.float32(0.3)), test, "moved"))["split xsub"]
    assert "65 of 90 test clips have an identical training clip; 1 of 90 test clips are within 20 mm" in leak.text


def test_persons_on_both_sides(found, people):
    assert found(people)["both sides"].text == "none on both sides (2 train, 2 test)"
    people["subject"][a_pair(people)[1]] = people["subject"][a_pair(people)[0]]
    told = found(people)["both sides"]
    assert told.status == PROBLEM and "1 of 3 persons" in told.text and "in a split by subjects" in told.text
    people["camera"] = 2 - people["train_xsub"].astype(int)
    told = found(people)["both sides"]
    assert told.status == OK and "as expected: the split is by camera" in told.text
    people["active_subject"] = np.ones(len(people["label"]), np.int64)
    people["subject"] = 2 - people["train_xsub"].astype(int)
    people["camera"][:] = 1
    told = found(people)["both sides"]
    assert told.status == NOTE and "which here is a group" in told.text


def test_classes_that_nobody_trains(found, people):
    people["label"][people["train_xsub"] & (people["label"] == 3)] = 4
    told = found(people)
    assert told["classes"].status == PROBLEM and str(people["class_names"][3]) in told["classes"].text
    assert told["class balance"].status == OK and told["subjects"].status == NOTE
    people["label"][people["label"] == 3] = 4
    assert "none of" in found(people)["class balance"].text
