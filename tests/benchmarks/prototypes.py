"""The chunked prototype loss against the plain formula: time and peak memory of forward and backward.

python -m tests.benchmarks.prototypes
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.prototypes import prototype_cross_entropy, sinkhorn

LARGE = (4096, 65536, 256)
SMALL = ((64, 128, 256), (512, 128, 256), (3000, 128, 256))
"""Rows, prototypes K and bottleneck width: SLiM's, and those of small runs on the CPU."""


def plain(student: Tensor, prototypes: Tensor, teacher: Tensor, teacher_prototypes: Tensor) -> Tensor:
    """The same loss with whole (row, K) matrices and autograd, as DINOv2 computes it."""
    with torch.no_grad():
        q = sinkhorn(teacher @ teacher_prototypes.T, 0.07)
    return -(q * F.log_softmax(student @ prototypes.T / 0.1, dim=-1)).sum(-1).mean()


LOSSES: dict[str, Callable[..., Tensor]] = {"chunked": prototype_cross_entropy, "plain": plain}


def inputs(rows: int, k: int, width: int) -> list[Tensor]:
    torch.manual_seed(0)
    vectors = [F.normalize(torch.randn(n, width), dim=-1) for n in (rows, k, rows, k)]
    return [x.requires_grad_(i < 2) for i, x in enumerate(vectors)]


def step(loss: Callable[..., Tensor], vectors: list[Tensor]) -> float:
    """Seconds of one forward and backward."""
    start = time.perf_counter()
    loss(*vectors).backward()
    seconds = time.perf_counter() - start
    for x in vectors:
        x.grad = None
    return seconds


def seconds(shape: tuple[int, int, int], repeats: int) -> dict[str, float]:
    """Fastest step of each loss, taken in turns so that other work on the machine hits both."""
    vectors = inputs(*shape)
    fastest = dict.fromkeys(LOSSES, float("inf"))
    for _ in range(repeats):
        for name, loss in LOSSES.items():
            fastest[name] = min(fastest[name], step(loss, vectors))
    return fastest


def peak_gib(name: str, shape: tuple[int, int, int]) -> float:
    """GiB by which one step raises the peak memory of a fresh process above that of its inputs."""
    command = [sys.executable, "-m", "tests.benchmarks.prototypes", name, *map(str, shape)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory_gib(field: str) -> float:
    """This process's resident memory, VmRSS now or VmHWM at its peak (ru_maxrss starts at the parent's peak)."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index(f"{field}:") + 1]) / 2**20


def run(quick: bool = False) -> list[dict]:
    """Rows of benchmark, measure and value; ratios are chunked / plain, below 1 where chunks are better."""
    rows = []
    large = (512, 8192, 256) if quick else LARGE
    for shape in (large, *SMALL):
        fastest = seconds(shape, 2 if shape == LARGE else 20 if shape == large else 200)
        name = f"prototype loss {shape[0]} x {shape[1]}"
        rows += [{"benchmark": name, "measure": f"seconds, {key}", "value": x} for key, x in fastest.items()]
        ratio = fastest["chunked"] / fastest["plain"]
        rows.append({"benchmark": name, "measure": "time, chunked / plain", "value": ratio})
    name = f"prototype loss {large[0]} x {large[1]}"
    peaks = {key: peak_gib(key, large) for key in LOSSES}
    rows += [{"benchmark": name, "measure": f"peak memory in GiB, {key}", "value": x} for key, x in peaks.items()]
    ratio = peaks["chunked"] / peaks["plain"]
    rows.append({"benchmark": name, "measure": "peak memory, chunked / plain", "value": ratio})
    return rows


def main() -> None:
    if len(sys.argv) > 1:
        vectors = inputs(*map(int, sys.argv[2:]))
        step(LOSSES[sys.argv[1]], inputs(4, 4, 4))  # what the first call of a library costs is not the loss's
        before = memory_gib("VmRSS")
        step(LOSSES[sys.argv[1]], vectors)
        print(memory_gib("VmHWM") - before)
        return
    for row in run():
        print(f"{row['benchmark']:32} {row['measure']:32} {row['value']:.4g}")


if __name__ == "__main__":
    main()
