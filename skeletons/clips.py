"""The clip store: all frames of all clips end to end, memory-mapped, and one table with a row for each clip.

Nothing is padded: clip i is `frames[offsets[i]:offsets[i + 1]]`. Gaps are filled when the store is written, so that
sampling may read any frame; `observed` remembers what was really seen. Coordinates are metres, y up, in the sensor's
frame; the point to centre a clip on (actor 1's root in the clip's first valid frame) is kept beside them.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from skeletons.errors import BadInput
from skeletons.streams import JOINT
from skeletons.topology import Topology
from skeletons.whole import written_whole
from skeletons.writing import VERSION, StoreWriter

BLOCK = 20_000  # frames written at once
COLUMNS = ("clip", "label", "subject", "camera", "setup", "repetition", "fold")  # one value a clip, where given


@dataclass(frozen=True)
class Clips:
    """Recordings of one data set.

    Attributes:
        name: the data set.
        frames: float32 (frame, person, joint, 3), metres; gaps filled, absent persons zero.
        observed: bool (frame, person, joint), False where a coordinate was made up, short gaps excepted.
        bridged: int64, places in the flat `observed` that are such short gaps: interpolated, yet counted as observed.
        offsets: int64 (clip + 1).
        origin: float32 (clip, 3), actor 1's root in its first valid frame.
        present: bool (clip, person).
        table: columns of length clip: `clip` (names), `label`, `subject`, `camera`, `repetition`, ... and bool columns
            that mark splits.
        topology, class_names, fps: as their names say.
        chiral: pairs of classes that are each other's mirror image.
        fingerprint: hash of coordinates, lengths and labels; part of every result's identity.
        source: where it came from, for messages and reports.
        tracking: uint8 (frame, person, joint), the sensor's own confidence (0 none, 1 inferred, 2 tracked, 255 not
            given), where it was kept.
        stream: what of them encoders are fed, see skeletons/streams.py; `frames` are joints whatever it is.
    """

    name: str
    frames: np.ndarray
    observed: np.ndarray
    offsets: np.ndarray
    origin: np.ndarray
    present: np.ndarray
    table: dict[str, np.ndarray]
    topology: Topology
    class_names: tuple[str, ...]
    fps: float
    fingerprint: str
    source: str
    chiral: tuple[tuple[str, str], ...] = ()
    bridged: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    notes: dict[str, str] = field(default_factory=dict)
    stream: str = JOINT
    tracking: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 (clip), frames of each clip."""
        return np.diff(self.offsets)

    @property
    def labels(self) -> np.ndarray:
        """int64 (clip), class of each clip, from 0."""
        return self.table["label"]

    def names(self, index: np.ndarray) -> list[str]:
        """The recordings' own names of these clips."""
        return [str(name) for name in self.table["clip"][index]]

    def original(self) -> np.ndarray:
        """float32 (frame, person, joint, 3) with what was not seen set to exact zeros (the exchange format)."""
        seen = np.array(self.observed)
        seen.reshape(-1)[self.bridged] = False
        return np.where(seen[..., None], self.frames, np.float32(0))


def check(arrays: Mapping[str, np.ndarray], place: str) -> None:
    """Refuse what cannot be used, naming the file, the clip and the remedy.

    Args:
        arrays: `joints`, `offsets`, `label`, `clip`, `class_names`, `joint_names`, `parents` of the exchange format.
        place: the file, for the message.
    """
    joints, offsets = arrays["joints"], arrays["offsets"]
    names, labels = arrays["clip"], arrays["label"]
    if joints.ndim != 4 or joints.shape[-1] != 3 or joints.dtype.kind not in "fiu":
        raise BadInput(
            f"{place}: joints are {joints.dtype} of shape {joints.shape}, expected numbers (frames, persons, joints, 3)"
        )
    for key in ("offsets", "label", "parents", "clip", "class_names", "joint_names"):
        kinds, what = ("iu", "integers") if key in ("offsets", "label", "parents") else ("US", "names")
        if arrays[key].ndim != 1 or arrays[key].dtype.kind not in kinds:
            raise BadInput(
                f"{place}: {key} is {arrays[key].dtype} of shape {arrays[key].shape}, expected a row of {what}"
            )
    if joints.shape[2] != len(arrays["joint_names"]):
        raise BadInput(
            f"{place}: {joints.shape[2]} joints but {len(arrays['joint_names'])} joint names; "
            "write one name for each joint"
        )
    clips = len(offsets) - 1
    if clips < 1:
        raise BadInput(f"{place}: there is no clip in this file")
    if offsets[0] != 0 or offsets[-1] != len(joints):
        raise BadInput(
            f"{place}: offsets run from {offsets[0]} to {offsets[-1]} but there are {len(joints)} frames; "
            "the file is truncated or was written wrongly, make it again"
        )
    for column in (c for c in arrays if c in COLUMNS or c.startswith("train_")):
        if arrays[column].shape != (clips,):
            raise BadInput(
                f"{place}: column {column!r} has shape {arrays[column].shape} for {clips} clips; write one value a clip"
            )
    lengths = np.diff(offsets)
    if (lengths < 1).any():
        bad = int(np.argmax(lengths < 1))
        raise BadInput(f"{place}: clip {names[bad]} (number {bad}) has no frames; leave it out of the file")
    finite = np.isfinite(joints).all(axis=(1, 2, 3))
    if not finite.all():
        frame = int(np.argmin(finite))
        clip = int(np.searchsorted(offsets, frame, side="right") - 1)
        raise BadInput(
            f"{place}: clip {names[clip]} (number {clip}) has a coordinate that is not a number in frame "
            f"{frame - offsets[clip]}; write a joint that was not seen as zeros"
        )
    nobody = ~np.logical_or.reduceat((joints != 0).any((1, 2, 3)), offsets[:-1])
    if nobody.any():
        bad = int(np.argmax(nobody))
        raise BadInput(f"{place}: clip {names[bad]} (number {bad}) shows nobody, all zeros; leave it out of the file")
    outside = (labels < 0) | (labels >= len(arrays["class_names"]))
    if outside.any():
        bad = int(np.argmax(outside))
        raise BadInput(
            f"{place}: clip {names[bad]} (number {bad}) has label {labels[bad]}, outside the "
            f"{len(arrays['class_names'])} classes 0-{len(arrays['class_names']) - 1}; correct it"
        )
    if len(set(names.tolist())) != clips:
        seen: set[str] = set()
        twice = next(n for n in names.tolist() if n in seen or seen.add(n))  # type: ignore[func-returns-value]
        raise BadInput(f"{place}: two clips are named {twice}; names must be distinct")


