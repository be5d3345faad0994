"""Supervised training from scratch: the reference row. A linear classifier on the mean of the patch tokens of all
present persons, cross-entropy with label smoothing."""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import ONE_VIEW, MethodConfig, Parts
from methods.classifier import Classifier, make_head
from methods.encoder import make_encoder


@dataclass
class SupervisedConfig(MethodConfig):
    """Attributes:
    label_smoothing: of the cross-entropy (MAMP's fine-tuning: 0.1).
    """

    name: str = "supervised"
    label_smoothing: float = 0.1


class Supervised(Classifier):
    """See the module's text."""

    name = "supervised"
    Config = SupervisedConfig
    reads = ("method", "backbone", *ONE_VIEW, "augment", "train")

    def __init__(self, parts: Parts):
        encoder = make_encoder(parts.backbone, parts.topology, parts.views.frames)
        super().__init__(encoder, make_head("linear", encoder, parts.classes), parts.method.label_smoothing)
        self.config = parts.method
