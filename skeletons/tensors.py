"""Clips as tensors on one device, and views gathered from them.

The store lies on the device the model is on, its clips centred once; where memory is too small for it, its frames stay
on disk and are centred as they are read. On the CPU, gathers and interpolation run in blocks that stay in its cache,
three to six times faster than whole batches that travel to memory and back between them.
"""

from __future__ import annotations

import copy
import os
from mmap import mmap
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from skeletons.clips import Clips

BLOCK = 2048  # rows (one person in one frame) that are resampled together on the CPU


def free_memory() -> int:
    """Bytes that the machine can still give."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:  # no Linux
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def fits(clips: Clips, device: torch.device) -> bool:
    """Whether the frames take at most half of the free memory; those for a GPU go there in any case."""
    return device.type != "cpu" or clips.frames.nbytes + clips.observed.nbytes <= free_memory() // 2


def _on_disk(array: np.ndarray) -> Tensor:
    """A mapped array as a tensor: pages are read when they are asked for. It is mapped anew, because torch does not
    take what cannot be written to; what is written would stay private."""
    if isinstance(array, np.memmap) and isinstance(array.base, mmap) and array.filename is not None:
        array = np.memmap(array.filename, array.dtype, "c", array.offset, array.shape)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


class ClipTensors:
    """A clip store as tensors on one device.

    Args:
        clips: the store.
        device: where to put it.
        index: clips to take (all by default); rows of this object are numbered 0... in that order.
        mapped: leave the frames on disk; by default where they would not fit into half of the free memory. What
            `resample` gives is the same, bit for bit.

    Attributes:
        frames: float32 (frame, person, joint, 3), metres, centred on each clip's origin; absent persons zero. Mapped
            ones are as the file has them, and centred when they are read.
        stream: what `centre_view` and `Sampler` make of them.
    """

    def __init__(
        self,
        clips: Clips,
        device: torch.device | str = "cpu",
        index: np.ndarray | None = None,
        mapped: bool | None = None,
    ):
        self.topology, self.stream, self.device = clips.topology, clips.stream, torch.device(device)
        rows = np.arange(len(clips)) if index is None else index
        lengths = torch.from_numpy(clips.lengths).to(self.device)
        origin, present = (torch.from_numpy(t).to(self.device) for t in (clips.origin, clips.present))
        self.mapped = not fits(clips, self.device) if mapped is None else mapped
        if self.mapped:
            self.frames, self.observed = _on_disk(clips.frames), _on_disk(clips.observed)
        else:
            # A private copy: np.memmap slices are read lazily, and centring must not write to the file.
            self.frames = torch.from_numpy(np.array(clips.frames)).to(self.device)
            self.frames.sub_(origin.repeat_interleave(lengths, 0)[:, None, None])
            self.frames.mul_(present.repeat_interleave(lengths, 0)[:, :, None, None])
            self.observed = torch.from_numpy(np.array(clips.observed)).to(self.device)
        self.start = torch.from_numpy(clips.offsets[:-1][rows]).to(self.device)
        self.length = torch.from_numpy(clips.lengths[rows]).to(self.device)
        self.origin, self.present = origin[torch.from_numpy(rows)], present[torch.from_numpy(rows)]
        self.labels = torch.from_numpy(clips.labels[rows]).to(self.device)

    def __len__(self) -> int:
        return len(self.start)

    def take(self, rows: Int[Tensor, " clip"]) -> ClipTensors:
        """A store of these clips alone, over the same frames in memory; its rows are numbered 0... in their order."""
        taken, rows = copy.copy(self), rows.to(self.device)
        for name in ("start", "length", "origin", "present", "labels"):
            setattr(taken, name, getattr(self, name)[rows])
        return taken


def resample(
    store: ClipTensors,
    clip: Int[Tensor, " row"],
    begin: Int[Tensor, " row"],
    length: Int[Tensor, " row"],
    frames: int,
    person: Int[Tensor, " row"] | None = None,
) -> tuple[Float[Tensor, "row person time joint 3"], Bool[Tensor, "row person time joint"]]:
    """Crops `[begin, begin + length)` of clips, resampled linearly to `frames` frames.

    Frame t of the result lies at begin + (length - 1) t / (frames - 1): both ends are kept, a crop of one frame is
    repeated. (MAMP's feeder interpolates with `align_corners=False`, at most a third of a frame beside this.) A result
    frame is observed where both source frames it lies between are.

    Args:
        person: take this person of each row only; all persons by default.
    """
    steps = max(frames - 1, 1)
    position = (length - 1)[:, None] * torch.arange(frames, device=store.device)  # in 1/steps of a frame: exact
    low, weight = position // steps, position % steps / steps
    persons, count = store.frames.shape[1:3]
    everyone = torch.arange(persons, device=store.device).expand(len(clip), -1)
    who = everyone if person is None else person[:, None]
    shape = (len(clip), who.shape[1], frames)
    # One row for each person of each frame: index_select copies rows whole, several times faster than indexing.
    frame = (store.start[clip] + begin)[:, None] + low
    first = (frame[:, None] * persons + who[..., None]).flatten()
    weight = weight[:, None].expand(shape).reshape(-1, 1)
    last = first + persons * (weight[:, 0] != 0)
    joints, observed = store.frames.view(-1, 3 * count), store.observed.view(-1, count)
    # Mapped frames are as the file has them: where each row is centred, and whether it is anybody.
    origin = store.origin[clip][:, None, None].expand(*shape, 3).reshape(-1, 1, 3)
    there = store.present[clip].gather(1, who)[..., None].expand(shape).reshape(-1, 1, 1)
    out = torch.empty(len(first), 3 * count, device=store.device)
    seen = torch.empty(len(first), count, dtype=torch.bool, device=store.device)
    block = max(1, min(BLOCK, len(first)) if store.device.type == "cpu" else len(first))
    after, then = torch.empty_like(out[:block]), torch.empty_like(seen[:block])
    for at in range(0, len(first), block):
        here = slice(at, at + block)
        x, s = out[here], seen[here]
        torch.index_select(joints, 0, first[here], out=x)
        y = torch.index_select(joints, 0, last[here], out=after[: len(x)])
        if store.mapped:
            for read in (x, y):
                read.view(-1, count, 3).sub_(origin[here]).mul_(there[here])
        x.lerp_(y, weight[here])
        torch.index_select(observed, 0, first[here], out=s)
        s &= torch.index_select(observed, 0, last[here], out=then[: len(s)])
    return out.view(*shape, count, 3), seen.view(*shape, count)
