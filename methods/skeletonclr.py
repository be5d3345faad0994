"""SkeletonCLR: momentum contrast of two views of a clip (Li et al., CrosSCLR, CVPR 2021; github LinguoLi/CrosSCLR; and
as AimCLR's repository runs it, net/skeletonclr.py).

    L = -log exp(q.k / T) / (exp(q.k / T) + sum_i exp(q.m_i / T)),   q, k, m_i unit vectors

q is the query network's vector of one view of a clip, k the key network's of another, m_i the queue (methods/moco.py).
Published: ST-GCN of hidden width 16 (`backbone.kind=stgcn`), embedding 128, queue 32,768, momentum 0.999, T 0.07,
views by a temporal crop and a shear of +-0.5, SGD 0.1 with momentum 0.9, weight decay 1e-4, 300 epochs of batches of
128, rate x 0.1 at epoch 250.

ASSUMPTION, to share data and backbone with the other methods: the transformer is the default; 48 frames stand for 50 (a
multiple of the patch); crops are our resampled crops, not those of a clip padded by reflection; the input is centred
once a clip, not in every frame on the joint between the shoulders with the shoulders turned to one line; AdamW.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from methods.losses import contrasts, info_nce
from methods.moco import Moco, MocoConfig
from skeletons.randomness import Draws
from skeletons.sampling import Batch


@dataclass
class SkeletonClrConfig(MocoConfig):
    """SkeletonCLR's fields are MoCo's."""

    name: str = "skeletonclr"


class SkeletonCLR(Moco):
    """See the module's text. Views: query, key."""

    name = "skeletonclr"
    Config = SkeletonClrConfig
    crops = 2

    def loss(self, views: dict[str, Batch], draws: Draws) -> dict[str, Tensor]:
        """InfoNCE of every clip's query with its key among the queue."""
        query, key = views["clip"].each_view()
        logits = contrasts(self.query(query), self.keys_of(key), self.queue.keys, self.config.temperature)
        return {"loss": info_nce(logits), "accuracy": (logits.argmax(1) == 0).float().mean()}
