"""Stateless randomness: every draw is a function of (seed, purpose, step) and of the sample's place in the
global batch. So a run that was killed and resumed, and a batch that was cut over several ranks, draw the same
numbers as one that was not.

Draws are made on the CPU (CPU and CUDA generators differ, and torch's CPU generator keeps only 32 bits of a seed)
by NumPy's Philox, a counter-based generator, and then moved.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

SHARED = 2  # a training step's draws are keyed by (seed, step) first


def _digest(path: Sequence[object]) -> bytes:
    return hashlib.sha256("\x1f".join(map(str, path)).encode()).digest()


class Draws:
    """Random numbers for one purpose at one step.

    `fork` names a purpose; each call of `uniform`, `normal`, ... on the same object uses the next counter, so the
    order of calls within one purpose matters and the order between purposes does not.

    Args:
        path: what keys the stream: seed, purposes, step, in that order.
        device: where the drawn tensors go.
        rank, world: the leading dimension of every draw is the local batch; the global batch has `world` times as
            many rows, of which rank r owns the r-th block.
    """

    def __init__(self, *path: object, device: torch.device | str = "cpu", rank: int = 0, world: int = 1):
        self.path, self.device, self.rank, self.world = path, torch.device(device), rank, world
        self._key = int.from_bytes(_digest(path)[:16], "little")
        self._calls = 0

    def fork(self, *purpose: object) -> Draws:
        return Draws(*self.path, *purpose, device=self.device, rank=self.rank, world=self.world)

    def shared(self, *purpose: object) -> Draws:
        """The stream of this purpose that all forks of the same (seed, step) share."""
        return Draws(*self.path[:SHARED], *purpose, device=self.device, rank=self.rank, world=self.world)

    def numpy(self) -> np.random.Generator:
        """A NumPy generator of the next counter (for draws that have no batch dimension)."""
        self._calls += 1
        return np.random.Generator(np.random.Philox(key=self._key, counter=self._calls << 128))

    def torch_seed(self) -> int:
        """A seed for `torch.manual_seed` (32 bits: torch's CPU generator keeps no more)."""
        return int.from_bytes(_digest(self.path)[16:20], "little")

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 uniform in [low, high), of the given shape; the first dimension is the local batch."""
        rows = self.numpy().random((shape[0] * self.world, *shape[1:]), dtype=np.float32)
        return torch.from_numpy(self._mine(rows)).mul_(high - low).add_(low).to(self.device)

    def normal(self, *shape: int) -> Tensor:
        """float32 standard normal; the first dimension is the local batch."""
        rows = self.numpy().standard_normal((shape[0] * self.world, *shape[1:]), dtype=np.float32)
        return torch.from_numpy(self._mine(rows)).to(self.device)

    def noise(self, *shape: int) -> Tensor:
        """As `normal`, for element-wise noise: on another device it is drawn there (with other values than a CPU's)."""
        if self.device.type in ("cpu", "meta"):
            return self.normal(*shape)
        self._calls += 1
        generator = torch.Generator(self.device)
        generator.manual_seed(int.from_bytes(_digest((*self.path, self._calls))[:7], "little"))
        rows = torch.randn((shape[0] * self.world, *shape[1:]), generator=generator, device=self.device)
        return rows[self.rank * shape[0] : (self.rank + 1) * shape[0]]

    def order(self, *shape: int) -> Tensor:
        """int64: the place of each entry in a random order of all entries of the global batch."""
        rows = self.numpy().permutation(self.world * math.prod(shape)).reshape(shape[0] * self.world, *shape[1:])
        return torch.from_numpy(self._mine(rows)).to(self.device)

    def _mine(self, rows: np.ndarray) -> np.ndarray:
        local = rows.shape[0] // self.world
        return rows[self.rank * local : (self.rank + 1) * local]


def permutation(n: int, *path: object) -> np.ndarray:
    """int64 permutation of range(n), a function of `path` alone."""
    return Draws(*path).numpy().permutation(n)
