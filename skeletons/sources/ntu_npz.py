"""NTU RGB+D archives as MAMP, CTR-GCN and HA-CM write them.

`x_train (N, 300, 150)` float32 holds 2 persons x 25 joints x 3, padded with zero frames to 300; `y_train (N, classes)`
is one-hot; `x_test`, `y_test` likewise (MAMP, data/ntu/seq_transformation.py). Two conventions for a clip with one
person: NTU-60's files leave the second slot zero, NTU-120's repeat the first person there. A repeated person is no
second person: the copy is removed here and counted. The files hold no names, subjects or cameras, so the split they
were made for is the only one: data.split=file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from skeletons.errors import BadInput
from skeletons.sources.archive import DAMAGED
from skeletons.topology import KINECT_V2, Topology

BLOCK = 512  # clips read at once: 92 MB
NEARLY_ZERO = np.float32(1e-9)  # metres


def _header(file, place: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a `.npy` stream; leaves it at the first value."""
    form = np.lib.format
    read = form.read_array_header_1_0 if form.read_magic(file) == (1, 0) else form.read_array_header_2_0
    shape, fortran_order, dtype = read(file)
    if fortran_order or dtype.kind != "f":
        raise BadInput(f"{place} is {dtype} or in Fortran's order; write float32 in C's order with numpy.savez")
    return shape, dtype


def _blocks(archive: zipfile.ZipFile, member: str, path: Path) -> Iterator[np.ndarray]:
    """Blocks of clips (n, 300, 150) of one member, so that 10 GB never stand in memory."""
    with archive.open(member) as file:
        shape, dtype = _header(file, f"{path}: {member}")
        if len(shape) != 3 or shape[2] != 150:
            raise BadInput(f"{path}: {member} has shape {shape}, expected (clips, frames, 150)")
        row = shape[1] * shape[2] * dtype.itemsize
        for start in range(0, shape[0], BLOCK):
            count = min(BLOCK, shape[0] - start)
            data = file.read(count * row)
            if len(data) != count * row:
                raise BadInput(f"{path}: {member} ends after clip {start + len(data) // row}; the file is truncated")
            yield np.frombuffer(data, dtype).reshape(count, *shape[1:]).astype(np.float32)


def _labels(archive: zipfile.ZipFile, member: str, path: Path) -> tuple[np.ndarray, int]:
    with archive.open(member) as file:
        onehot = np.lib.format.read_array(file, allow_pickle=False)
    if onehot.ndim != 2 or not ((onehot > 0).sum(1) == 1).all():
        raise BadInput(f"{path}: {member} must be one-hot, one class for each clip")
    return onehot.argmax(1).astype(np.int64), onehot.shape[1]


def read_ntu_npz(
    path: Path, add: Callable[[np.ndarray, np.ndarray], object] | None = None
) -> tuple[dict[str, np.ndarray], Topology]:
    """Arrays of the exchange format from an NTU archive, and Kinect v2's topology.

    Args:
        add: takes the joints (frame, 2, 25, 3) and lengths of some hundred clips at a time, all in their order; without
            it they are in the arrays, which for NTU-120 takes 20 GB.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; give the NTU archive with data.file=PATH")
    joints: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    names: list[str] = []
    train: list[np.ndarray] = []
    repeated = classes = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for part in ("train", "test"):
                for member in (f"x_{part}.npy", f"y_{part}.npy"):
                    if member not in archive.namelist():
                        raise BadInput(f"{path}: lacks {member}; it is no archive of MAMP's or CTR-GCN's pipeline")
                label, width = _labels(archive, f"y_{part}.npy", path)
                if classes and width != classes:
                    raise BadInput(f"{path}: y_train has {classes} classes, y_test {width}; make the file again")
                classes = width
                number = 0
                for block in _blocks(archive, f"x_{part}.npy", path):
                    kept, length, copies = _unpad(block, path, part, number)
                    if add is None:
                        joints.append(kept)
                    else:
                        add(kept, length)
                    lengths.append(length)
                    repeated += copies
                    number += len(block)
                if number != len(label):
                    raise BadInput(f"{path}: {number} {part} clips but {len(label)} labels; make the file again")
                labels.append(label)
                names += [f"{part}{i:06d}" for i in range(number)]
                train.append(np.full(number, part == "train"))
    except BadInput:
        raise
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{path}: the archive is truncated or damaged ({reason}); fetch or make it again") from error
    if not names:
        raise BadInput(f"{path}: there is no clip in this file")
    arrays: dict[str, np.ndarray] = {
        **({"joints": np.concatenate(joints)} if joints else {}),
        "offsets": np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64),
        "label": np.concatenate(labels),
        "clip": np.array(names),
        "train_file": np.concatenate(train),
        "class_names": np.array([f"A{i + 1:03d}" for i in range(classes)]),
        "joint_names": np.array(KINECT_V2.joints),
        "parents": np.array(KINECT_V2.parents),
        "fps": np.array(30.0),
        "split_note": np.array(f"the file's own split; {repeated} repeated second persons removed"),
    }
    return arrays, KINECT_V2


def _unpad(block: np.ndarray, path: Path, part: str, first: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Frames without their padding, end to end (frame, 2, 25, 3), lengths, and how many second persons were copies."""
    clips = block.reshape(len(block), block.shape[1], 2, 25, 3)
    if not np.isfinite(block).all():
        bad = first + int(np.argmin(np.isfinite(block).all((1, 2))))
        raise BadInput(f"{path}: {part} clip {bad} has a coordinate that is not a number; make the file again")
    some = (block != 0).any(2)
    length = np.where(some.any(1), block.shape[1] - some[:, ::-1].argmax(1), 0)
    if (length == 0).any():
        raise BadInput(f"{path}: {part} clip {first + int(np.argmin(length))} is empty; leave it out of the file")
    copy = (clips[:, :, 0] == clips[:, :, 1]).all((1, 2, 3))
    clips = np.where(copy[:, None, None, None, None] & (np.arange(2) == 1)[:, None, None], np.float32(0), clips)
    # The joint that a clip is centred on is exactly zero in its first frame, which would read as not seen.
    seen = (clips != 0).any(-1)
    centre = ~seen & seen.any(-1, keepdims=True)
    clips[..., 0][centre] = NEARLY_ZERO
    keep = np.arange(block.shape[1]) < length[:, None]
    return clips[keep], length, int(copy.sum())
