"""Training with labels: an encoder, a head on its tokens, and the cross-entropy of the class of each clip.

Heads differ between papers, so they have names:

- `linear`: mean of the observed patch tokens, mean over the persons present, one linear layer.
- `mamp`: dropout 0.3 on the tokens, their mean over time, all joints side by side, the mean over all person slots (an
  absent person is an empty body that is encoded like any other), then linear to 2048, batch normalisation, ReLU and
  linear (MAMP, main_finetune.py and its fine-tuning model). ASSUMPTION: its layers start as PyTorch starts them.
- `slim`: class token (where there is one) and mean of the patch tokens, summed over the persons present, one linear
  layer that starts from N(0, 0.01) (SLiM, slim/eval/finetune.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from methods.base import Method
from methods.distributed import BatchNorm
from methods.encoder import Encoder
from methods.persons import pooled
from skeletons.errors import unknown
from skeletons.randomness import Draws
from skeletons.sampling import Batch

MAMP_DROPOUT, MAMP_HIDDEN, SLIM_STD = 0.3, 2048, 0.01


class Head(nn.Module, ABC):
    """A classifier on the tokens of an encoder, which it does not own."""

    @abstractmethod
    def forward(self, encoder: Encoder, batch: Batch) -> Float[Tensor, "row class"]:
        """Logits of each row of the batch."""


class PooledHead(Head):
    """One linear layer on pooled features.

    Args:
        pooling: one of persons.POOLINGS.
        std: of its initial weights, with zero biases; 0 leaves them as PyTorch starts them.
    """

    def __init__(self, encoder: Encoder, classes: int, pooling: str = "mean", std: float = 0.0):
        super().__init__()
        self.pooling = pooling
        self.linear = nn.Linear(encoder.width if pooling == "mean" else _width(encoder, pooling), classes)
        if std:
            nn.init.normal_(self.linear.weight, std=std)
            nn.init.zeros_(self.linear.bias)

    def forward(self, encoder: Encoder, batch: Batch) -> Float[Tensor, "row class"]:
        return self.linear(pooled(encoder, batch, self.pooling))


class MampHead(Head):
    """See the module's text. It knows the number of joints, and in training takes two clips or more."""

    def __init__(self, encoder: Encoder, classes: int, hidden: int = MAMP_HIDDEN, dropout: float = MAMP_DROPOUT):
        super().__init__()
        width = encoder.grid(encoder.frames)[1] * encoder.width
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(nn.Linear(width, hidden), BatchNorm(hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, encoder: Encoder, batch: Batch) -> Float[Tensor, "row class"]:
        tokens = self.dropout(encoder(batch.joints.flatten(0, 1)).patches)
        return self.layers(tokens.mean(1).flatten(1).unflatten(0, batch.present.shape).mean(1))


HEADS = ("linear", "mamp", "slim")


def make_head(name: str, encoder: Encoder, classes: int) -> Head:
    """The head called `name`, on the CPU.

    Raises:
        BadInput: there is none.
    """
    if name == "linear":
        return PooledHead(encoder, classes)
    if name == "slim":
        return PooledHead(encoder, classes, "cls+mean/sum", SLIM_STD)
    if name == "mamp":
        return MampHead(encoder, classes)
    raise unknown("head", name, HEADS)


class Classifier(Method):
    """An encoder and a head, trained end to end with labels; of itself no method with a name.

    Args:
        label_smoothing: of the cross-entropy.
    """

    uses_labels = True

    def __init__(self, encoder: Encoder, head: Head, label_smoothing: float):
        super().__init__()
        self.encoder, self.head, self.label_smoothing = encoder, head, label_smoothing

    def logits(self, batch: Batch) -> Float[Tensor, "row class"]:
        """Of each row of the batch."""
        return self.head(self.encoder, batch)

    def loss(self, views: dict[str, Batch], draws: Draws) -> dict[str, Tensor]:
        """Cross-entropy of the class of each clip."""
        batch = views["clip"]
        assert batch.labels is not None
        logits = self.logits(batch)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        return {"loss": loss, "accuracy": (logits.argmax(1) == batch.labels).float().mean()}


@torch.no_grad()
def _width(encoder: Encoder, pooling: str) -> int:
    """Channels of a pooled feature, seen on an empty clip: whether there is a class token shows only there."""
    training, shape = encoder.training, (1, 1, encoder.frames, len(encoder.topology))
    device = next(encoder.parameters()).device
    seen = torch.ones(shape, dtype=torch.bool, device=device)
    clip = Batch(torch.zeros(*shape, 3, device=device), seen, seen[:, :, 0, 0])
    width = pooled(encoder.eval(), clip, pooling).shape[1]
    encoder.train(training)
    return width
