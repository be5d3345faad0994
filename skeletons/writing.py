"""Writing a clip store block by block, so that memory does not grow with the data set; only its table is kept.

Frames are appended to the same `.npy` files that `numpy.save` would have written: the header leaves room for a longer
first dimension and is written again at the end. What was appended can be checked and taken up again by a later process
(see skeletons/preparing.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skeletons.gaps import fill_gaps, origins
from skeletons.topology import Topology

VERSION = 2  # bump when the meaning of a stored clip changes
UNKNOWN = 255  # tracking state of a recording whose source gives none
CHUNK = 20_000  # frames copied at once
KINDS = {"frames": np.dtype(np.float32), "observed": np.dtype(bool), "tracking": np.dtype(np.uint8)}


@dataclass(frozen=True)
class Block:
    """What the table keeps of some clips that were appended together. All of it can be written as JSON.

    Attributes:
        lengths: frames of each clip.
        persons: of these clips.
        origin, present: (clip, 3) metres and bool (clip, person), see skeletons/clips.py.
        bridged: places in this block's flat (frame, person, joint).
        crc: of the block's bytes on disk, by file.
    """

    lengths: list[int]
    persons: int
    origin: list[list[float]]
    present: list[list[bool]]
    bridged: list[int]
    crc: dict[str, int]


class StoreWriter:
    """Appends clips to a store. Close it (or leave its `with`) in any case; only `finish` makes it one.

    Args:
        folder: exists; the store's files are made in it.
        topology: of all clips.
        persons: that each clip has room for; grows where a clip has more.
        blocks: what an earlier writer appended to this folder; it is checked, and what does not agree is cut off.
    """

    def __init__(self, folder: Path, topology: Topology, persons: int = 1, blocks: Sequence[Block] = ()):
        self.folder, self.topology = folder, topology
        self.persons = max([persons, *(b.persons for b in blocks)])
        self.blocks: list[Block] = []
        self.frames = 0
        self.files: dict[str, io.BufferedRandom] = {}
        self._begin()
        for leftover in folder.glob("*.wide"):
            leftover.unlink()
        for block in blocks:
            if not self._take_up(block):
                break
        for key in set(self._there()) - ({*self.blocks[-1].crc} if self.blocks else set()):
            self._path(key).unlink()
        try:
            self._cut()
        except OSError:
            self.close()
            raise

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; they keep what was appended."""
        files, self.files = self.files, {}
        errors = []
        for file in files.values():
            try:
                file.close()
            except OSError as error:  # what is buffered finds the disk full
                errors.append(error)
        if errors:
            raise errors[0]

    def add(self, joints: np.ndarray, lengths: Sequence[int] | np.ndarray, tracking: np.ndarray | None = None) -> Block:
        """Append clips.

        Args:
            joints: float32 (frame, person, joint, 3), metres, exact zeros where missing; these clips end to end.
            lengths: frames of each.
            tracking: uint8 (frame, person, joint), the sensor's confidence, where it gives one.

        Raises:
            OSError: the disk is full; what was appended before is unharmed.
        """
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        joints = np.ascontiguousarray(joints, np.float32)
        if joints.shape[1] > self.persons:
            self._widen(joints.shape[1])
        joints = self._padded(joints)
        frames, observed = fill_gaps(joints, offsets, self.topology.parents, self.topology.order)
        seen = (joints != 0).any(-1)
        parts = {"frames": frames, "observed": observed}
        if tracking is not None or "tracking" in self._there():
            state = np.full(observed.shape[:2] + observed.shape[2:], UNKNOWN, np.uint8)
            if tracking is not None:
                state = self._padded(np.ascontiguousarray(tracking, np.uint8))
            parts["tracking"] = state
        crc = {}
        for key, array in parts.items():
            data = np.ascontiguousarray(array).data.cast("B")
            crc[key] = zlib.crc32(data)
            self._file(key).write(data)
        for key in parts:
            self.files[key].flush()
        block = Block(
            lengths=np.diff(offsets).tolist(),
            persons=self.persons,
            origin=origins(frames, observed, offsets, self.topology.root).tolist(),
            present=np.logical_or.reduceat(seen.any(-1), offsets[:-1], axis=0).tolist(),
            bridged=np.flatnonzero(observed & ~seen).tolist(),
            crc=crc,
        )
        self._digest.update(joints.data)
        self.blocks.append(block)
        self.frames += len(joints)
        return block

    def finish(self, columns: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> str:
        """Write headers, table and description.

        Args:
            columns: one value a clip, `clip` and `label` among them.
            meta: `name`, `source`, `fps`, `class_names`, ...

        Returns:
            the fingerprint, that of `skeletons.clips.fingerprint`.
        """
        lengths = [n for block in self.blocks for n in block.lengths]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._digest.update(offsets.data)
        self._digest.update(np.ascontiguousarray(columns["label"]).data)
        fingerprint = self._digest.hexdigest()[:16]
        for key, file in self.files.items():
            file.seek(0)
            file.write(self._header(key))
            file.flush()
            os.fsync(file.fileno())
        self.close()
        count, joints = len(lengths), len(self.topology)
        present = np.zeros((count, self.persons), bool)
        bridged, clip, frame = [], 0, 0
        for block in self.blocks:
            size = (sum(block.lengths), block.persons, joints)
            present[clip : clip + len(block.lengths), : block.persons] = block.present
            f, p, j = np.unravel_index(np.array(block.bridged, np.int64), size)
            bridged.append(((f + frame) * self.persons + p) * joints + j)
            clip, frame = clip + len(block.lengths), frame + size[0]
        np.savez(
            self.folder / "table.npz",
            offsets=offsets,
            origin=np.array([o for block in self.blocks for o in block.origin], np.float32).reshape(-1, 3),
            present=present,
            bridged=np.concatenate([np.empty(0, np.int64), *bridged]),
            # NumPy's stubs take any keyword for `allow_pickle`, a bool.
            **{f"column_{k}": v for k, v in columns.items()},  # type: ignore[arg-type]
        )
        about = dict(
            meta,
            version=VERSION,
            joints=list(self.topology.joints),
            parents=list(self.topology.parents),
            topology=self.topology.name,
            fingerprint=fingerprint,
        )
        (self.folder / "meta.json").write_text(json.dumps(about, indent=1))
        return fingerprint

    # --- files ---

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npy"

    def _there(self) -> list[str]:
        """The files that this store has."""
        return [key for key in KINDS if key in self.files or self._path(key).is_file()]

    def _shape(self, key: str) -> tuple[int, ...]:
        return (self.persons, len(self.topology), *((3,) if key == "frames" else ()))

    def _row(self, key: str) -> int:
        """Bytes of a frame."""
        return int(np.prod(self._shape(key))) * KINDS[key].itemsize

    def _header(self, key: str) -> bytes:
        head = io.BytesIO()
        form = {"descr": np.lib.format.dtype_to_descr(KINDS[key]), "fortran_order": False}
        np.lib.format.write_array_header_1_0(head, {**form, "shape": (self.frames, *self._shape(key))})
        return head.getvalue()

    def _begin(self) -> None:
        self._digest = hashlib.sha256(str(VERSION).encode())

    def _file(self, key: str) -> io.BufferedRandom:
        """The open file, at its end; a new one begins with its header and what frames before it lack."""
        if key not in self.files:
            new = not self._path(key).is_file()
            self.files[key] = self._path(key).open("w+b" if new else "r+b")
            if new:
                self.files[key].write(self._header(key))
                for start in range(0, self.frames, CHUNK):
                    self.files[key].write(bytes([UNKNOWN]) * (min(CHUNK, self.frames - start) * self._row(key)))
        return self.files[key]

    def _cut(self) -> None:
        """Cut off whatever lies behind the last whole block."""
        for key in {*self._there(), "frames", "observed"}:
            self._file(key).truncate(len(self._header(key)) + self.frames * self._row(key))
            self._file(key).seek(0, os.SEEK_END)

    def _padded(self, array: np.ndarray) -> np.ndarray:
        """With empty persons behind those that are there."""
        missing = self.persons - array.shape[1]
        return np.pad(array, ((0, 0), (0, missing), *((0, 0),) * (array.ndim - 2))) if missing else array

    def _read(self, key: str, first: int, count: int) -> np.ndarray:
        """(frame, person, joint, ...) from disk; shorter where the file ends."""
        offset = len(self._header(key)) + first * self._row(key)
        if not self._path(key).is_file() or self._path(key).stat().st_size < offset + count * self._row(key):
            return np.empty((0, *self._shape(key)), KINDS[key])
        flat = np.fromfile(self._path(key), KINDS[key], count * self._row(key) // KINDS[key].itemsize, offset=offset)
        return flat.reshape(count, *self._shape(key))

    def _take_up(self, block: Block) -> bool:
        """Whether a block of an earlier writer is on disk as it was written; it then counts as appended."""
        count = sum(block.lengths)
        parts = {key: self._read(key, self.frames, count) for key in block.crc}
        for key, crc in block.crc.items():
            part = np.ascontiguousarray(parts[key][:, : block.persons])
            if len(part) != count or zlib.crc32(part.data.cast("B")) != crc:
                return False
        self._digest.update(self._original(parts["frames"], parts["observed"], block).data)
        self.blocks.append(block)
        self.frames += count
        return True

    def _original(self, frames: np.ndarray, observed: np.ndarray, block: Block) -> np.ndarray:
        """Joints as they were given to `add`."""
        where = np.unravel_index(np.array(block.bridged, np.int64), (len(frames), block.persons, len(self.topology)))
        observed[where] = False
        return np.where(observed[..., None], frames, np.float32(0))

    def _widen(self, persons: int) -> None:
        """Make room for more persons: every file is written again, and the digest is taken anew."""
        self.close()
        before, there = self.persons, self._there()
        for key in there:
            with self._path(key).with_suffix(".wide").open("wb") as file:
                self.persons = persons
                file.write(self._header(key))
                for start in range(0, self.frames, CHUNK):
                    self.persons = before
                    part = self._read(key, start, min(CHUNK, self.frames - start))
                    self.persons = persons
                    file.write(np.ascontiguousarray(self._padded(part)).data.cast("B"))
            self.persons = before
        for key in there:
            self._path(key).with_suffix(".wide").replace(self._path(key))
        self.persons = persons
        blocks, self.blocks, self.frames = self.blocks, [], 0
        self._begin()
        assert all(self._take_up(block) for block in blocks)
        self._cut()
