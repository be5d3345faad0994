"""A batch of random crops in one gather and one interpolation, against a loop over clips of the same arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from skeletons.randomness import Draws
from skeletons.sampling import ClipTensors, resample
from skeletons.sources import DataConfig, open_clips
from tests.benchmarks.alternating import compare, seconds


def one_by_one(store: ClipTensors, clip: Tensor, begin: Tensor, length: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """What a data loader's workers do: cut and interpolate clip by clip, then stack."""
    joints, observed = [], []
    for c, b, n in zip(clip.tolist(), begin.tolist(), length.tolist()):
        start = int(store.start[c])
        crop = store.frames[start + b : start + b + n]
        position = (n - 1) * torch.arange(frames)
        low, weight = position // (frames - 1), (position % (frames - 1) / (frames - 1))[:, None, None, None]
        high = (low + 1).clamp(max=n - 1)
        view = torch.lerp(crop[low], crop[high], weight)
        joints.append(view.transpose(0, 1))
        seen = store.observed[start + b : start + b + n]
        observed.append((seen[low] & (seen[high] | (weight[..., 0] == 0))).transpose(0, 1))
    return torch.stack(joints), torch.stack(observed)


def run(quick: bool = False) -> list[dict]:
    """Rows for batches of 128 and 768 views of 64 frames."""
    torch.set_num_threads(1)
    store = ClipTensors(open_clips(DataConfig()))
    rows = []
    for size in (128, 768):
        draws = Draws("bench", size)
        clip = (draws.uniform(size) * len(store)).long()
        length = (store.length[clip] * (0.5 + 0.5 * draws.uniform(size))).long().clamp(min=8)
        begin = (draws.uniform(size) * (store.length[clip] - length + 1)).long()
        pairs = zip(one_by_one(store, clip, begin, length, 64), resample(store, clip, begin, length, 64))
        assert all(torch.equal(a, b) for a, b in pairs), "the loop must do the same arithmetic"
        times = seconds(
            {
                "batched": lambda c=clip, b=begin, n=length: resample(store, c, b, n, 64),
                "one clip at a time": lambda c=clip, b=begin, n=length: one_by_one(store, c, b, n, 64),
            },
            5 if quick else 20,
        )
        rows += compare(f"sampling {size} x 64 frames, 2 persons", times, "batched", "one clip at a time")
    return rows
