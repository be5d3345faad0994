"""Clustering: matching, and metrics at their ends."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from protocols import cluster
from protocols.cluster import clustering, matched, silhouette


def test_clusters_are_matched_as_the_best_permutation_would():
    rng = np.random.default_rng(0)
    clusters, truth = rng.integers(0, 4, (2, 60))
    best = max(sum(p[c] == t for c, t in zip(clusters, truth)) for p in itertools.permutations(range(4)))
    assert (matched(clusters, truth, 4) == truth).sum() == best


def test_separate_classes_are_found_and_noise_is_not():
    y = torch.arange(90) % 3
    predicted, found = clustering(5 * torch.eye(8)[y] + 0.1 * torch.randn(90, 8), y)
    assert torch.equal(predicted, y) and found["silhouette"] > 90
    assert (found["top1"], found["nmi"], found["ari"]) == pytest.approx((100, 100, 100))
    _, noise = clustering(torch.randn(300, 8), torch.arange(300) % 3)
    assert noise["top1"] < 50 and abs(noise["ari"]) < 5


def test_there_are_as_many_clusters_as_classes_are_shown():
    """PKU-MMD II names 51 classes and shows 41."""
    y = 3 * (torch.arange(90) % 3) + 5
    predicted, found = clustering(5 * torch.eye(20)[y] + 0.1 * torch.randn(90, 20), y)
    assert torch.equal(predicted, y) and found["ari"] == pytest.approx(100)


def test_length_of_features_does_not_matter_and_the_seed_fixes_the_result():
    y, x = torch.arange(60) % 4, torch.randn(60, 6)
    predicted, found = clustering(x, y, seed=3)
    _, longer = clustering(x * (1 + torch.rand(60, 1)), y, seed=3)
    assert found["nmi"] == pytest.approx(longer["nmi"], abs=1e-6)
    assert torch.equal(predicted, clustering(x, y, seed=3)[0])


def test_scores_are_what_their_formulas_say():
    y, x = torch.arange(80) % 4, torch.randn(80, 6) + 0.7 * torch.eye(6)[torch.arange(80) % 4]
    predicted, found = clustering(x, y)
    table = np.zeros((4, 4))
    np.add.at(table, (predicted.numpy(), y.numpy()), 1)
    p = table / 80
    rows, columns = p.sum(1), p.sum(0)
    mutual = sum(p[i, j] * np.log(p[i, j] / (rows[i] * columns[j])) for i in range(4) for j in range(4) if p[i, j])
    entropies = [-sum(q * np.log(q) for q in side if q) for side in (rows, columns)]
    assert found["nmi"] == pytest.approx(100 * mutual / np.mean(entropies))

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    chance = pairs(table.sum(1)) * pairs(table.sum(0)) / pairs(np.array([80]))
    most = (pairs(table.sum(1)) + pairs(table.sum(0))) / 2
    assert found["ari"] == pytest.approx(100 * (pairs(table) - chance) / (most - chance))
    points = torch.nn.functional.normalize(x.double(), dim=1)
    distance, values = torch.cdist(points, points), []
    for i in range(80):
        far = [float(distance[i, y == c].sum() / ((y == c).sum() - (c == y[i]).int())) for c in range(4)]
        own = far.pop(int(y[i]))
        values.append((min(far) - own) / max(min(far), own))
    assert found["silhouette"] == pytest.approx(100 * np.mean(values), rel=1e-4)
    assert 5 < found["nmi"] < 95  # neither of the ends, where every formula agrees


def test_the_silhouette_of_a_large_set_is_that_of_some_of_its_clips(monkeypatch):
    y, x = np.arange(400) % 4, np.random.default_rng(0).normal(size=(400, 6)) + 2 * np.eye(6)[np.arange(400) % 4]
    whole, sizes = silhouette(x, y), []
    monkeypatch.setattr(cluster, "SILHOUETTE_CLIPS", 150)
    import sklearn.metrics

    real = sklearn.metrics.silhouette_score

    def watched(points, truth):
        sizes.append(len(points))
        return real(points, truth)

    monkeypatch.setattr(sklearn.metrics, "silhouette_score", watched)
    some, again, other = (silhouette(x, y, seed) for seed in (0, 0, 1))
    assert sizes == [150] * 3 and some == again != other and some != whole
    assert abs(some - whole) < 0.05


def test_sets_without_two_classes_or_points_have_scores():
    assert clustering(torch.randn(6, 3), torch.zeros(6, dtype=torch.long))[1]["silhouette"] == 0
    assert clustering(torch.randn(3, 3), torch.arange(3))[1]["silhouette"] == 0
    assert clustering(torch.randn(2, 3), torch.arange(2))[1]["top1"] == 100
    collapsed, found = clustering(torch.ones(9, 3), torch.arange(9) % 3)
    assert found["top1"] == pytest.approx(100 / 3) and len(set(collapsed.tolist())) == 1
