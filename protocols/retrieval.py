"""Retrieval: each test clip takes the label of its nearest training clip (SLiM, section 4.3; CMD, UmURL).

Features are L2-normalised and compared by cosine (raw coordinates: by Euclidean distance, which is what the field's
floors use), in blocks, so that the full distance matrix never stands in memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from protocols.base import Protocol, Result, Subject, accuracy


def nearest(
    query: Float[Tensor, "query feature"], gallery: Float[Tensor, "clip feature"], metric: str = "cosine"
) -> Int[Tensor, " query"]:
    """Index of the nearest gallery row.

    Args:
        metric: cosine or euclidean.
    """
    if metric == "cosine":
        query, gallery = F.normalize(query, dim=1), F.normalize(gallery, dim=1)
    offset = gallery.square().sum(1) / 2  # |q - g|^2 = |q|^2 + 2 (|g|^2 / 2 - q g)
    block = max(1, 2**24 // max(1, len(gallery)))
    return torch.cat([(offset - part @ gallery.T).argmin(1) for part in query.split(block)])


def retrieve(
    train: Float[Tensor, "clip feature"],
    train_labels: Int[Tensor, " clip"],
    test: Float[Tensor, "query feature"],
    test_labels: Int[Tensor, " query"],
    metric: str = "cosine",
) -> Bool[Tensor, " query"]:
    """Which test clips have the label of their nearest training clip."""
    return train_labels[nearest(test, train, metric)] == test_labels


class Retrieval(Protocol):
    """1-NN of the test clips among the training clips."""

    name = "retrieval"
    label = "1-NN"

    def __call__(self, subject: Subject) -> Result:
        metric = "euclidean" if subject.encoder is None else "cosine"
        (gallery, query), (labels, truth) = subject.features, subject.labels
        predicted = labels[nearest(query, gallery, metric)]
        return Result({"top1": accuracy(predicted, truth)}, f"1-NN, {metric}", predicted)
