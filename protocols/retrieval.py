"""Retrieval: each test clip looks for its nearest training clips (SLiM, section 4.3; CMD, UmURL: 1-NN by cosine).

The headline is 1-NN. Beside it, from the same search: the majority vote of the k nearest (a tie goes to the class with
the larger sum of similarities; or SLiM's release's soft vote, see `temperature`), recall@k (some of the k nearest has
the class), and mAP@100. Papers on skeletons publish 1-NN alone, so k, recall and mAP are this project's choice.

Features are compared by cosine (raw coordinates: by Euclidean distance, which is what the field's floors use), a block
of queries at a time, and only the first 100 of each are kept: 100,000 x 100,000 never stands in memory. The exact mAP
sorts the whole gallery for each query, so it is made on request.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from protocols.base import Protocol, Result, Subject, accuracy
from skeletons.errors import BadInput

BLOCK = 2**24  # similarities that stand in memory at once, 64 MiB
SHOWN = 5  # neighbours of each test clip that are kept for pictures


@dataclass
class RetrievalConfig:
    """What is asked of the neighbours.

    Attributes:
        ks: numbers of neighbours that vote, and among which the class is looked for.
        depth: of mAP@depth.
        exact: also the mAP over the whole gallery, which sorts it for each test clip.
        temperature: of a vote weighted by exp(cosine / temperature) (SLiM, slim/eval/knn.py: 0.07); 0 is the
            majority's vote. Raw coordinates have no cosine: they vote by majority.
    """

    ks: list[int] = field(default_factory=lambda: [1, 5, 10, 20])
    depth: int = 100
    exact: bool = False
    temperature: float = 0.0

    def check(self) -> None:
        """Raises BadInput for counts below 1 and a negative temperature."""
        if min([*self.ks, self.depth]) < 1:
            raise BadInput(f"protocol.retrieval: ks={self.ks} and depth={self.depth} must be at least 1")
        if self.temperature < 0:
            raise BadInput(f"protocol.retrieval.temperature={self.temperature} must not be negative")


def similarities(
    query: Float[Tensor, "query feature"], gallery: Float[Tensor, "clip feature"], metric: str
) -> Iterator[Float[Tensor, "block clip"]]:
    """Similarity of queries and gallery, a block of queries at a time.

    Args:
        metric: cosine; or euclidean: query gallery - |gallery|^2 / 2, which orders as minus the distance does.
    """
    cosine = metric == "cosine"
    if cosine:
        gallery = F.normalize(gallery, dim=1)
    offset = gallery.square().sum(1) / 2
    for part in query.split(max(1, BLOCK // max(1, len(gallery)))):
        if cosine:
            yield F.normalize(part, dim=1) @ gallery.T
        else:
            yield torch.addmm(-offset, part, gallery.T)


def nearest(
    query: Float[Tensor, "query feature"], gallery: Float[Tensor, "clip feature"], metric: str = "cosine"
) -> Int[Tensor, " query"]:
    """Index of the nearest gallery row, the first of several that are as near.

    Args:
        metric: cosine or euclidean.
    """
    return torch.cat([block.argmax(1) for block in similarities(query, gallery, metric)])


def retrieve(
    train: Float[Tensor, "clip feature"],
    train_labels: Int[Tensor, " clip"],
    test: Float[Tensor, "query feature"],
    test_labels: Int[Tensor, " query"],
    metric: str = "cosine",
) -> Bool[Tensor, " query"]:
    """Which test clips have the label of their nearest training clip."""
    return train_labels[nearest(test, train, metric)] == test_labels


def search(
    query: Float[Tensor, "query feature"], gallery: Float[Tensor, "clip feature"], k: int, metric: str = "cosine"
) -> tuple[Float[Tensor, "query k"], Int[Tensor, "query k"]]:
    """The k nearest gallery rows (all, where there are fewer), nearest first, those as near in the gallery's order
    (where more are as near as the k-th, which of them are among the k is open).

    Returns:
        (similarity, index); for euclidean, the similarity is that of `similarities` less |query|^2 / 2, so that it is
        minus half the squared distance.
    """
    k = min(k, len(gallery))
    near, places = query.new_empty(len(query), k), torch.empty(len(query), k, dtype=torch.int64, device=query.device)
    at = 0
    for block in similarities(query, gallery, metric):
        value, index = block.topk(k, dim=1)
        index, order = index.sort(1)  # topk leaves ties in any order: a stable sort puts them in the gallery's
        value, order = value.gather(1, order).sort(dim=1, descending=True, stable=True)
        here = slice(at, at + len(block))
        near[here], places[here] = value, index.gather(1, order)
        at += len(block)
    if metric != "cosine":
        near -= query.square().sum(1, keepdim=True) / 2
    return near, places


def vote(
    similarity: Float[Tensor, "query k"], labels: Int[Tensor, "query k"], classes: int, temperature: float = 0.0
) -> Int[Tensor, " query"]:
    """The class that most neighbours have; a tie goes to the larger sum of similarities.

    Args:
        labels: of the neighbours.
        temperature: weigh each neighbour by exp(similarity / temperature) instead (0: they count alike).
    """
    none = similarity.new_zeros(len(labels), classes)
    if temperature:
        weight = ((similarity - similarity[:, :1]) / temperature).exp()  # the nearest weighs 1: nothing overflows
        return none.scatter_add(1, labels, weight).argmax(1)
    count = none.scatter_add(1, labels, torch.ones_like(similarity))
    total = none.scatter_add(1, labels, similarity)
    return total.masked_fill(count < count.amax(1, keepdim=True), -torch.inf).argmax(1)


def average_precision(
    relevant: Bool[Tensor, "query rank"], total: Int[Tensor, " query"] | int
) -> Float[Tensor, " query"]:
    """Mean of the precision at each relevant rank: sum_r precision(r) relevant(r) / min(ranks, total).

    Ranks end where `relevant` does, so with total > ranks a perfect list still has 1. A query without anything relevant
    in the gallery has 0.

    Args:
        relevant: whether what stands at each rank has the query's class, nearest first.
        total: relevant ones in the whole gallery.
    """
    rank = torch.arange(1, relevant.shape[1] + 1, device=relevant.device)
    precision = relevant.cumsum(1, dtype=torch.float32).div_(rank)
    best = torch.as_tensor(total, device=relevant.device).clamp(1, relevant.shape[1])
    return precision.mul_(relevant).sum(1, dtype=torch.float64).div(best).float()


def exact_precision(
    query: Float[Tensor, "query feature"],
    gallery: Float[Tensor, "clip feature"],
    labels: Int[Tensor, " clip"],
    truth: Int[Tensor, " query"],
    metric: str = "cosine",
) -> Float[Tensor, " query"]:
    """Average precision of each query over the whole gallery, which is sorted for each."""
    found, at = [], 0
    for block in similarities(query, gallery, metric):
        for part in block.split(max(1, len(block) // 4)):  # places and precisions stand beside the similarities
            wanted = truth[at : at + len(part), None]
            order = part.argsort(dim=1, descending=True, stable=True)
            relevant = labels[order] == wanted
            found.append(average_precision(relevant, relevant.sum(1)))
            at += len(part)
    return torch.cat(found)


class Retrieval(Protocol):
    """Test clips among the training clips."""

    name = "retrieval"
    label = "1-NN"
    reads = ("retrieval",)
    version = 2

    def __init__(self, config: Any, argument: str = ""):
        super().__init__(config, argument)
        config.retrieval.check()

    def __call__(self, subject: Subject) -> Result:
        settings: RetrievalConfig = self.config.retrieval
        metric = "euclidean" if subject.encoder is None else "cosine"
        temperature = settings.temperature if subject.encoder is not None else 0.0
        (gallery, query), (labels, truth) = subject.features, subject.labels
        near, places = search(query, gallery, max(1, SHOWN, settings.depth, *settings.ks), metric)
        theirs = labels[places]
        right = theirs == truth[:, None]
        predicted = theirs[:, 0]
        metrics = {"top1": accuracy(predicted, truth)}
        for k in settings.ks:
            voted = vote(near[:, :k], theirs[:, :k], subject.classes, temperature)
            metrics[f"top1_k{k}"] = accuracy(voted, truth)
            metrics[f"recall_{k}"] = 100 * float(right[:, :k].any(1).float().mean())
        alike = labels.bincount(minlength=subject.classes)[truth]
        precision = average_precision(right[:, : settings.depth], alike)
        metrics[f"map_{settings.depth}"] = 100 * float(precision.mean())
        if settings.exact:
            metrics["map"] = 100 * float(exact_precision(query, gallery, labels, truth, metric).mean())
        ballot = f"soft vote, T = {temperature:g}" if temperature else "majority vote, ties by summed similarity"
        recipe = (
            f"1-NN, {metric}; top1_kK: {ballot}; recall_K: any of the K nearest; map_{settings.depth}: average "
            f"precision over the first {settings.depth} / min({settings.depth}, relevant), 0 where nothing is relevant"
        )
        return Result(metrics, recipe, predicted, arrays={"neighbours": places[:, :SHOWN].numpy().astype(np.int32)})
