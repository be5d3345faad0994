"""A batch of random crops in one gather and one interpolation, against a loop over clips of the same arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from skeletons.randomness import Draws
from skeletons.sampling import ClipTensors, resample
from skeletons.sources import DataConfig, open_clips
from tests.benchmarks.alternating import compare, seconds


def one_by_one(
    store: ClipTensors, clip: Tensor, begin: Tensor, length: Tensor, frames: int, person: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What a data loader's workers do: cut and interpolate clip by clip, then stack."""
    joints, observed = [], []
    everyone = slice(None)
    who = [everyone] * len(clip) if person is None else [slice(p, p + 1) for p in person.tolist()]
    for c, b, n, p in zip(clip.tolist(), begin.tolist(), length.tolist(), who):
        start = int(store.start[c])
        crop = store.frames[start + b : start + b + n, p]
        position = (n - 1) * torch.arange(frames)
        low, weight = position // (frames - 1), (position % (frames - 1) / (frames - 1))[:, None, None, None]
        high = (low + 1).clamp(max=n - 1)
        view = torch.lerp(crop[low], crop[high], weight)
        joints.append(view.transpose(0, 1))
        seen = store.observed[start + b : start + b + n, p]
        observed.append((seen[low] & (seen[high] | (weight[..., 0] == 0))).transpose(0, 1))
    return torch.stack(joints), torch.stack(observed)


# Views of a clip and frames of each: one with all persons, and SLiM's ten of one person.
PLANS = {"64 frames, 2 persons": {64: 1}, "SLiM's views, 1 person": {64: 2, 32: 4, 16: 4, 8: 4}}


def run(quick: bool = False) -> list[dict]:
    """Rows for batches of 128 and 768 clips."""
    torch.set_num_threads(1)
    store = ClipTensors(open_clips(DataConfig()))
    rows = []
    for plan, views in PLANS.items():
        for size in (128, 768):
            asked = [_crops(store, size * count, frames, "1 person" in plan) for frames, count in views.items()]
            for one in asked:
                pairs = zip(one_by_one(*one), resample(*one))
                assert all(torch.equal(a, b) for a, b in pairs), "the loop must do the same arithmetic"
            times = seconds(
                {
                    "batched": lambda a=asked: [resample(*one) for one in a],
                    "one clip at a time": lambda a=asked: [one_by_one(*one) for one in a],
                },
                3 if quick else 12,
            )
            rows += compare(f"sampling {size} clips, {plan}", times, "batched", "one clip at a time")
    return rows


def _crops(store: ClipTensors, size: int, frames: int, one_person: bool) -> tuple:
    """Arguments of `resample`: random crops of random clips."""
    draws = Draws("bench", size, frames)
    clip = (draws.uniform(size) * len(store)).long()
    length = (store.length[clip] * (0.5 + 0.5 * draws.uniform(size))).long().clamp(min=8)
    begin = (draws.uniform(size) * (store.length[clip] - length + 1)).long()
    return store, clip, begin, length, frames, torch.zeros_like(clip) if one_person else None
