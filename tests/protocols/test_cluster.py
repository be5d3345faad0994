"""Clustering: matching, and metrics at their ends."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from protocols.cluster import clustering, matched


def test_clusters_are_matched_as_the_best_permutation_would():
    rng = np.random.default_rng(0)
    clusters, truth = rng.integers(0, 4, (2, 60))
    best = max(sum(p[c] == t for c, t in zip(clusters, truth)) for p in itertools.permutations(range(4)))
    assert (matched(clusters, truth, 4) == truth).sum() == best


def test_separate_classes_are_found_and_noise_is_not():
    y = torch.arange(90) % 3
    predicted, found = clustering(5 * torch.eye(8)[y] + 0.1 * torch.randn(90, 8), y, 3)
    assert torch.equal(predicted, y) and found["silhouette"] > 90
    assert (found["top1"], found["nmi"], found["ari"]) == pytest.approx((100, 100, 100))
    _, noise = clustering(torch.randn(300, 8), torch.arange(300) % 3, 3)
    assert noise["top1"] < 50 and abs(noise["ari"]) < 5


def test_length_of_features_does_not_matter_and_the_seed_fixes_the_result():
    y, x = torch.arange(60) % 4, torch.randn(60, 6)
    predicted, found = clustering(x, y, 4, seed=3)
    _, longer = clustering(x * (1 + torch.rand(60, 1)), y, 4, seed=3)
    assert found["nmi"] == pytest.approx(longer["nmi"], abs=1e-6)
    assert torch.equal(predicted, clustering(x, y, 4, seed=3)[0])
