"""Records of a small ablation, for tests of pictures across cells: three cells and the floors, three seeds each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from skeletons.topology import KINECT_V1
from sweeps.composing import compose, to_yaml
from sweeps.config import Config
from sweeps.records import Records, write_json, write_text

CELLS = {"no-global": 0.6, "limited-global": 0.7, "dual": 0.8}  # and how often each is right
FLOORS = {"raw": 0.4, "untrained": 0.5}
SEEDS, CLIPS, BATCH, STEPS = (0, 1, 2), 50, 16, 30
PROTOCOLS = ("linear", "semi:0.01", "semi:0.1")
LINES = [
    {"step": 10, "loss": 4.0},
    {"step": 15, "knn": 30.0, "feature_rank": 5.0},
    {"step": 30, "loss": 2.0, "knn": 40.0},
]


def small(cell: str) -> Config:
    """The configuration of a cell: the wider, the later it comes."""
    width = 8 * (1 + list(CELLS).index(cell)) if cell in CELLS else 8
    method = "slim" if cell in CELLS else "untrained"
    line = [f"method={method}", f"backbone.width={width}", "backbone.heads=2", "backbone.depth=1", "views.frames=16"]
    return compose([*line, f"train.batch={BATCH}", "heads.prototypes=8", "heads.hidden=8", "heads.bottleneck=8"])


def right_of(cell: str, protocol: str, seed: int) -> np.ndarray:
    """bool (draw, clip): what was right, as the results have it."""
    rng = np.random.default_rng([len(cell), PROTOCOLS.index(protocol), seed])
    chance = {**CELLS, **FLOORS}[cell] - 0.1 * PROTOCOLS.index(protocol)
    return rng.random((2 if protocol.startswith("semi") else 1, CLIPS)) < chance


def ablation(folder: Path, seeds: tuple[int, ...] = SEEDS, name: str = "stm", source: str = "") -> Records:
    """A plan `plan`; of raw coordinates there is `linear` alone."""
    found, works = Records(folder), []
    configs = {cell: small(cell) for cell in (*CELLS, "untrained")}
    for cell in ("raw", "untrained", *CELLS):
        for seed in seeds[:1] if cell == "raw" else seeds:
            identity = "raw" if cell == "raw" else f"{cell}{seed}"
            judged = {p: p.replace(":", "") for p in (PROTOCOLS[:1] if cell == "raw" else PROTOCOLS)}
            work = {"cell": cell, "split": "xsub", "seed": seed, "pretraining": identity, "judgements": judged}
            works.append(work)
            for protocol, key in judged.items():
                result(found, work, key, protocol.partition(":")[0], right_of(cell, protocol, seed))
            if cell != "raw":
                trained(found, identity, configs[cell], seed)
    plan = {"name": "plan", "command": f"python sweeps/run.py ablation={name}", "ablation": name, "title": "Masking"}
    plan |= {"source": source or "SLiM (arXiv 2603.10648), Table 6", "differs": {"dual": "global tube, local tube"}}
    plan |= {"labels": {p: p for p in PROTOCOLS}, "reference": "dual", "data": "demo", "stream": "joint"}
    write_json(found.plan_file("plan"), plan | {"scale": "small", "setting": "paper", "written": 1.0, "works": works})
    return found


def result(found: Records, work: dict[str, Any], key: str, protocol: str, right: np.ndarray) -> None:
    """Write a result."""
    about = {"data": "demo", "split": "xsub", "seed": work["seed"], "protocol": protocol, "finished": "2026-11-21"}
    about |= {"train_clips": 40, "test_clips": CLIPS, "top1": 100 * float(right.mean())}
    about["correct"] = ["".join("01"[int(one)] for one in draw) for draw in right]
    write_json(found.result_file(work["pretraining"], key), about)


def trained(found: Records, identity: str, config: Config, seed: int) -> None:
    """Write what training leaves; the loss is the higher, the higher the seed."""
    folder, trains = found.run(identity), config.method.name != "untrained"
    told = {"method": config.method.name, "fields": {"width": config.backbone.width}, "versions": {}, "seed": seed}
    told |= {"topology": [KINECT_V1.joints, KINECT_V1.parents]} | ({"steps": STEPS} if trains else {})
    write_json(folder / "run.json", {"identity": identity, "hashed": told, "method": config.method.name})
    write_text(folder / "config.yaml", to_yaml(config))
    if trains:
        lines = [line | {k: line[k] + seed for k in ("loss", "knn") if k in line} for line in LINES]
        write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
