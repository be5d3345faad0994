"""Records as protocols leave them, for tests of pictures: a plan of three cells on made-up clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skeletons.topology import KINECT_V1, OPENNI
from sweeps.records import Records, write_json

CELLS = ("raw", "untrained", "slim")


def strips(rng: np.random.Generator, persons: int, classes: int, test: int) -> dict[str, np.ndarray]:
    """What the protocol `embedding` keeps, of bodies that stand and sway."""
    topology = OPENNI if persons == 2 else KINECT_V1
    sway = topology.ancestry.astype(float) @ rng.normal(0, 0.05, (3, 6, 8, persons, len(topology), 3))
    body = topology.ancestry.astype(float) @ rng.normal(0, 0.25, (len(topology), 3))
    joints = sway + body + np.array([1.0, 0, 0.4]) * np.arange(persons)[:, None, None]
    observed = np.ones(joints.shape[:-1], bool)
    observed[0, 1, :, -1] = persons == 1  # of two, the second is not there in one clip
    return {
        "map": rng.normal(size=(test - 1, 2)).astype(np.float32),
        "map_clips": np.arange(1, test),
        "strip_rows": rng.integers(0, 99, (3, 6)),
        "strip_clips": np.array([[f"clip{i}{j}" for j in range(6)] for i in range(3)]),
        "strip_classes": rng.integers(0, classes, (3, 5)),
        "strip_near": np.sort(rng.random((3, 5)).astype(np.float32))[:, ::-1],
        "strip_queries": rng.permutation(test)[:3],
        "strip_joints": joints.astype(np.float16),
        "strip_observed": observed,
        "joint_names": np.array(topology.joints),
        "parents": np.array(topology.parents),
    }


# As the protocol `robustness` keeps them; strengths are out of order, as a user may give them.
SETTINGS = {
    "corruption": np.array(["noise"] * 3 + ["rotation"] * 2),
    "strength": np.array([0.05, 0.01, 0.1, 30.0, 90.0]),
}
ROBUST = {"robust": 55.0, "clean": 80.0, "units": {"noise": "noise, m", "rotation": "turn, degrees"}}


def worse(rng: np.random.Generator, truth: np.ndarray, classes: int) -> np.ndarray:
    """(setting, clip), classes that are less often right the stronger a setting is."""
    chance = 0.8 - 0.6 * SETTINGS["strength"] / np.where(SETTINGS["corruption"] == "noise", 0.1, 90)
    return np.where(rng.random((5, len(truth))) < chance[:, None], truth, rng.integers(0, classes, (5, len(truth))))


def records(
    folder: Path, persons: int = 1, classes: int = 3, test: int = 120, seeds: tuple[int, ...] = (0, 1)
) -> Records:
    """A plan `plan` with `linear`, `embedding` and `robustness`; of `raw` there is no `linear`."""
    found, rng = Records(folder), np.random.default_rng(0)
    truth = np.arange(test) % classes
    names = np.array([f"class number {c}" for c in range(classes)])
    works = []
    for cell in CELLS:
        for seed in seeds[:1] if cell == "raw" else seeds:
            judged = ({} if cell == "raw" else {"linear": "l"}) | {"embedding": "e", "robustness": "r"}
            works.append(
                {"cell": cell, "split": "xsub", "seed": seed, "pretraining": f"{cell}{seed}", "judgements": judged}
            )
            about = {"data": "demo", "split": "xsub", "train_clips": 99, "test_clips": test, "protocol": "linear"}
            seen = {"trustworthiness": 90.0, "alike_on_map": 40.0, "alike_by_features": 50.0, "map_clips": test - 1}
            seen |= {"measure": "Euclidean distance" if cell == "raw" else "cosine", **about}
            predicted = np.where(rng.random((2, test)) < 0.7, truth, rng.integers(0, classes, (2, test)))
            of_map = strips(rng, persons, classes, test)
            right = ["".join("01"[int(c)] for c in draw) for draw in predicted == truth]
            for key, result, arrays in (
                ("l", about | {"correct": right, "top1": 70.0}, {"predicted": predicted}),
                ("e", seen, of_map),
                ("r", about | ROBUST, {"predicted": worse(rng, truth, classes), **SETTINGS}),
            ):
                if key in judged.values():
                    path = found.arrays_file(f"{cell}{seed}", key)
                    path.parent.mkdir(parents=True)
                    np.savez(path, truth=truth, class_names=names, **arrays)
                    write_json(found.result_file(f"{cell}{seed}", key), result)
    plan = {"name": "plan", "command": "python sweeps/run.py ablation=stm protocol=embedding", "ablation": "stm"}
    plan |= {"title": "T", "source": "S", "differs": {}, "labels": {"linear": "linear", "embedding": "map"}}
    plan |= {"reference": "slim", "data": "demo", "scale": "demo", "setting": "paper", "written": 1.0, "works": works}
    write_json(found.plan_file("plan"), plan)
    return found
