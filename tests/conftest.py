"""Shared fixtures. The import hook comes first: it checks every shape annotation of the packages it names."""

from __future__ import annotations

from jaxtyping import config as jaxtyping_config
from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  (the hook looks it up by name)

install_import_hook(["skeletons", "methods", "protocols"], "tests.typecheck.checked")

# ruff: noqa: E402
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from skeletons.clips import Clips, open_store, write_store
from skeletons.topology import KINECT_V2

torch.set_num_threads(1)  # bit-identity holds for a fixed number of threads

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
LENGTHS = (1, 2, 5, 9, 12, 20, 31, 40, 64, 77, 90, 130)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Whatever draws from a global generator starts from the same place in every test."""
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Shape annotations are not checked: for tests of what a function itself says about a wrong shape."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """SKELBENCH_CACHE of this session: no test reads or fills the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKELBENCH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the four public data sets; tests that need it are skipped where it is not there."""
    if not SHARED.is_dir():
        pytest.skip(f"the public recordings are not at {SHARED}")
    return SHARED


def synthetic(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of the exchange format: two Kinect v2 bodies that walk and swing, metres.

    Clip i has class i % 3; class 2 has a second person, the others only the first. Nothing is missing.
    """
    rng = np.random.default_rng(seed)
    clips = len(lengths)
    bones = rng.normal(0, 0.2, (2, 25, 3))
    phase, speed = rng.uniform(0, 6, (2, 25, 3)), rng.uniform(0.05, 0.3, (2, 25, 3))
    time = np.concatenate([np.arange(n) for n in lengths])[:, None, None, None]
    label = np.arange(clips) % 3
    clip_of = np.repeat(np.arange(clips), lengths)
    swing = bones + 0.05 * (1 + label[clip_of, None, None, None]) * np.sin(speed * time + phase)
    start = np.array([[[0.3, 0.9, 3.0]], [[-0.6, 0.8, 2.5]]]) + 0.01 * clip_of[:, None, None, None]
    joints = (KINECT_V2.ancestry.astype(float) @ swing + start + 0.004 * time).astype(np.float32)
    joints[label[clip_of] != 2, 1] = 0
    subject = 1 + np.arange(clips) // 3
    return {
        "joints": joints,
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "label": label.astype(np.int64),
        "clip": np.array([f"clip{i:02d}" for i in range(clips)]),
        "class_names": np.array(["wave left", "wave right", "shake hands"]),
        "joint_names": np.array(KINECT_V2.joints),
        "parents": np.array(KINECT_V2.parents, dtype=np.int64),
        "subject": subject.astype(np.int64),
        "camera": (1 + np.arange(clips) % 2).astype(np.int64),
        "train_xsub": subject % 2 == 1,
        "fps": np.float64(30),
    }


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """A fresh copy of `synthetic()` for tests that damage it."""
    return synthetic()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """Twelve clips of 1 to 130 frames, 3 classes, 4 subjects, 2 cameras; person 2 is there in class 2 only.

    Gaps: clip07 misses an elbow for 3 frames, clip08 a knee for 20, clip09 its head throughout, clip10 the whole
    first person in its first 10 frames, clip11 the second person from frame 100 on.
    """
    arrays = synthetic()
    joints, offsets = arrays["joints"], arrays["offsets"]
    joints[offsets[7] + 10 : offsets[7] + 13, 0, 5] = 0
    joints[offsets[8] + 30 : offsets[8] + 50, 0, 13] = 0
    joints[offsets[9] : offsets[10], 0, 3] = 0
    joints[offsets[10] : offsets[10] + 10, 0] = 0
    joints[offsets[11] + 100 : offsets[12], 1] = 0
    folder = tmp_path_factory.mktemp("clips") / "store"
    about = {"name": "synthetic", "source": "generated", "chiral": [("wave left", "wave right")]}
    write_store(folder, arrays, KINECT_V2, about)
    return open_store(folder)
