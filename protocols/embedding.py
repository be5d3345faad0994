"""What the features look like: a map of the test clips, and the nearest training clips of a few of them.

The map is t-SNE (van der Maaten & Hinton, 2008) in two dimensions, of the features' first principal components. What
is near by cosine is near on it (raw coordinates: by Euclidean distance, as in retrieval); how faithfully, its
trustworthiness says (Venna & Kaski, 2001): 100 where no clip is among another's nearest on the map that is not among
its nearest by features too. It is high for any good map, of good features or bad ones, so it is no measure of an
encoder; how many clips have one of their own class beside them stands with it (more than find one among the training
clips: the same person did the same again).

For strips, a few test clips and their nearest training clips are kept as skeletons, so that a report draws them without
the data. They are drawn by their place among the test clips: neither a label, and so neither right nor wrong, nor the
features have a say in it, and with the same seed every encoder is shown with the same clips. For a picture of what an
encoder attends to, its attention over the body is kept too (protocols/attention.py).

ASSUMPTION: how papers draw their maps is not published. L2-normalised features, 50 components and perplexity 30 are
what one finds most often.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from protocols.attention import attention_of
from protocols.base import Protocol, Result, Subject
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import centre_view
from skeletons.streams import JOINT


@dataclass
class EmbeddingConfig:
    """The map and the strips.

    Attributes:
        clips: test clips on the map at most; of more, so many are drawn.
        components: principal components that t-SNE starts from.
        perplexity: of t-SNE, about how many clips are near one; at most a third of the clips.
        strips: test clips whose neighbours are kept.
        neighbours: training clips for each of them; also the size of a neighbourhood in the trustworthiness.
        frames: of each clip, evenly spaced over its evaluation view.
    """

    clips: int = 2000
    components: int = 50
    perplexity: float = 30.0
    strips: int = 6
    neighbours: int = 5
    frames: int = 8

    def check(self) -> None:
        """Raises BadInput for sizes that cannot be drawn."""
        for name, least in (("clips", 3), ("components", 2), ("strips", 1), ("neighbours", 1), ("frames", 1)):
            if getattr(self, name) < least:
                raise BadInput(f"protocol.embedding.{name}={getattr(self, name)} must be at least {least}")
        if self.perplexity < 1:
            raise BadInput(f"protocol.embedding.perplexity={self.perplexity} must be at least 1")


def map_of(x: Float[Tensor, "clip feature"], config: EmbeddingConfig, draws: Draws) -> np.ndarray:
    """float32 (clip, 2): t-SNE from the first principal components; identical features are spread at random."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    points, state = x.double().numpy(), draws.torch_seed() % 2**32
    if points.std(0).max() > 0:
        points = PCA(min(config.components, *points.shape), random_state=state).fit_transform(points)
    start, spread = points[:, :2], points[:, 0].std()
    if spread == 0 or start.shape[1] < 2:
        start, spread = draws.normal(len(points), 2).numpy(), 1.0
    perplexity = min(config.perplexity, (len(points) - 1) / 3)
    start = (1e-4 / spread * start).astype(np.float32)  # as scikit-learn scales its own start
    return TSNE(perplexity=perplexity, init=start, random_state=state).fit_transform(points)


