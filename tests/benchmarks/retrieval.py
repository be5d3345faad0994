"""Retrieval at the size of a large data set: seconds and peak memory, each in a process of its own.

python -m tests.benchmarks.retrieval
"""

from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace

import torch

from protocols.base import Subject
from protocols.retrieval import Retrieval, RetrievalConfig
from tests.benchmarks.prototypes import memory_gib

GALLERY, WIDTH, CLASSES = 100_000, 256, 60
QUERIES = (2_000, 10_000)
"""Time and memory grow with the queries alone, so two numbers of them tell those of any other: of 100,000, which took
PLACEHOLDER when it was run whole."""


def measure(kind: str, gallery: int, queries: int) -> tuple[float, float]:
    """(seconds, GiB above what stood before the features) of the whole protocol on random features."""
    torch.manual_seed(0)
    settings = SimpleNamespace(retrieval=RetrievalConfig(exact=kind == "exact"))
    protocol, before = Retrieval(settings), memory_gib("VmRSS")
    subject = Subject.__new__(Subject)
    subject.__dict__ |= {"encoder": "some", "data": SimpleNamespace(class_names=range(CLASSES))}
    subject.__dict__["features"] = torch.randn(gallery, WIDTH), torch.randn(queries, WIDTH)
    subject.__dict__["labels"] = torch.randint(CLASSES, (gallery,)), torch.randint(CLASSES, (queries,))
    start = time.perf_counter()
    protocol(subject)
    return time.perf_counter() - start, memory_gib("VmHWM") - before


def apart(kind: str, gallery: int, queries: int) -> tuple[float, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, "-m", "tests.benchmarks.retrieval", kind, str(gallery), str(queries)]
    seconds, gib = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(gib)


def run(quick: bool = False) -> list[dict]:
    """Rows of benchmark, measure and value; the memory is that of the features and of whatever retrieval holds."""
    scale = 10 if quick else 1
    gallery, (few, more) = GALLERY // scale, (n // scale for n in QUERIES)
    rows = []
    for kind in ("first", "exact"):
        counts = (few, more) if kind == "first" else (few // 10, few // 5)
        found = [apart(kind, gallery, n) for n in counts]
        name = f"retrieval {gallery} x {gallery}, from {counts[1]}" + (", exact mAP" if kind == "exact" else "")
        for what, low, high in zip(("minutes", "peak memory in GiB"), *found):
            whole = high + (high - low) * (gallery - counts[1]) / (counts[1] - counts[0])
            rows.append({"benchmark": name, "measure": what, "value": whole / 60 if what == "minutes" else whole})
    return rows


def main() -> None:
    if len(sys.argv) > 1:
        kind, gallery, queries = sys.argv[1:]
        print(*measure(kind, int(gallery), int(queries)))
        return
    for row in run():
        print(f"{row['benchmark']:52} {row['measure']:20} {row['value']:.4g}")


if __name__ == "__main__":
    main()
