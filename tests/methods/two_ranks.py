"""Trains small methods alone and as one of two ranks, and says how far apart the weights end."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from methods.base import Parts, build
from methods.trainer import TrainConfig, train
from skeletons.augment import Augmentation, AugmentConfig
from skeletons.clips import Clips
from skeletons.randomness import Draws
from skeletons.sampling import Batch, ClipTensors, Sampler

RANKS = 2
SHORT = TrainConfig(length="5 steps", batch=8, lr=1e-3, warmup="1 steps", log_every=1, evaluations=0)


@dataclass
class Case:
    """A small training.

    Attributes:
        double: in float64, where only the order of sums and no rounding is left to differ.
    """

    parts: Parts
    clips: Clips
    train: TrainConfig = field(default_factory=lambda: SHORT)
    double: bool = False


class InDouble(Sampler):
    """Views as float64."""

    def __call__(self, clip: Tensor, draws: Draws) -> dict[str, Batch]:
        torch.set_default_dtype(torch.float32)  # the store's
        views = super().__call__(clip, draws)
        torch.set_default_dtype(torch.float64)
        return {group: replace(view, joints=view.joints.double()) for group, view in views.items()}


def trained(case: Case) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Weights and metrics at the end, of a process alone or of a rank."""
    store = ClipTensors(case.clips)
    torch.set_default_dtype(torch.float64 if case.double else torch.float32)
    try:
        torch.manual_seed(0)
        method = build(case.parts)
        wanted = (method.crops, method.local_views, method.one_person, method.uses_labels)
        augmentation = Augmentation(AugmentConfig(), case.clips.topology)
        kind = InDouble if case.double else Sampler
        lines = train(method, kind(store, case.parts.views, augmentation, *wanted), case.train, seed=0)
        return method.state_dict(), lines
    finally:
        torch.set_default_dtype(torch.float32)


def in_two_ranks(task: Callable[..., Any], given: Any, folder: Path) -> list[Any]:
    """What `task(given, join)` returns in each of two processes that are ranks from when they call `join`."""
    context = multiprocessing.get_context("spawn")
    answers = [context.Pipe(duplex=False) for _ in range(RANKS)]
    processes = [
        context.Process(target=_rank, args=(rank, folder / "store", task, given, answers[rank][1]), daemon=True)
        for rank in range(RANKS)
    ]
    for process, (_, theirs) in zip(processes, answers, strict=True):
        process.start()
        theirs.close()  # so that a process that dies ends the wait below
    found = [ours.recv() for ours, _ in answers]
    for process in processes:
        process.join()
    return found


def _rank(rank: int, store: Path, task: Callable[..., Any], given: Any, answer: Any) -> None:
    torch.set_num_threads(1)

    def join() -> None:
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS, timeout=timedelta(seconds=60)
        )

    answer.send(task(given, join))
    dist.destroy_process_group()


def apart(cases: Mapping[str, Case], join: Callable[[], None]) -> dict[str, tuple[float, float, list[float]]]:
    """Of each case: the largest difference in a weight and in a metric between this rank and a process alone."""
    alone = {name: trained(case) for name, case in cases.items()}
    join()
    found = {}
    for name, case in cases.items():
        (one, one_lines), (both, both_lines) = alone[name], trained(case)
        weights = {key: float((one[key].double() - both[key].double()).abs().max()) for key in one}
        metrics = [abs(a["loss"] - b["loss"]) for a, b in zip(one_lines, both_lines, strict=True)]
        found[name] = max(weights.values()), max(metrics), sorted(weights.items(), key=lambda kv: -kv[1])[:3]
    return found
