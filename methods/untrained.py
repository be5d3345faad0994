"""The untrained encoder: the floor that every method must rise above."""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import Method, MethodConfig, Parts
from methods.encoder import make_encoder


@dataclass
class UntrainedConfig(MethodConfig):
    """No fields of its own."""

    name: str = "untrained"
    pooling: str = "cls+mean"


class Untrained(Method):
    """An encoder with its initial weights."""

    name = "untrained"
    Config = UntrainedConfig
    trains = False
    reads = ("method", "backbone", "views.frames")

    def __init__(self, parts: Parts):
        super().__init__()
        self.encoder = make_encoder(parts.backbone, parts.topology, parts.views.frames)
