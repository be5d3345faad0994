"""Clips per second of a whole training step of each method, at the size of scale=demo and of scale=small."""

from __future__ import annotations

import torch

from methods.base import all_methods
from methods.trainer import batch_clips, optimizer_for
from skeletons.randomness import Draws
from sweeps.config import compose
from sweeps.execute import make_method, make_sampler
from sweeps.plan import data_of
from tests.benchmarks.alternating import seconds


def run(quick: bool = False) -> list[dict]:
    """Rows for every method that trains; one thread, batch 64."""
    torch.set_num_threads(1)
    rows = []
    for scale in ("demo",) if quick else ("demo", "small"):
        steps = {}
        for name, cls in all_methods().items():
            if cls.trains:
                steps[name] = _step(name, scale)
        for name, taken in seconds(steps, 3 if quick else 8).items():
            rows.append(
                {"benchmark": f"training step, {name}, scale={scale}", "measure": "clips/s", "value": 64 / taken}
            )
    return rows


def _step(name: str, scale: str):
    config = compose([f"method={name}", f"scale={scale}", "train.batch=64"])
    data, part = data_of(config)
    method = make_method(config, data, len(part.train), "cpu")
    sampler = make_sampler(config, data, part.train, "cpu")
    optimizer = optimizer_for(method, config.train)
    number = iter(range(10**6))

    def step() -> None:
        i = next(number)
        draws = Draws(0, i)
        views = sampler(batch_clips(i, 64, len(part.train), 0), draws)
        method.loss(views, draws)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 3.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.after_step(0.5)

    return step
