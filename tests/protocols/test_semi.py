"""Semi-supervised evaluation: its subsets, its mean and spread, and its arguments."""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch

from protocols.base import make_protocol
from protocols.finetune import Finetune
from protocols.semi import SemiConfig
from skeletons.errors import BadInput
from skeletons.splits import balanced_subset, random_subset
from tests.protocols.labelled import QUICK, poses, settings, subject_of

SHORT = replace(QUICK, length="4 steps", evaluations=1)


@pytest.mark.parametrize("rule", ["balanced", "mamp"])
def test_mean_spread_and_subsets_are_those_of_the_draws(rule):
    data = poses(60)
    subject = subject_of(data, seed=7)
    found = make_protocol("semi:0.4", settings(SHORT, SemiConfig(3, rule)))(subject)
    truth = subject.labels[1]
    assert found.predicted.shape == (3, 30)
    each = [100 * sum(p == t for p, t in zip(draw, truth.tolist())) / 30 for draw in found.predicted.tolist()]
    assert [found.metrics[f"top1_draw{draw}"] for draw in range(3)] == pytest.approx(each, abs=1e-4)
    assert found.metrics["top1"] == pytest.approx(statistics.mean(each), abs=1e-4)
    assert found.metrics["top1_std"] == pytest.approx(statistics.stdev(each), abs=1e-4)
    assert found.metrics["best_test"] >= found.metrics["top1"] and next(iter(found.metrics)) == "top1"
    subset = {"balanced": balanced_subset, "mamp": random_subset}[rule]
    for draw, names in enumerate(found.details["subsets"]):
        rows = subset(data, subject.part.train, 0.4, 7, draw)
        assert names == [f"p{row:03d}" for row in rows]
        assert found.details["labels_per_class"][draw] == [int((data.labels[rows] == c).sum()) for c in range(3)]
        assert found.details["labels"][draw] == len(rows) == 12
    assert len({tuple(names) for names in found.details["subsets"]}) == 3


def test_the_whole_of_one_draw_is_fine_tuning():
    subject = subject_of(poses(30))
    semi = make_protocol("semi:1", settings(SHORT, SemiConfig(draws=1)))(subject)
    whole = Finetune(settings(SHORT))(subject)
    assert torch.equal(semi.predicted[0], whole.predicted)
    assert semi.metrics == {**whole.metrics, "top1_draw0": whole.metrics["top1"]}  # one draw has no spread
    assert semi.details["subsets"][0] == subject.data.names(subject.part.train)


def test_few_labels_teach_poses_and_no_other_clip_is_looked_at():
    data = poses(90)
    subject, config = subject_of(data), settings(QUICK, SemiConfig(draws=1))
    found = make_protocol("semi:0.1", config)(subject)
    assert found.details["labels_per_class"] == [[2, 2, 2]] and found.metrics["top1"] > 70
    labelled = np.isin(data.table["clip"], found.details["subsets"][0])
    others = np.setdiff1d(np.flatnonzero(~labelled), subject.part.test)
    changed = data.labels.copy()
    changed[others] = 0  # classes of clips that got no label
    blind = subject_of(data)
    blind.store.labels[:] = torch.from_numpy(changed)
    assert torch.equal(make_protocol("semi:0.1", config)(blind).predicted, found.predicted)


@pytest.mark.parametrize(
    ("name", "rule", "heading"),
    [
        ("semi:0.01", "balanced", "semi 1 %"),
        ("semi:0.1", "balanced", "semi 10 %"),
        ("semi:0.005", "balanced", "semi 0.5 %"),
        ("semi:0.1", "mamp", "semi 10 %, mamp's draw"),
    ],
)
def test_headings(name, rule, heading):
    assert make_protocol(name, settings(SHORT, SemiConfig(subset=rule))).heading == heading


@pytest.mark.parametrize("argument", ["", ":", ":0", ":1.5", ":-0.1", ":nan", ":ten"])
def test_a_share_must_be_given(argument):
    with pytest.raises(BadInput, match=r"write the share of labelled clips, in \(0, 1\]"):
        make_protocol(f"semi{argument}", settings(SHORT))


def test_bad_settings_are_refused_when_the_protocol_is_made():
    for semi, message in ((SemiConfig(draws=0), "protocol.semi.draws=0"), (SemiConfig(subset="even"), "semi.subset")):
        with pytest.raises(BadInput, match=message):
            make_protocol("semi:0.1", settings(SHORT, semi))
    with pytest.raises(BadInput, match=r"protocol.finetune.batch"):
        make_protocol("semi:0.1", settings(replace(SHORT, batch=0)))
