"""Which cost the cells of a table share: clips seen, floating-point operations, or seconds.

`budget=clips` leaves every cell's length as it is configured (`setting=matched` gives all of them the same clips).
`budget=flops` and `budget=seconds` change the length of every cell but the reference one, so that its whole training
costs what the reference cell's does. Seconds are measured once on this machine, alone, and kept in
`runs/throughput.json`, so that a later call makes the same plan.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch

from methods.base import method_class
from methods.trainer import batch_clips, optimizer_for, steps_in
from skeletons.clips import Clips
from skeletons.errors import unknown
from skeletons.randomness import Draws
from sweeps.config import Config
from sweeps.costs import count_views
from sweeps.execute import make_method, make_sampler
from sweeps.identity import data_of, device_of, digest, pretraining_identity
from sweeps.records import read_json, write_json

BUDGETS = ("clips", "flops", "seconds")


def equalise(cells: dict[str, Config], reference: Config) -> dict[str, Config]:
    """The cells with lengths such that each costs what `reference` does.

    Raises:
        BadInput: an unknown budget.
    """
    budget = reference.budget
    if budget not in BUDGETS:
        raise unknown("budget", budget, BUDGETS)
    if budget == "clips":
        return cells
    each = {"flops": step_flops, "seconds": step_seconds}[budget]
    train = reference.train
    steps = steps_in(train.length, train.batch, len(data_of(reference)[1].train))
    whole = steps * each(reference)

    def same_cost(config: Config) -> Config:
        if config == reference or not method_class(config.method.name).trains:
            return config
        own, clips = config.train, len(data_of(config)[1].train)
        before = max(1, steps_in(own.length, own.batch, clips))

        def share(length: str) -> str:
            """The same share of the run, which may have been longer or shorter."""
            return length if length.endswith(" run") else f"{steps_in(length, own.batch, clips) / before} run"

        length, warmup, freeze = max(1, round(whole / each(config))), share(own.warmup), share(own.freeze_last)
        return replace(config, train=replace(own, length=f"{length} steps", warmup=warmup, freeze_last=freeze))

    return {cell: same_cost(config) for cell, config in cells.items()}


def step_flops(config: Config) -> float:
    """FLOPs of a training step on this data: its joints, and its mean number of persons, absent ones included where
    the method encodes them (`method.persons=mamp`)."""
    data, part = data_of(config)
    persons = float(data.present[part.train].sum(1).mean())
    if getattr(config.method, "persons", "present") == "mamp":
        persons = float(data.present.shape[1])
    one, two = (sum(count_views(config, data.topology, n).flops.values()) for n in (1, 2))
    return one + (persons - 1) * (two - one)


def step_seconds(config: Config, rounds: int = 7) -> float:
    """Median seconds of a training step on this machine, measured once and then remembered."""
    data, part = data_of(config)
    key = throughput_key(config, data)
    path = Path(config.runs) / "throughput.json"
    known = read_json(path) or {}
    if key not in known:
        known[key] = {"method": config.method.name, "seconds": _measured(config, data, part.train, rounds)}
        write_json(path, known)
    return known[key]["seconds"]


def throughput_key(config: Config, data: Clips) -> str:
    """What the time of a step depends on: all that the encoder's identity has, but the length and the seed."""
    once = replace(config.train, length="1 steps", warmup="1 steps", freeze_last="0 steps")
    timed = replace(config, seeds=[0], train=once)
    return digest(pretraining_identity(timed, data, data_of(config)[1])[1])


def _measured(config: Config, data: Clips, rows: np.ndarray, rounds: int) -> float:
    torch.set_num_threads(config.threads)
    step, seconds = training_step(config, data, rows), []
    for _ in range(rounds + 2):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return median(seconds[2:])


def training_step(config: Config, data: Clips, rows: np.ndarray) -> Callable[[], None]:
    """A call that does one whole training step, as the trainer does it, to be timed.

    Args:
        rows: training clips.
    """
    device, train = device_of(config), config.train
    method, sampler = make_method(config, data, len(rows), device), make_sampler(config, data, rows, device)
    optimizer, number = optimizer_for(method, train), itertools.count()

    def step() -> None:
        i = next(number)
        draws = Draws(0, i, device=device)
        views = sampler(batch_clips(i, train.batch, len(rows), 0).to(device), draws)
        method.loss(views, draws)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), train.clip_norm or math.inf)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.after_step(0.5)
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    return step
