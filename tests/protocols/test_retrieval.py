"""Retrieval against scikit-learn's nearest neighbour."""

from __future__ import annotations

import pytest
import torch

from protocols.retrieval import nearest, retrieve


def data(train: int = 150, test: int = 90, width: int = 12) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x, query = (torch.randn(n, width, generator=generator) * 3 + 1 for n in (train, test))
    y, truth = (torch.randint(4, (n,), generator=generator) for n in (train, test))
    return x, y, query, truth


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_equals_scikit_learns_nearest_neighbour(metric):
    from sklearn.neighbors import KNeighborsClassifier

    x, y, query, truth = data()
    classifier = KNeighborsClassifier(n_neighbors=1, metric=metric).fit(x.numpy(), y.numpy())
    expected = classifier.predict(query.numpy()) == truth.numpy()
    assert retrieve(x, y, query, truth, metric).tolist() == expected.tolist()
    assert nearest(query, x, metric).tolist() == classifier.kneighbors(query.numpy(), 1, False)[:, 0].tolist()


def test_the_two_metrics_differ_by_length_only():
    x, _, query, _ = data()
    assert not torch.equal(nearest(query, x), nearest(query, x, "euclidean"))
    assert torch.equal(nearest(5 * query, 0.1 * x), nearest(query, x))


def test_blocks_do_not_matter(monkeypatch):
    x, _, query, _ = data()
    whole = nearest(query, x)
    split = torch.Tensor.split
    sizes = []

    def small(self, size, *args):
        sizes.append(size)
        return split(self, 7, *args)

    monkeypatch.setattr(torch.Tensor, "split", small)
    assert torch.equal(nearest(query, x), whole)
    assert sizes == [2**24 // len(x)]


def test_a_training_clip_finds_itself():
    x, y, _, _ = data()
    assert nearest(x, x).tolist() == list(range(len(x)))
    assert retrieve(x, y, x, y).all()


def test_test_labels_only_decide_what_is_right():
    x, y, query, truth = data()
    right = retrieve(x, y, query, truth)
    predicted = y[nearest(query, x)]
    poisoned = (truth + 1) % 4
    assert torch.equal(retrieve(x, y, query, poisoned), predicted == poisoned)
    assert right.any() and torch.equal(right, predicted == truth)
