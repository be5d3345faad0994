"""Pieces of work and their files, made by hand: what comes after training is tested without any."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from methods.base import all_methods
from methods.checkpoint import save_encoder
from methods.encoder import EncoderConfig, make_encoder
from skeletons.topology import KINECT_V2
from sweeps.composing import to_yaml
from sweeps.config import Config
from sweeps.identity import Judgement, digest
from sweeps.plan import Work
from sweeps.records import Records, write_json, write_text
from sweeps.run import write_plan

SPEED = {"clips_per_second": 10.0, "machine": "x86_64", "torch": "2.13.0"}
SMALL = EncoderConfig(width=16, depth=1, heads=2, patch=8)


def work(cell: str, config: Config | None = None, seed: int = 0, judged: str = "retrieval") -> Work:
    """A piece of an experiment that is called "single runs"."""
    config = replace(config or Config(method=all_methods()["slim"].Config()), seeds=[seed])
    judgement = Judgement(digest([cell, seed, judged]), judged, "mean", heading="1-NN")
    return Work(cell, "xsub", seed, config, digest(["encoder", cell, seed]), {judged: judgement})


def done(one: Work, records: Records, steps: int = 3, at: float = 1_700_000_000.0) -> None:
    """Write what a complete piece leaves: a curve with a step each second, an encoder, a result."""
    folder = records.run(one.pretraining)
    write_text(folder / "config.yaml", to_yaml(one.config))
    lines = [{"step": i + 1, "loss": 1.0 / (i + 1), "time": at + i} for i in range(steps)]
    lines[-1]["knn"] = 50.0
    write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    torch.manual_seed(one.seed)
    save_encoder(folder / "encoder.safetensors", make_encoder(SMALL, KINECT_V2, 16))
    told = {"commit": "abcdefabcdef", "dirty": False, "finished": "2026-11-21 10:00:00"}
    write_json(folder / "run.json", {"identity": one.pretraining, "method": "slim", "seconds": 60.0, **SPEED, **told})
    for key, judgement in one.judgements.items():
        result = {"protocol": key, "top1": 75.0, "value": 75.0, "correct": ["1110"], "data": "demo", "split": "xsub"}
        result |= {"fingerprint": "f", "pooling": "mean", "recipe": "r", "selection": "s", "train_clips": 4}
        write_json(records.result_file(one.pretraining, judgement.identity), {**result, "test_clips": 4, **told})


def plan(name: str, works: list[Work], records: Records) -> Path:
    """Write the plan of these works."""
    write_plan(records, name, Config(), works, ["method=slim"])
    return records.plan_file(name)
