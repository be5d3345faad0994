"""The clip store: all frames of all clips end to end, memory-mapped, and one table with a row for each clip.

Nothing is padded: clip i is `frames[offsets[i]:offsets[i + 1]]`. Gaps are filled when the store is written, so that
sampling may read any frame; `observed` remembers what was really seen. Coordinates are metres, y up, in the sensor's
frame; the point to centre a clip on (actor 1's root in the clip's first valid frame) is kept beside them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from skeletons.errors import BadInput
from skeletons.streams import JOINT
from skeletons.topology import Topology

VERSION = 2  # bump when the meaning of a stored clip changes
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SHORT_GAP = 5  # frames; an interpolated gap this short (1/6 s at 30 fps) still counts as observed
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


def fill_gaps(
    joints: np.ndarray, offsets: np.ndarray, parents: Sequence[int], order: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate what was not seen, so that any frame can be read.

    Inside a clip a missing joint is interpolated linearly between the frames around the gap, held at its ends, and put
    on its parent where it was never seen; a person who is absent throughout stays zero.

    Args:
        joints: float32 (frame, person, joint, 3), exact zeros where missing.
        offsets: int64 (clip + 1).
        parents, order: of the topology.

    Returns:
        (filled joints, observed): observed is bool (frame, person, joint), True where the joint was seen or the gap is
        at most `SHORT_GAP` frames long.
    """
    seen = (joints != 0).any(-1)
    if seen.all():
        return joints, seen
    clip_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    first, last = offsets[clip_of][:, None, None], offsets[clip_of + 1][:, None, None] - 1
    frame = np.arange(len(joints))[:, None, None]
    before = np.maximum.accumulate(np.where(seen, frame, -1), axis=0)
    after = np.minimum.accumulate(np.where(seen, frame, len(joints))[::-1], axis=0)[::-1]
    has_before, has_after = before >= first, after <= last
    low = np.where(has_before, before, np.where(has_after, after, frame))
    high = np.where(has_after, after, low)
    weight = np.where(high > low, (frame - low) / np.maximum(high - low, 1), 0.0).astype(np.float32)[..., None]
    person, joint = np.arange(joints.shape[1])[None, :, None], np.arange(joints.shape[2])[None, None, :]
    filled = joints[low, person, joint] * (1 - weight) + joints[high, person, joint] * weight
    observed = seen | (has_before & has_after & (after - before - 1 <= SHORT_GAP))
    never = ~(has_before | has_after)
    for j in order:  # a joint that its sensor never saw sits on its parent, a visible and harmless place
        if parents[j] != j and never[:, :, j].any():
            filled[:, :, j] = np.where(never[:, :, j, None], filled[:, :, parents[j]], filled[:, :, j])
    return filled.astype(np.float32), observed


def _origins(frames: np.ndarray, observed: np.ndarray, offsets: np.ndarray, root: int) -> np.ndarray:
    """float32 (clip, 3): actor 1's root in its first valid frame, zero where it has none."""
    valid = observed[:, 0, root]
    where = np.where(valid, np.arange(len(frames)), len(frames))
    first = np.minimum.reduceat(where, offsets[:-1])
    found = first < offsets[1:]
    return np.where(found[:, None], frames[np.where(found, first, 0), 0, root], np.float32(0))


def fingerprint(joints: np.ndarray, offsets: np.ndarray, labels: np.ndarray) -> str:
    """sha256 of coordinates, lengths and labels, 16 hexadecimal digits."""
    digest = hashlib.sha256(str(VERSION).encode())
    for array in (joints, offsets, labels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary neighbour of `path` that takes its place when the block ends well, and is removed otherwise.

    Raises:
        BadInput: the folder cannot be written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    try:
        yield temporary / path.name
        if (temporary / path.name).is_file():
            (temporary / path.name).chmod(0o644)  # safetensors writes files that only their owner can read
        os.replace(temporary / path.name, path)
    except OSError as error:
        if error.errno in FULL or "requested and" in str(error):  # NumPy's words for a write cut short, no errno
            raise BadInput(f"{path}: the disk is full; free some space or choose another folder") from error
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return  # another process was faster: the same content is there
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_store(folder: Path, arrays: Mapping[str, np.ndarray], topology: Topology, about: Mapping) -> None:
    """Write a clip store from arrays of the exchange format (already checked).

    Args:
        folder: the store; appears whole or not at all.
        about: `name`, `source`, `chiral`, `notes` and whatever else should travel with the data.
    """
    joints, offsets = np.ascontiguousarray(arrays["joints"], np.float32), arrays["offsets"].astype(np.int64)
    frames, observed = fill_gaps(joints, offsets, topology.parents, topology.order)
    present = np.logical_or.reduceat((joints != 0).any((-1, -2)), offsets[:-1], axis=0)
    bridged = np.flatnonzero(observed & ~(joints != 0).any(-1))
    reserved = {"joints", "offsets", "class_names", "joint_names", "parents", "chiral"}
    columns = {k: v for k, v in arrays.items() if k not in reserved and np.shape(v)[:1] == (len(offsets) - 1,)}
    columns["label"] = columns["label"].astype(np.int64)
    meta = dict(
        about,
        fps=float(arrays.get("fps", 30.0)),
        class_names=[str(c) for c in arrays["class_names"]],
        joints=list(topology.joints),
        parents=list(topology.parents),
        topology=topology.name,
        fingerprint=fingerprint(joints, offsets, columns["label"]),
    )
    with written_whole(folder) as temporary:
        temporary.mkdir()
        np.save(temporary / "frames.npy", frames)
        np.save(temporary / "observed.npy", observed)
        table = {f"column_{k}": v for k, v in columns.items()}
        origin = _origins(frames, observed, offsets, topology.root)
        np.savez(temporary / "table.npz", offsets=offsets, origin=origin, present=present, bridged=bridged, **table)  # type: ignore[arg-type]
        (temporary / "meta.json").write_text(json.dumps(meta, indent=1))


def open_store(folder: Path) -> Clips:
    """Open a store written by `write_store`; frames stay on disk until they are read."""
    meta = json.loads((folder / "meta.json").read_text())
    with np.load(folder / "table.npz", allow_pickle=False) as table:
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
    )