def fingerprint(joints: np.ndarray, offsets: np.ndarray, labels: np.ndarray) -> str:
    """sha256 of coordinates, lengths and labels, 16 hexadecimal digits."""
    digest = hashlib.sha256(str(VERSION).encode())
    for array in (joints, offsets, labels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def write_store(folder: Path, arrays: Mapping[str, np.ndarray], topology: Topology, about: Mapping) -> None:
    """Write a clip store from arrays of the exchange format (already checked).

    Args:
        folder: the store; appears whole or not at all.
        about: `name`, `source`, `chiral`, `notes` and whatever else should travel with the data.
    """
    joints, offsets = np.ascontiguousarray(arrays["joints"], np.float32), arrays["offsets"].astype(np.int64)
    with streaming_store(folder, topology, joints.shape[1]) as writer:
        first = 0
        while first < len(offsets) - 1:  # a piece at a time: filling gaps takes several times its space
            last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + BLOCK, side="right")) - 1)
            writer.add(joints[offsets[first] : offsets[last]], np.diff(offsets[first : last + 1]))
            first = last
        finish_store(writer, arrays, about)


@contextmanager
def streaming_store(folder: Path, topology: Topology, persons: int) -> Iterator[StoreWriter]:
    """A writer of a store that appears whole or not at all; `finish_store` it inside the block."""
    with written_whole(folder) as temporary:
        temporary.mkdir()
        with StoreWriter(temporary, topology, persons) as writer:
            yield writer


def finish_store(writer: StoreWriter, arrays: Mapping[str, np.ndarray], about: Mapping) -> None:
    """Write table and description of a store whose joints were appended; arguments as `write_store`'s."""
    reserved = {"joints", "offsets", "class_names", "joint_names", "parents", "chiral"}
    clips = len(arrays["label"])
    columns = {k: v for k, v in arrays.items() if k not in reserved and np.shape(v)[:1] == (clips,)}
    columns["label"] = columns["label"].astype(np.int64)
    meta = dict(about, fps=float(arrays.get("fps", 30.0)), class_names=[str(c) for c in arrays["class_names"]])
    writer.finish(columns, meta)


def open_store(folder: Path) -> Clips:
    """Open a store written by `write_store`; frames stay on disk until they are read."""
    meta = json.loads((folder / "meta.json").read_text())
    with (folder / "table.npz").open("rb") as raw, np.load(raw, allow_pickle=False) as table:
        arrays = {k: table[k] for k in table.files}
    return Clips(
        name=meta["name"],
        frames=np.load(folder / "frames.npy", mmap_mode="r"),
        observed=np.load(folder / "observed.npy", mmap_mode="r"),
        offsets=arrays["offsets"],
        origin=arrays["origin"],
        present=arrays["present"],
        table={k.removeprefix("column_"): v for k, v in arrays.items() if k.startswith("column_")},
        topology=Topology(tuple(meta["joints"]), tuple(meta["parents"]), meta["topology"]),
        class_names=tuple(meta["class_names"]),
        fps=meta["fps"],
        fingerprint=meta["fingerprint"],
        source=meta["source"],
        chiral=tuple((a, b) for a, b in meta.get("chiral", ())),
        bridged=arrays.get("bridged", np.empty(0, np.int64)),
        notes=meta.get("notes", {}),
        tracking=np.load(state, mmap_mode="r") if (state := folder / "tracking.npy").is_file() else None,
    )


def open_archive(folder: Path) -> Clips:
    """Open a store that someone else keeps, e.g. one that `python -m skeletons.prepare` wrote.

    Raises:
        BadInput: it is none, is damaged, or was written by another version.
    """
    again = "make it again with python -m skeletons.prepare"
    if not (folder / "meta.json").is_file():
        raise BadInput(f"{folder}: is no prepared archive (it has no meta.json); {again}")
    try:
        version = json.loads((folder / "meta.json").read_text()).get("version")
        clips = None if version != VERSION else open_store(folder)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        RuntimeError,
        zipfile.BadZipFile,
    ) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{folder}: the archive is damaged ({reason}); {again}") from error
    if clips is None:
        raise BadInput(f"{folder}: was written by version {version} of the clip store, this is {VERSION}; {again}")
    size = (len(clips.topology), clips.offsets[-1])
    for array in (clips.frames, clips.observed, *([] if clips.tracking is None else [clips.tracking])):
        if (array.shape[2], len(array)) != size:
            raise BadInput(f"{folder}: frames of shape {array.shape} for {size[1]} frames of {size[0]} joints; {again}")
    return clips
