"""Supervised training from scratch: the reference row. A linear classifier on the mean of the patch tokens of all
present persons, cross-entropy with label smoothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import ONE_VIEW, Method, MethodConfig, Parts
from methods.encoder import make_encoder
from methods.persons import pooled
from skeletons.randomness import Draws
from skeletons.sampling import Batch


@dataclass
class SupervisedConfig(MethodConfig):
    """Attributes:
    label_smoothing: of the cross-entropy (MAMP's fine-tuning: 0.1).
    """

    name: str = "supervised"
    label_smoothing: float = 0.1


class Supervised(Method):
    """See the module's text."""

    name = "supervised"
    Config = SupervisedConfig
    uses_labels = True
    reads = ("method", "backbone", *ONE_VIEW, "augment", "train")

    def __init__(self, parts: Parts):
        super().__init__()
        self.config = parts.method
        self.encoder = make_encoder(parts.backbone, parts.topology, parts.views.frames)
        self.classifier = nn.Linear(self.encoder.width, parts.classes)

    def loss(self, views: dict[str, Batch], draws: Draws) -> dict[str, Tensor]:
        """Cross-entropy of the class of each clip, from the mean over its present persons."""
        batch = views["clip"]
        assert batch.labels is not None
        logits = self.classifier(pooled(self.encoder, batch))
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.config.label_smoothing)
        return {"loss": loss, "accuracy": (logits.argmax(1) == batch.labels).float().mean()}
