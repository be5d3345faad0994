"""The contract of a method.

A method is a module that owns an encoder and says what it costs to be wrong: `loss(views, draws)` gives a dictionary
of scalars with the total under "loss" and its parts under their own names. The trainer knows nothing else of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from methods.decoder import DecoderConfig
from methods.encoder import Encoder, EncoderConfig
from methods.heads import HeadConfig
from methods.masking import MaskingConfig, all_strategies, strategy
from methods.registry import import_files
from skeletons.errors import BadInput, unknown
from skeletons.randomness import Draws
from skeletons.sampling import Batch, ViewConfig
from skeletons.topology import Topology


@dataclass
class MethodConfig:
    """Fields every method has; each method adds its own in a subclass.

    Attributes:
        name: of the method.
        pooling: its native pooling for probes: mean (patch tokens) or cls+mean.
    """

    name: str = "???"
    pooling: str = "mean"


@dataclass
class TeacherConfig:
    """A teacher that follows the student as an exponential moving average.

    Attributes:
        momentum: at the start; it grows to 1 along a cosine (SLiM, section 4.2: 0.994).
        half_life: where positive, the momentum is set so that the teacher forgets half in this share of the run; for
            runs so short that 0.994 (half-life 115 steps) would hold on to the initial weights.
        constant: the momentum does not grow (MoCo).
    """

    momentum: float = 0.994
    half_life: float = 0.0
    constant: bool = False

    def at(self, progress: float, steps: int) -> float:
        """The momentum after this share of a run of `steps` steps."""
        first = 0.5 ** (1 / (self.half_life * steps)) if self.half_life > 0 else self.momentum
        if self.constant:
            return first
        return 1 - (1 - first) * (math.cos(math.pi * progress) + 1) / 2


@dataclass
class QueueConfig:
    """Keys of past batches that contrastive methods compare with.

    Attributes:
        length: how many (MoCo, AimCLR: 32,768; shorter in runs that see few clips).
    """

    length: int = 32768


@dataclass
class Parts:
    """What a method is built from: configuration sections, and what the data and the run add.

    Attributes:
        topology: of the data.
        classes: number of classes, for supervised training only.
        steps: length of the run, for schedules that are shares of it.
        chiral: the data has classes that are each other's mirror image: views of a clip are mirrored alike, or not.
    """

    method: Any
    topology: Topology
    backbone: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    heads: HeadConfig = field(default_factory=HeadConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    classes: int = 0
    steps: int = 1
    queue: QueueConfig = field(default_factory=QueueConfig)
    chiral: bool = False


# What a method with one view a clip reads of `views`.
ONE_VIEW = ("views.frames", "views.crop_low", "views.crop_high", "views.min_frames")
METHODS: dict[str, type[Method]] = {}


class Method(nn.Module):
    """A pretraining method.

    Attributes:
        encoder: the encoder that is trained.
        config: the dataclass of its own fields.
        accepts: masking strategies it can use, by what they need; None if it masks nothing.
        crops: global views of a clip it wants.
        local_views: it wants local views of those too (SLiM); its view groups are then `global` and `local...`, else
            there is one, `clip`.
        one_person: it trains on one random present person a clip.
        uses_labels: it is supervised.
        augments: it augments views itself: it is given joints, and calls `in_stream` of a batch when it is done.
        trains: it has something to train.
        reads: configuration sections (dotted) that change its result; part of a run's identity.
        version: bump when its meaning changes.
    """

    encoder: Encoder
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    name: ClassVar[str]
    accepts: ClassVar[frozenset[str] | None] = None
    crops: ClassVar[int] = 1
    local_views: ClassVar[bool] = False
    one_person: ClassVar[bool] = False
    uses_labels: ClassVar[bool] = False
    augments: ClassVar[bool] = False
    trains: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("method", "backbone", "views", "augment", "train")
    version: ClassVar[int] = 1

    def __init_subclass__(cls) -> None:
        if "name" in cls.__dict__:
            METHODS[cls.name] = cls

    def loss(self, views: dict[str, Batch], draws: Draws) -> dict[str, Tensor]:
        """Loss of one step.

        Args:
            views: view groups from the sampler.
            draws: random numbers keyed by (seed, step).

        Returns:
            scalars; "loss" is what is minimised, the others are parts and statistics to log.
        """
        raise NotImplementedError

    def before_step(self, progress: float) -> None:
        """Called before each loss, e.g. for a temperature's schedule.

        Args:
            progress: share of the run that is done, in [0, 1).
        """

    def after_step(self, progress: float) -> None:
        """Called after each optimiser step, e.g. to move a teacher.

        Args:
            progress: share of the run that is done, in (0, 1].
        """

    def last_layers(self) -> list[nn.Parameter]:
        """What `train.freeze_last` freezes, e.g. prototypes."""
        return []

    def sections(self) -> list[nn.Module]:
        """Modules whose gradients `train.clip_per=module` clips each on its own; what is in none is clipped as one."""
        return list(self.children())

    @property
    def kept(self) -> Encoder:
        """The encoder that is judged and exported (a teacher, where the method says so)."""
        return self.encoder

    @classmethod
    def strategies(cls, masking: MaskingConfig) -> dict[str, str]:
        """View group -> name of the masking strategy it uses."""
        return {} if cls.accepts is None else {"clip": masking.strategy}


def all_methods() -> dict[str, type[Method]]:
    """Every method by name: each file of this folder is imported, so a new method needs no list to be added to."""
    import_files("methods")
    return METHODS


def method_class(name: str) -> type[Method]:
    """The class of the method called `name`.

    Raises:
        BadInput: there is none.
    """
    if name not in all_methods():
        raise unknown("method", name, METHODS)
    return METHODS[name]


def refuses(method: type[Method], name: str) -> str | None:
    """Why a method cannot use the masking strategy called `name`; None if it can."""
    known = all_strategies()
    if name not in known:
        raise unknown("masking strategy", name, known)
    if method.accepts is None:
        return f"{method.name} masks nothing"
    lacking = known[name].needs - method.accepts
    if lacking:
        return f"it needs {', '.join(sorted(lacking))}, which {method.name} does not offer"
    if name == "none" and "none" not in method.accepts:
        return f"{method.name} has no loss without hidden tokens"
    return None


def support_matrix() -> dict[str, dict[str, str | None]]:
    """method -> strategy -> None, or why not."""
    return {m: {s: refuses(cls, s) for s in all_strategies()} for m, cls in all_methods().items()}


def build(parts: Parts) -> Method:
    """The method that `parts.method.name` names.

    Raises:
        BadInput: an unknown method, or a masking strategy it cannot use.
    """
    cls = method_class(parts.method.name)
    for view, chosen in cls.strategies(parts.masking).items():
        reason = refuses(cls, chosen)
        if reason:
            raise BadInput(f"masking {chosen!r} cannot serve the {view} view of method {cls.name!r}: {reason}")
        strategy(chosen, parts.masking)
    construct: Callable[[Parts], Method] = cls
    return construct(parts)
