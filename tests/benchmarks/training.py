"""Clips per second of a whole training step of each method, at the size of scale=demo and of scale=small."""

from __future__ import annotations

import torch

from methods.base import all_methods
from sweeps.budget import training_step
from sweeps.composing import compose
from sweeps.identity import data_of
from tests.benchmarks.alternating import seconds


def run(quick: bool = False) -> list[dict]:
    """Rows for every method that trains; one thread, batch 64."""
    torch.set_num_threads(1)
    rows = []
    for scale in ("demo",) if quick else ("demo", "small"):
        steps = {}
        for name, cls in all_methods().items():
            if cls.trains:
                config = compose([f"method={name}", f"scale={scale}", "train.batch=64"])
                data, part = data_of(config)
                steps[name] = training_step(config, data, part.train)
        for name, taken in seconds(steps, 3 if quick else 8).items():
            rows.append(
                {"benchmark": f"training step, {name}, scale={scale}", "measure": "clips/s", "value": 64 / taken}
            )
    return rows
