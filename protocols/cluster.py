"""Clustering: do the test clips fall into their classes without any label?

k-means on L2-normalised features of the test clips, with as many clusters as these show classes; clusters are matched
to classes one to one so that most clips agree (Kuhn, 1955), which gives an accuracy. Beside it normalised mutual
information (by the mean of both entropies), the adjusted Rand index, and the silhouette of the true classes
(Rousseeuw, 1987). Labels of training clips are not used. The silhouette compares every clip with every other, so that
of a larger set is that of 10,000 of its clips, drawn at random; it is 0 where there is but one class, or a class of
its own for every clip.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from protocols.base import Protocol, Result, Subject, accuracy
from skeletons.randomness import Draws, permutation

STARTS = 10
SILHOUETTE_CLIPS = 10_000


def matched(clusters: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """The class of each clip's cluster, under the matching with most agreement.

    Args:
        clusters, truth: int (clip), below `classes`.
    """
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (clusters, truth), 1)
    rows, columns = linear_sum_assignment(-counts)
    of_cluster = np.empty(classes, np.int64)
    of_cluster[rows] = columns
    return of_cluster[clusters]


def clustering(
    x: Float[Tensor, "clip feature"], y: Int[Tensor, " clip"], seed: int = 0
) -> tuple[Int[Tensor, " clip"], dict[str, float]]:
    """The class that each clip's cluster is matched to, and all metrics in percent.

    Args:
        y: true classes, for the scores alone.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    points = F.normalize(x.double(), dim=1).numpy()
    shown, truth = np.unique(y.numpy(), return_inverse=True)
    state = Draws(seed, "cluster").torch_seed()
    means = KMeans(len(shown), n_init=STARTS, random_state=state)
    with warnings.catch_warnings():  # fewer distinct points than clusters: some stay empty, which the scores tell
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = means.fit_predict(points)
    predicted = torch.from_numpy(shown[matched(clusters, truth, len(shown))])
    return predicted, {
        "top1": accuracy(predicted, y),
        "nmi": 100 * float(normalized_mutual_info_score(truth, clusters)),
        "ari": 100 * float(adjusted_rand_score(truth, clusters)),
        "silhouette": 100 * silhouette(points, truth, seed),
    }


def silhouette(points: np.ndarray, truth: np.ndarray, seed: int = 0) -> float:
    """How much nearer clips lie to their own class than to the next one, from -1 to 1 (see the module's text).

    Args:
        points: (clip, feature).
        seed: of the clips that are taken where there are more than SILHOUETTE_CLIPS.
    """
    from sklearn.metrics import silhouette_score

    if len(points) > SILHOUETTE_CLIPS:
        taken = np.sort(permutation(len(points), seed, "silhouette")[:SILHOUETTE_CLIPS])
        points, truth = points[taken], truth[taken]
    if not 1 < len(np.unique(truth)) < len(truth):
        return 0.0
    return float(silhouette_score(points, truth))


class Cluster(Protocol):
    """k-means on the test clips."""

    name = "cluster"
    label = "k-means"
    seeded = True
    version = 2

    def __call__(self, subject: Subject) -> Result:
        truth = subject.labels[1]
        predicted, metrics = clustering(subject.test_features, truth, subject.seed)
        recipe = f"k-means, {len(truth.unique())} clusters, best of {STARTS} starts, matched to classes; no labels used"
        if len(predicted) > SILHOUETTE_CLIPS:
            recipe += f"; silhouette of {SILHOUETTE_CLIPS:,} clips drawn at random"
        return Result(metrics, recipe, predicted)
