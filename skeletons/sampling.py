"""From ragged clips to batches: crops, linear resampling and SLiM's multi-view plan, a whole batch in one gather.

A view of all clips of a batch is two gathers and one interpolation (skeletons/tensors.py): no Python loop over clips.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from skeletons.augment import Augmentation
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.streams import JOINT, as_stream
from skeletons.tensors import ClipTensors, resample
from skeletons.topology import Topology

VERSION = 3


@dataclass
class LocalView:
    """Crops of `frames` frames over a share U(low, high) of the anchor's interval (SLiM, appendix B)."""

    frames: int = 32
    crops: int = 2
    low: float = 0.35
    high: float = 0.7


def _slim_locals() -> list[LocalView]:
    return [LocalView(32, 2, 0.35, 0.7), LocalView(16, 2, 0.15, 0.4), LocalView(8, 2, 0.05, 0.2)]


@dataclass
class ViewConfig:
    """How clips are cropped and resampled.

    Attributes:
        frames: frames of a (global) view.
        crop_low, crop_high: share of the clip that a training view covers.
        test_crop: share of the clip, centred, at evaluation (MAMP, SLiM: 0.95).
        min_frames: a view spans at least so many source frames, or the whole clip (MAMP's feeder: 64).
        locals: local views; read by methods that use them.
        single_length: frames of all local crops, as many as `locals` has, over the share that its view of so many
            frames covers: contrast without temporal diversity (SLiM, Table 5's CL: 16); 0 means as `locals` says.
    """

    frames: int = 64
    crop_low: float = 0.5
    crop_high: float = 1.0
    test_crop: float = 0.95
    min_frames: int = 8
    locals: list[LocalView] = field(default_factory=_slim_locals)
    single_length: int = 0

    def check(self) -> None:
        """Raises BadInput for shares that are none."""
        if not 0 < self.crop_low <= self.crop_high <= 1:
            raise BadInput(f"views.crop_low={self.crop_low}, crop_high={self.crop_high}: need 0 < low <= high <= 1")

    def local_views(self) -> list[LocalView]:
        """The local views that are drawn.

        Raises:
            BadInput: `single_length` is none of their lengths.
        """
        if not self.single_length:
            return self.locals
        for local in self.locals:
            if local.frames == self.single_length:
                return [replace(local, crops=sum(each.crops for each in self.locals))]
        lengths = ", ".join(str(local.frames) for local in self.locals) or "none"
        raise BadInput(f"views.single_length={self.single_length} must be the frames of a local view: {lengths}")


@dataclass
class Batch:
    """Views of clips; a row is one view of one clip, all clips of the first view first.

    Attributes:
        joints: metres, centred on actor 1's root in the clip's first valid frame; absent persons zero. Of the stream
            that the clips are read as: bones or motion, if it is one of these.
        observed: False where a coordinate was made up.
        present: which persons the clip has.
        views: views of each clip in this batch; rows = views x clips.
        labels: class of each row, only for methods that ask for labels.
        stream: what `in_stream` is still to make of `joints`; nothing, but for methods that augment (see `Sampler`).
    """

    joints: Float[Tensor, "row person time joint 3"]
    observed: Bool[Tensor, "row person time joint"]
    present: Bool[Tensor, "row person"]
    views: int = 1
    labels: Int[Tensor, " row"] | None = None
    stream: str = JOINT

    def __len__(self) -> int:
        return len(self.joints)

    def each_view(self) -> list[Batch]:
        """Each view of the clips as a batch of its own."""
        labels = [None] * self.views if self.labels is None else self.labels.chunk(self.views)
        tensors = (t.chunk(self.views) for t in (self.joints, self.observed, self.present))
        return [Batch(x, seen, there, 1, of, self.stream) for x, seen, there, of in zip(*tensors, labels)]

    def in_stream(self, topology: Topology) -> Batch:
        """The same views in their stream, when nothing is left to do to the joints."""
        joints, observed = as_stream(self.stream, self.joints, self.observed, topology)
        return replace(self, joints=joints, observed=observed, stream=JOINT)

    def fold(self) -> Batch:
        """One row for each person slot, absent ones too: (row x person, 1, time, joint, 3)."""
        labels = None if self.labels is None else self.labels.repeat_interleave(self.joints.shape[1])
        joints, observed = self.joints.flatten(0, 1)[:, None], self.observed.flatten(0, 1)[:, None]
        return replace(self, joints=joints, observed=observed, present=self.present.flatten()[:, None], labels=labels)


