"""The contract of a protocol.

A protocol judges an encoder on a split of some data: it is given a `Subject` and gives a `Result`. It knows nothing of
how the encoder was trained, never changes it, and reads the labels of test clips once, after everything was chosen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from methods.encoder import Encoder
from methods.registry import import_files
from protocols.features import extract, extract_crops, labels_of, raw_features
from skeletons.clips import Clips
from skeletons.errors import BadInput, unknown
from skeletons.sampling import ClipTensors, ViewConfig
from skeletons.splits import Split, withhold

PROTOCOLS: dict[str, type[Protocol]] = {}


@dataclass
class Subject:
    """What is judged: an encoder (or raw coordinates) on a split.

    Features are extracted when a protocol first asks for them, and kept for the next one.

    Attributes:
        encoder: None for raw coordinates.
        data, part: clips and split.
        store: the clips as tensors, on the device to work on.
        views: size and crop of the evaluation view.
        pooling: of the features, see `features.extract`.
        seed: of whatever is drawn.
    """

    encoder: Encoder | None
    data: Clips
    part: Split
    store: ClipTensors
    views: ViewConfig
    pooling: str
    seed: int = 0
    _crops: dict[int, Tensor] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """Number of classes of the data."""
        return len(self.data.class_names)

    @cached_property
    def labels(self) -> tuple[Int[Tensor, " train"], Int[Tensor, " test"]]:
        """Classes of training and of test clips."""
        return labels_of(self.store, self.part.train), labels_of(self.store, self.part.test)

    @cached_property
    def train_features(self) -> Float[Tensor, "train feature"]:
        """Features of the evaluation view of training clips, float32 on the CPU."""
        return self._seen(self.part.train)

    @cached_property
    def test_features(self) -> Float[Tensor, "test feature"]:
        """Features of the evaluation view of test clips, float32 on the CPU."""
        return self._seen(self.part.test)

    @property
    def features(self) -> tuple[Float[Tensor, "train feature"], Float[Tensor, "test feature"]]:
        """Features of the evaluation view of training and of test clips."""
        return self.train_features, self.test_features

    def _seen(self, clips: np.ndarray) -> Tensor:
        rows = torch.from_numpy(clips)
        if self.encoder is None:
            return raw_features(self.store, rows)
        return extract(self.encoder, self.store, rows, self.views, self.pooling)

    def crops(self, count: int) -> Float[Tensor, "crop train feature"]:
        """Features of `count` random crops of each training clip; of raw coordinates, or where `count` is 0, the
        evaluation view alone."""
        if self.encoder is None or not count:
            return self.train_features[None]
        if count not in self._crops:
            rows = torch.from_numpy(self.part.train)
            found = extract_crops(self.encoder, self.store, rows, self.views, self.pooling, count, self.seed)
            self._crops[count] = found
        return self._crops[count]

    def withheld(self, share: float) -> tuple[Int[Tensor, " fit"], Int[Tensor, " held"]]:
        """A cut of the training clips by subject, for choosing: places among them."""
        fit, held = (np.searchsorted(self.part.train, rows) for rows in withhold(self.data, self.part.train, share))
        return torch.from_numpy(fit), torch.from_numpy(held)


@dataclass
class Result:
    """What a protocol found.

    Attributes:
        metrics: name -> value, in percent; the first one is the protocol's number in tables. Without `predicted` it has
            an interval over seeds only.
        recipe: in words, for the table's legend.
        predicted: the class given to each test clip (several draws: by each), where that makes sense: differences are
            paired by whether it is right.
        details: plain values to keep beside it, e.g. what was chosen.
        arrays: to be drawn later, e.g. a map of the clips.
    """

    metrics: dict[str, float]
    recipe: str
    predicted: Int[Tensor, " test"] | Int[Tensor, "draw test"] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


class Protocol(ABC):
    """A protocol.

    Attributes:
        name: as in `protocol.names`, where an argument may follow: `NAME:ARGUMENT`.
        label: heading of its column.
        takes: what its argument is, in words; empty where it has none.
        reads: sections and fields of the `protocol` configuration that change its result (part of its identity).
        seeded: it draws.
        raw: it can judge raw coordinates.
        pools: it judges features as `protocol.pooling` makes them; else it pools on its own, in one way.
        scores: it keeps logits of the test clips, (test, class), as the array `scores`, so that they can be fused.
        version: bump when its meaning changes.

    Args:
        config: the `protocol` section, of which it reads what `reads` names.
        argument: what follows the name.

    Raises:
        BadInput: settings or an argument that it cannot work with.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    takes: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = False
    raw: ClassVar[bool] = True
    pools: bool = True
    scores: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __init__(self, config: Any, argument: str = ""):
        if argument and not self.takes:
            raise BadInput(f"protocol {self.name!r} takes no argument; given {argument!r}")
        self.config, self.argument = config, argument

    def __init_subclass__(cls) -> None:
        if "name" in cls.__dict__:
            PROTOCOLS[cls.name] = cls

    @property
    def heading(self) -> str:
        """Of its column in tables."""
        return self.label

    @abstractmethod
    def __call__(self, subject: Subject) -> Result:
        """Judge the subject; its encoder is left as it was."""


def accuracy(predicted: Int[Tensor, "*draw test"], truth: Int[Tensor, " test"]) -> float:
    """Percent of test clips whose class was found (several draws: their mean)."""
    return 100 * float((predicted == truth).float().mean())


def all_protocols() -> dict[str, type[Protocol]]:
    """Every protocol by name: each file of this folder is imported."""
    import_files("protocols")
    return PROTOCOLS


def make_protocol(name: str, config: Any) -> Protocol:
    """The protocol that `NAME` or `NAME:ARGUMENT` means.

    Args:
        config: the `protocol` section.

    Raises:
        BadInput: there is none, or it cannot work with its argument or its settings.
    """
    kind, _, argument = name.partition(":")
    if kind not in all_protocols():
        raise unknown("protocol", kind, [*PROTOCOLS, "transfer", "fusion"])  # these two stand in sweeps
    return PROTOCOLS[kind](config, argument)