def trust(x: Float[Tensor, "clip feature"], placed: np.ndarray, neighbours: int) -> float:
    """Trustworthiness of a map in percent, of neighbourhoods of so many clips (fewer, where there are too few)."""
    from sklearn.manifold import trustworthiness

    few = min(neighbours, (len(placed) - 1) // 2)
    return 100 * float(trustworthiness(x.double().numpy(), placed, n_neighbors=few))


def beside(x: Float[Tensor, "clip feature"]) -> Int[Tensor, " clip"]:
    """The nearest other clip of each, by Euclidean distance."""
    apart = torch.cdist(x.double(), x.double()).fill_diagonal_(torch.inf)
    return apart.argmin(1)


def spread(clips: int, count: int, draws: Draws) -> Int[Tensor, " chosen"]:
    """Places of `count` of so many clips (all, where there are fewer), one at random of each equal stretch, ascending:
    recordings mostly lie in the order of their class or their subject, so this takes from many of them.
    """
    count = min(count, clips)
    return ((torch.arange(count) + draws.uniform(count).double()) * clips / count).long().clamp(max=clips - 1)


def neighbours_of(
    query: Float[Tensor, "query feature"], gallery: Float[Tensor, "clip feature"], count: int
) -> tuple[Int[Tensor, "query neighbour"], Float[Tensor, "query neighbour"]]:
    """The nearest rows of the gallery to each of a few queries, nearest first, and their Euclidean distances."""
    apart = torch.cdist(query.double(), gallery.double(), compute_mode="donot_use_mm_for_euclid_dist")
    found = apart.topk(min(count, len(gallery)), largest=False)
    return found.indices, found.values.float()


class Embedding(Protocol):
    """See the module's text.

    Arrays: `map` float32 (clip, 2) and `map_clips` int64 (clip), places in the test part; of the strips, the query
    first and its neighbours after it: `strip_rows` int64 (query, 1 + neighbour), rows of the data, `strip_clips` their
    names, `strip_classes` int64 (query, neighbour), `strip_near` float32 (query, neighbour), `strip_queries` int64
    (query), places in the test part, `strip_joints` float16 (query, 1 + neighbour, frame, person, joint, 3), metres,
    centred as an encoder's input, `strip_observed` bool, without the last dimension; `joint_names` and `parents`. Of an
    encoder that attends, those of `attention_of` on the clips of the map.
    """

    name = "embedding"
    label = "map's trustworthiness"
    reads = ("embedding",)
    seeded = True
    version = 2

    def __init__(self, config: object, argument: str = ""):
        super().__init__(config, argument)
        self.config.embedding.check()

    def __call__(self, subject: Subject) -> Result:
        settings: EmbeddingConfig = self.config.embedding
        (gallery, test), truth = subject.features, subject.labels[1]
        cosine = subject.encoder is not None
        if cosine:  # of unit vectors, what is nearer by Euclidean distance is nearer by cosine
            gallery, test = F.normalize(gallery, dim=1), F.normalize(test, dim=1)
        if len(test) < 3:
            raise BadInput(f"data {subject.data.name}: a map needs at least 3 test clips; there are {len(test)}")
        draws = Draws(subject.seed, "embedding")
        drawn = np.sort(draws.fork("clips").numpy().permutation(len(test))[: settings.clips])
        points = test[drawn]
        placed = map_of(points, settings, draws.fork("map"))
        of = truth[drawn]
        metrics = {
            "trustworthiness": trust(points, placed, settings.neighbours),
            "alike_on_map": 100 * float((of[beside(torch.from_numpy(placed))] == of).float().mean()),
            "alike_by_features": 100 * float((of[beside(points)] == of).float().mean()),
        }
        queries = spread(len(test), settings.strips, draws.fork("strips"))
        arrays = {"map": placed, "map_clips": drawn, **self._strips(subject, queries, gallery, test, cosine)}
        arrays |= attention_of(subject, drawn)
        measure = "cosine" if cosine else "Euclidean distance"
        recipe = (
            f"t-SNE of {len(drawn)} test clips, {settings.components} principal components, perplexity "
            f"{settings.perplexity:g}, {measure}; says how faithful the map is, not how good the encoder"
        )
        return Result(metrics, recipe, None, {"measure": measure, "map_clips": len(drawn)}, arrays)

    def _strips(
        self, subject: Subject, queries: Tensor, gallery: Tensor, test: Tensor, cosine: bool
    ) -> dict[str, np.ndarray]:
        """The strips' arrays, see the class."""
        settings, data, store = self.config.embedding, subject.data, subject.store
        found, apart = neighbours_of(test[queries], gallery, settings.neighbours)
        rows = np.concatenate([subject.part.test[queries][:, None], subject.part.train[found]], 1)
        flat = torch.from_numpy(rows.reshape(-1)).to(store.device)
        view = centre_view(store, flat, subject.views, settings.frames, JOINT)  # bodies are drawn
        joints = view.joints.transpose(1, 2).unflatten(0, rows.shape).cpu()  # frame before person
        seen = (view.observed & view.present[:, :, None, None]).transpose(1, 2).unflatten(0, rows.shape).cpu()
        return {
            "strip_rows": rows,
            "strip_clips": np.array(data.names(rows.reshape(-1))).reshape(rows.shape),
            "strip_classes": subject.labels[0][found].numpy(),
            "strip_near": (1 - apart.square() / 2 if cosine else apart).numpy(),
            "strip_queries": queries.numpy(),
            "strip_joints": joints.numpy().astype(np.float16),
            "strip_observed": seen.numpy(),
            "joint_names": np.array(data.topology.joints),
            "parents": np.array(data.topology.parents, np.int64),
        }
