"""Score fusion: encoders of several streams (skeletons/streams.py), each trained and judged alone, decide together.

    score[class] = sum over streams of weight x logit[class]

So the field's three-stream numbers come about: AimCLR (ensemble_ntu_cs.py, ensemble_ntu_cv.py) and CTR-GCN
(ensemble.py) add the classifiers' raw logits with weights 0.6, 0.6 and 0.4 for joint, bone and motion (CTR-GCN's third
is the joints' motion, and a fourth, the bones' motion, has 0.4). Neither says how these were found; here they are
settings that stand before the test split is read, and are not tuned. ASSUMPTION: they suit other classifiers than
AimCLR's. Logits of our probes are as large as their rate and decay let them grow, so a stream may count for more than
its weight says; `scores=probabilities` takes softmax(logits) instead, of which each stream has as much to give.

Fusion judges several encoders, so it is no `Protocol`: `protocol.names` takes `fusion`, or `fusion:PROTOCOL` for the
scores of another protocol than the linear probe, and sweeps/fusion.py makes the pieces of work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from protocols.base import make_protocol
from skeletons.errors import BadInput, check_choices
from skeletons.streams import STREAMS

VERSION = 1
NAME, JUDGED = "fusion", "linear_fast"


@dataclass
class FusionConfig:
    """How streams are fused.

    Attributes:
        streams: an encoder is trained on each, with the same settings.
        weights: of their scores (AimCLR, CTR-GCN: 0.6, 0.6, 0.4 for joint, bone, motion).
        scores: logits or probabilities.
    """

    streams: list[str] = field(default_factory=lambda: list(STREAMS))
    weights: list[float] = field(default_factory=lambda: [0.6, 0.6, 0.4])
    scores: str = "logits"

    def check(self) -> None:
        """Raises BadInput for what cannot be fused."""
        check_choices("protocol.fusion", self, scores=("logits", "probabilities"))
        for stream in self.streams:
            if stream not in STREAMS:
                raise BadInput(f"protocol.fusion.streams: unknown stream {stream!r}; known: {', '.join(STREAMS)}")
        if len(set(self.streams)) < max(2, len(self.streams)):
            raise BadInput(f"protocol.fusion.streams={self.streams}: name two or more, each once")
        if len(self.weights) != len(self.streams) or min(self.weights) < 0 or not sum(self.weights):
            raise BadInput(
                f"protocol.fusion.weights={self.weights}: give one for each of {', '.join(self.streams)}, "
                "none negative, not all zero"
            )

    @property
    def recipe(self) -> str:
        """In words, for the table's legend."""
        parts = ", ".join(f"{stream} {weight:g}" for stream, weight in zip(self.streams, self.weights))
        return f"sum of the streams' {self.scores}, weighted {parts}; weights are not tuned"


def fuse(
    scores: Sequence[Float[Tensor, "*draw test class"]], config: FusionConfig
) -> Float[Tensor, "*draw test class"]:
    """The streams' scores as one.

    Args:
        scores: logits of the test clips, in the order of `config.streams`.
    """
    each = [s.softmax(-1) if config.scores == "probabilities" else s for s in scores]
    return torch.stack([weight * s for weight, s in zip(config.weights, each, strict=True)]).sum(0)


def fused_protocol(name: str, config: Any) -> str:
    """The protocol whose scores `fusion` or `fusion:PROTOCOL` adds; empty where `name` is no fusion.

    Args:
        name: as in `protocol.names`.
        config: the `protocol` section.

    Raises:
        BadInput: fusion cannot work with its settings or with that protocol.
    """
    kind, _, argument = name.partition(":")
    if kind != NAME:
        return ""
    config.fusion.check()
    judged = argument or JUDGED
    if not make_protocol(judged, config).scores:
        raise BadInput(f"protocol {name!r}: {judged!r} gives classes no scores that could be added")
    return judged
