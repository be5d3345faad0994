"""The exchange format: one `.npz` file of recordings, read and written.

| key | type and shape | meaning |
|---|---|---|
| `joints` | float32 (frames, persons, J, 3) | all clips one after the other; metres, y up; a joint that was not seen, or an absent person, is exact zeros |
| `offsets` | int64 (clips + 1) | clip i is `joints[offsets[i]:offsets[i + 1]]` |
| `label` | int64 (clips) | class, from 0 |
| `clip` | str (clips) | the recording's own name, distinct |
| `class_names`, `joint_names` | str | |
| `parents` | int64 (J) | parent joint; the root names itself |
| `subject`, `camera`, `setup`, `repetition` | int64 (clips), optional | who, seen by which camera, ... |
| any other (clips) column | bool or int | e.g. `train_xsub`, True for training clips |
| `fps`, `source`, `license`, `sensor`, `split_note` | scalars, optional | |
| `chiral` | str (pairs, 2), optional | names of classes that are each other's mirror image |
"""  # noqa: E501 (a table)

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from skeletons.clips import Clips, check
from skeletons.errors import BadInput
from skeletons.topology import Topology, topology_of
from skeletons.whole import written_whole

REQUIRED = ("joints", "offsets", "label", "clip", "class_names", "joint_names", "parents")
# What zipfile, zlib and NumPy raise on bytes that are not what was written.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)


def load_npz(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file, without executing anything in it.

    Raises:
        BadInput: the file is missing, truncated, no archive, or holds pickled objects.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; {remedy}")
    if not zipfile.is_zipfile(path):
        raise BadInput(f"{path}: is truncated or no .npz archive; fetch or write it again")
    arrays: dict[str, np.ndarray] = {}
    key = ""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            for key in file.files:
                arrays[key] = np.asarray(file[key])
    except DAMAGED as error:
        if str(error).startswith("Object arrays"):
            raise BadInput(
                f"{path}: {key} holds pickled objects, which are not loaded; write it as numbers or strings"
            ) from error
        reason = " ".join(str(error).split())
        raise BadInput(f"{path}: the archive is damaged at {key!r} ({reason}); fetch or write it again") from error
    return arrays


def read_archive(path: Path) -> tuple[dict[str, np.ndarray], Topology]:
    """Arrays of a file in the exchange format, checked, and its topology."""
    arrays = load_npz(path, "give the archive's place with data.root=DIR or data.file=PATH")
    missing = [key for key in REQUIRED if key not in arrays]
    if missing:
        raise BadInput(f"{path}: lacks {', '.join(missing)}; see skeletons/sources/archive.py for the format")
    check(arrays, str(path))
    try:
        return arrays, topology_of(arrays["joint_names"], arrays["parents"])
    except BadInput as error:
        raise BadInput(f"{path}: {error}; correct joint_names or parents") from error


def write_archive(path: Path, clips: Clips) -> None:
    """Write clips in the exchange format; the file appears whole or not at all."""
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            joints=clips.original(),
            offsets=clips.offsets,
            class_names=np.array(clips.class_names),
            joint_names=np.array(clips.topology.joints),
            parents=np.array(clips.topology.parents),
            fps=np.float64(clips.fps),
            source=np.array(clips.source),
            chiral=np.array(clips.chiral, dtype=str).reshape(-1, 2),
            **clips.table,  # type: ignore[arg-type]
        )
