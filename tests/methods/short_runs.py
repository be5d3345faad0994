"""Short training runs of a small method, stopped on demand, and what compares two of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from methods.base import build
from methods.trainer import TrainConfig, train

SHORT = TrainConfig(length="12 steps", batch=4, lr=1e-3, warmup="0.25 run", log_every=2, evaluations=3)
OFTEN = dataclasses.replace(SHORT, checkpoint_seconds=0)


class Stopped(Exception):
    pass


def runner(parts: Callable[..., Any], sampler: Callable[..., Any]) -> Callable[..., Any]:
    """Trains a small method from the seed's weights; stops after the metrics of step `stop`."""

    def make(name="mamp", config=SHORT, folder=None, stop=None, seed=0, **kwargs):
        torch.manual_seed(seed)
        model = build(parts(name, backbone={"drop_path": 0.2}))

        def told(step, steps, metrics):
            if step == stop:
                raise Stopped

        try:
            lines = train(model, sampler(model), config, seed, folder, progress=told, **kwargs)
        except Stopped:
            return model, None
        return model, lines

    return make


def same_weights(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def without_speed(lines):
    return [{k: v for k, v in line.items() if k not in ("clips_per_second", "time")} for line in lines]
