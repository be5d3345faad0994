"""Archives that tests write, and what opening a bad one must say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skeletons.errors import BadInput
from skeletons.sources import DataConfig, open_clips


def complaint(path: Path, name: str = "archive") -> str:
    """What opening `path` says, which must be one line that names the file."""
    with pytest.raises(BadInput) as caught:
        open_clips(DataConfig(name=name, file=str(path)))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)
    return path


def ntu_arrays(rng: np.random.Generator, train: int = 5, test: int = 3, frames: int = 300) -> dict[str, np.ndarray]:
    """As MAMP's seq_transformation.py writes them: spine_mid of actor 1 is exactly zero in the first frame; odd clips
    have two persons."""
    found: dict[str, np.ndarray] = {}
    for part, count in (("train", train), ("test", test)):
        x = rng.normal(0, 0.5, (count, frames, 2, 25, 3)).astype(np.float32)
        for i in range(count):
            x[i] -= x[i, 0, 0, 1]
            x[i, 20 + 7 * i :] = 0
        x[0::2, :, 1] = 0
        found[f"x_{part}"] = x.reshape(count, frames, 150)
        found[f"y_{part}"] = np.eye(4)[np.arange(count) % 4]
    return found
