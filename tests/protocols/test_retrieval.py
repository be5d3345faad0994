"""Retrieval against scikit-learn's neighbours and against loops that follow the definitions."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from protocols import retrieval
from protocols.base import Subject
from protocols.retrieval import (
    Retrieval,
    RetrievalConfig,
    average_precision,
    exact_precision,
    nearest,
    retrieve,
    search,
    vote,
)
from skeletons.errors import BadInput


def data(train: int = 150, test: int = 90, width: int = 12) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x, query = (torch.randn(n, width, generator=generator) * 3 + 1 for n in (train, test))
    y, truth = (torch.randint(4, (n,), generator=generator) for n in (train, test))
    return x, y, query, truth


def judged(x, y, query, truth, classes=4, encoder="some", **settings):
    """What the protocol finds on given features."""
    subject = Subject.__new__(Subject)  # features alone, without what makes them
    subject.__dict__ |= {"encoder": encoder, "data": SimpleNamespace(class_names=range(classes))}
    subject.__dict__ |= {"train_features": x, "test_features": query, "labels": (y, truth)}
    return Retrieval(SimpleNamespace(retrieval=RetrievalConfig(**settings)))(subject)


def order_of(query, x, metric):
    """Gallery rows of one query, nearest first, in double precision."""
    query, x = query.double(), x.double()
    if metric == "cosine":
        near = (x @ query) / (x.norm(dim=1) * query.norm())
    else:
        near = -(x - query).square().sum(1)
    return sorted(range(len(x)), key=lambda i: (-float(near[i]), i)), near


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_equals_scikit_learns_nearest_neighbour(metric):
    from sklearn.neighbors import KNeighborsClassifier

    x, y, query, truth = data()
    classifier = KNeighborsClassifier(n_neighbors=1, metric=metric).fit(x.numpy(), y.numpy())
    expected = classifier.predict(query.numpy()) == truth.numpy()
    assert retrieve(x, y, query, truth, metric).tolist() == expected.tolist()
    assert nearest(query, x, metric).tolist() == classifier.kneighbors(query.numpy(), 1, False)[:, 0].tolist()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [5, 10, 20])
def test_votes_equal_scikit_learns_where_they_are_not_tied(metric, k):
    from sklearn.neighbors import KNeighborsClassifier

    x, y, query, _ = data()
    classifier = KNeighborsClassifier(n_neighbors=k, metric=metric).fit(x.numpy(), y.numpy())
    distance, places = classifier.kneighbors(query.numpy())
    near, found = search(query, x, k, metric)
    assert found.tolist() == places.tolist()
    as_similarity = 1 - distance if metric == "cosine" else -(distance**2) / 2
    torch.testing.assert_close(near.double(), torch.from_numpy(as_similarity).double(), rtol=1e-4, atol=1e-4)
    voted, theirs, tied = vote(near, y[found], 4), classifier.predict(query.numpy()), 0
    for i in range(len(query)):
        counts = sorted(torch.bincount(y[found[i]], minlength=4).tolist())
        if counts[-1] == counts[-2]:
            tied += 1
        else:
            assert voted[i] == theirs[i]
    assert 0 < tied < len(query) / 2
    # tied or not, the class of most neighbours whose similarities sum to more
    for i in range(len(query)):
        sums = [(int((y[found[i]] == c).sum()), float(near[i][y[found[i]] == c].double().sum())) for c in range(4)]
        assert voted[i] == max(range(4), key=sums.__getitem__)


def test_a_tie_goes_to_the_larger_sum_and_a_soft_vote_to_the_larger_weight():
    near = torch.tensor([[0.9, 0.8, 0.7, 0.1], [0.9, 0.2, 0.15, 0.1]])
    labels = torch.tensor([[2, 1, 1, 2], [0, 1, 1, 2]])
    assert vote(near, labels, 3).tolist() == [1, 1]  # 1.5 against 1.0; two against one
    assert vote(near, labels, 3, 0.07).tolist() == [2, 0]
    for row, classes in zip(near.tolist(), labels.tolist()):
        weight = [sum(math.exp(s / 0.07) for s, c in zip(row, classes) if c == k) for k in range(3)]
        assert vote(torch.tensor([row]), torch.tensor([classes]), 3, 0.07).item() == weight.index(max(weight))
    assert vote(-near, labels, 3).tolist() == [2, 1]  # distances: none may win by having no neighbour


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_every_number_is_what_its_definition_says(metric):
    x, y, query, truth = data()
    y[y == 3] = 2
    y[:7] = 3  # fewer relevant clips than the list is long
    truth[:2] = 4  # a class that the gallery has not
    encoder = "some" if metric == "cosine" else None
    result = judged(x, y, query, truth, 5, encoder, ks=[1, 3, 20], depth=30, exact=True)
    first, recall, short, whole = [], {1: [], 3: [], 20: []}, [], []
    for q, wanted in zip(query, truth.tolist()):
        ranked = [int(y[i]) == wanted for i in order_of(q, x, metric)[0]]
        first.append(ranked[0])
        for k in recall:
            recall[k].append(any(ranked[:k]))
        for found, depth in ((short, 30), (whole, len(x))):
            precisions = [sum(ranked[: r + 1]) / (r + 1) for r in range(depth) if ranked[r]]
            found.append(sum(precisions) / max(1, min(depth, sum(ranked))))
    expected = {"top1": first, "map_30": short, "map": whole, **{f"recall_{k}": v for k, v in recall.items()}}
    for name, values in expected.items():
        assert result.metrics[name] == pytest.approx(100 * sum(values) / len(values), rel=1e-5), name
    assert next(iter(result.metrics)) == "top1" and result.metrics["top1_k1"] == result.metrics["recall_1"]
    assert result.metrics["top1"] == result.metrics["top1_k1"]
    assert set(result.metrics) == {*expected, "top1_k1", "top1_k3", "top1_k20"}
    assert short[0] == 0 and 0 < result.metrics["map"] < 100


def test_the_whole_gallerys_precision_is_scikit_learns():
    from sklearn.metrics import average_precision_score

    x, y, query, truth = data()
    x, query = x.double(), query.double()  # in single precision two clips of the 13,500 pairs change places
    found = exact_precision(query, x, y, truth)
    for i in range(len(query)):
        expected = average_precision_score((y == truth[i]).numpy(), order_of(query[i], x, "cosine")[1].numpy())
        assert float(found[i]) == pytest.approx(expected, rel=1e-5)


def test_a_perfect_list_has_precision_1_however_long_it_could_be():
    right = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, False, False]])
    found = average_precision(right, torch.tensor([50, 2, 1, 0]))
    assert found.tolist() == pytest.approx([1, (1 + 2 / 3) / 2, 1 / 2, 0])


def test_the_two_metrics_differ_by_length_only():
    x, _, query, _ = data()
    assert not torch.equal(nearest(query, x), nearest(query, x, "euclidean"))
    assert torch.equal(nearest(5 * query, 0.1 * x), nearest(query, x))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_blocks_do_not_matter(monkeypatch, metric):
    x, y, query, truth = data()
    encoder = "some" if metric == "cosine" else None
    whole = judged(x, y, query, truth, encoder=encoder, exact=True)
    near, one = search(query, x, 9, metric), nearest(query, x, metric)
    monkeypatch.setattr(retrieval, "BLOCK", 7 * len(x) + 3)
    sizes = {len(block) for block in retrieval.similarities(query, x, metric)}
    assert sizes == {7, 90 % 7}
    parts = judged(x, y, query, truth, encoder=encoder, exact=True)
    assert parts.metrics == pytest.approx(whole.metrics)
    assert (parts.arrays["neighbours"] == whole.arrays["neighbours"]).all()
    assert torch.equal(search(query, x, 9, metric)[1], near[1]) and torch.equal(nearest(query, x, metric), one)


def test_rows_that_are_as_near_come_in_the_gallerys_order():
    x, _, query, _ = data(20)
    near, places = search(query, torch.cat([x, x, x]), 12)
    assert (places.view(-1, 4, 3).diff(dim=-1) == 20).all() and (near.diff(dim=1) <= 0).all()
    assert torch.equal(places[:, 0], nearest(query, torch.cat([x, x, x])))


def test_neighbours_are_places_in_the_training_split_nearest_first():
    x, y, query, truth = data()
    found = judged(x, y, query, truth, ks=[1], depth=1).arrays["neighbours"]
    assert found.dtype == "int32" and found.shape == (90, 5)
    assert all(found[i].tolist() == order_of(query[i], x, "cosine")[0][:5] for i in range(90))


def test_a_gallery_smaller_than_k_is_taken_whole():
    x, y, query, truth = data(4)
    result = judged(x, y, query, truth)
    assert result.arrays["neighbours"].shape == (90, 4)
    assert result.metrics["recall_20"] == result.metrics["recall_5"] == 100 * float(torch.isin(truth, y).float().mean())


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
    assert torch.equal(judged(x, y, query, poisoned).predicted, predicted)


@pytest.mark.parametrize("settings", [{"ks": [5, 0]}, {"depth": 0}, {"temperature": -1.0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(BadInput, match=r"protocol\.retrieval"):
        Retrieval(SimpleNamespace(retrieval=RetrievalConfig(**settings)))