def centre_view(
    store: ClipTensors,
    clip: Int[Tensor, " row"],
    config: ViewConfig,
    frames: int | None = None,
    stream: str | None = None,
) -> Batch:
    """The evaluation view: the central `test_crop` of each clip, all persons, no augmentation.

    Args:
        frames: of the view; the configuration's by default.
        stream: the store's by default; bodies to be drawn, or corrupted first, are of `joint`.
    """
    length = store.length[clip]
    cut = (length * (1 - config.test_crop) / 2).floor().long()
    joints, observed = resample(store, clip, cut, length - 2 * cut, frames or config.frames)
    joints, observed = as_stream(stream or store.stream, joints, observed, store.topology)
    return Batch(joints, observed, store.present[clip], 1, store.labels[clip])


class Sampler:
    """Training batches: `sampler(clips, draws)` gives the named view groups that a method asks for.

    Args:
        store: the training clips.
        config: crops and sizes.
        augmentation: applied to each view.
        crops: global views of a clip, each a random crop of it.
        local_views: add local views cut out of each global one (SLiM's plan).
        one_person: one random present person for each clip, the same in all its views; else all persons.
        labels: hand labels on (supervised training only).
        as_joints: hand views on before their stream is made, to a method that augments them further.
    """

    def __init__(
        self,
        store: ClipTensors,
        config: ViewConfig,
        augmentation: Augmentation,
        crops: int = 1,
        local_views: bool = False,
        one_person: bool = False,
        labels: bool = False,
        as_joints: bool = False,
    ):
        self.store, self.config, self.augmentation = store, config, augmentation
        self.crops, self.local_views, self.one_person, self.labels = crops, local_views, one_person, labels
        self.as_joints = as_joints
        config.check()

    @property
    def topology(self) -> Topology:
        return self.store.topology

    def __call__(self, clip: Int[Tensor, " clip"], draws: Draws) -> dict[str, Batch]:
        """View groups of these clips: `global` and `local32`, ... or `clip` alone.

        Args:
            clip: rows of the store.
            draws: keyed by (seed, step).
        """
        person = self._person(clip, draws) if self.one_person else None
        views = self.crops
        u = draws.fork("crop").uniform(len(clip), views, 2)
        whole = self.store.length[clip][:, None].expand(-1, views)
        begin, length = self._crop(torch.zeros_like(whole), whole, self.config.crop_low, self.config.crop_high, u)
        group = "global" if self.local_views else "clip"
        batch = {group: self._view(group, clip, begin, length, self.config.frames, person, draws)}
        for number, local in enumerate(self.config.local_views() if self.local_views else ()):
            name = f"local{local.frames}" if f"local{local.frames}" not in batch else f"local{local.frames}-{number}"
            u = draws.fork(name).uniform(len(clip), views * local.crops, 2)
            anchor_begin, anchor_length = (t.repeat_interleave(local.crops, 1) for t in (begin, length))
            start, size = self._crop(anchor_begin, anchor_length, local.low, local.high, u)
            batch[name] = self._view(name, clip, start, size, local.frames, person, draws)
        return batch

    def _person(self, clip: Tensor, draws: Draws) -> Tensor:
        present = self.store.present[clip]
        count = present.sum(1).clamp(min=1)
        nth = (draws.fork("person").uniform(len(clip)) * count).long().clamp(max=present.shape[1] - 1)
        return ((present.cumsum(1) - 1 == nth[:, None]) & present).to(torch.int8).argmax(1)

    def _crop(self, begin: Tensor, length: Tensor, low: float, high: float, u: Tensor) -> tuple[Tensor, Tensor]:
        """Random crops inside the intervals (clip, view); u (clip, view, 2) uniform."""
        share = low + (high - low) * u[..., 0]
        least = length.clamp(max=self.config.min_frames)
        size = torch.maximum((length * share).floor().long(), least)
        offset = (u[..., 1] * (length - size + 1)).long()
        return begin + offset, size

    def _view(
        self,
        group: str,
        clip: Tensor,
        begin: Tensor,
        length: Tensor,
        frames: int,
        person: Tensor | None,
        draws: Draws,
    ) -> Batch:
        views = begin.shape[1]
        rows = clip.repeat(views)
        who = None if person is None else person.repeat(views)
        joints, observed = resample(self.store, rows, begin.T.flatten(), length.T.flatten(), frames, who)
        joints, observed = self.augmentation(joints, observed, views, draws.fork("augment", group), group)
        present = self.store.present[rows]
        if who is not None:
            present = present.gather(1, who[:, None])
        labels = self.store.labels[rows] if self.labels else None
        view = Batch(joints, observed, present, views, labels, self.store.stream)
        return view if self.as_joints else view.in_stream(self.topology)
