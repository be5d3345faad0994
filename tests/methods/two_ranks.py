"""Small trainings, and losses, alone and on two ranks: what test_distributed.py compares. Ranks are processes that talk
through gloo and meet in a file."""

from __future__ import annotations

import hashlib
import multiprocessing
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from methods.base import Method, Parts, build
from methods.trainer import TrainConfig, train
from skeletons.augment import Augmentation, AugmentConfig
from skeletons.clips import Clips
from skeletons.randomness import Draws
from skeletons.sampling import Batch, ClipTensors, Sampler

RANKS = 2
# SGD: Adam divides gradients by their size. Where the true one is 0 (a key's bias, a bias before a batch norm) that
# makes whole steps of rounding errors, along directions in which the loss does not change.
SHORT = TrainConfig(
    length="4 steps", batch=8, lr=1e-2, warmup="1 steps", optimizer="sgd", log_every=1, evaluations=0, clip_norm=1.0
)


@dataclass
class Case:
    """A small training.

    Attributes:
        double: in float64, where hardly any rounding is left to differ.
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


def trained(case: Case, **given: Any) -> tuple[Method, list[dict[str, float]]]:
    """The method and its metrics at the end, of a process alone or of a rank."""
    store = ClipTensors(case.clips)
    torch.set_default_dtype(torch.float64 if case.double else torch.float32)
    try:
        torch.manual_seed(0)
        method = build(case.parts)
        wanted = (method.crops, method.local_views, method.one_person, method.uses_labels, method.augments)
        augmentation = Augmentation(AugmentConfig(), case.clips.topology)
        sampler = (InDouble if case.double else Sampler)(store, case.parts.views, augmentation, *wanted)
        return method, train(method, sampler, case.train, seed=0, **given)
    finally:
        torch.set_default_dtype(torch.float32)


def in_two_ranks(task: Callable[[Any, int, Callable[[], None]], Any], given: Any, folder: Path) -> list[Any]:
    """What `task(given, rank, join)` returns in each of two processes, which are ranks once they have called `join`."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(RANKS)]
    processes = [
        context.Process(target=_rank, args=(rank, folder / "store", task, given, pipes[rank][1]), daemon=True)
        for rank in range(RANKS)
    ]
    for process, (_, theirs) in zip(processes, pipes, strict=True):
        process.start()
        theirs.close()  # so that a process that dies ends the wait below
    try:
        return [pickle.loads(ours.recv_bytes()) for ours, _ in pipes]
    finally:
        for process in processes:
            process.join(20)
            process.kill()


def _rank(rank: int, store: Path, task: Callable[..., Any], given: Any, answer: Any) -> None:
    torch.set_num_threads(1)

    def join() -> None:
        wait = timedelta(seconds=300)
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS, timeout=wait)

    answer.send_bytes(pickle.dumps(task(given, rank, join)))  # not `send`, which would share memory that ends here
    dist.destroy_process_group()


@dataclass
class Found:
    """What a rank saw of a case.

    Attributes:
        weight, metric: largest difference from a process alone, in a weight or buffer and in a logged part of the loss
            (relative); rank 0 only.
        digest: of all weights and buffers.
    """

    digest: str
    weight: float = 0.0
    metric: float = 0.0


def digest(method: Method) -> str:
    weights = method.state_dict()
    return hashlib.sha256(b"".join(weights[key].numpy().tobytes() for key in sorted(weights))).hexdigest()


def compared(cases: Mapping[str, Case], rank: int, join: Callable[[], None]) -> dict[str, Found]:
    """Train every case alone (in one of the processes), then on both ranks."""
    alone = {name: trained(case) for name, case in cases.items()} if rank == 0 else {}
    join()
    found = {}
    for name, case in cases.items():
        method, lines = trained(case)
        found[name] = Found(digest(method))
        if rank == 0:
            one, one_lines = alone[name]
            weights = zip(one.state_dict().values(), method.state_dict().values(), strict=True)
            found[name].weight = max(float((a.double() - b.double()).abs().max()) for a, b in weights)
            parts = [(a["loss"], b["loss"]) for a, b in zip(one_lines, lines, strict=True)]
            found[name].metric = max(abs(a - b) / abs(a) for a, b in parts)
    return found


class Stopped(Exception):
    pass


def stopped_and_continued(case: Case, folder: Path) -> str:
    """Digest of the weights after a run that both ranks broke off in the middle and took up again."""

    def stop(step: int, steps: int, metrics: dict[str, float]) -> None:
        if step == 3:
            raise Stopped

    often = replace(case, train=replace(case.train, checkpoint_seconds=0.0))
    try:
        trained(often, folder=folder, progress=stop)
    except Stopped:
        dist.barrier()  # rank 0 has written
    assert (folder / "checkpoint.pt").is_file()
    return digest(trained(often, folder=folder)[0])
