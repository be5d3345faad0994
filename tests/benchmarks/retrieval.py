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
QUERIES = {"first": (2_000, 10_000), "exact": (200,)}
"""So many stand for the 100,000: time grows with the queries alone, and so does memory, by what two numbers of them
differ. Run whole, on one core of two that were busy, the first 100 of each took 287 s and 0.60 GiB."""


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
    gallery, growth, rows = GALLERY // (10 if quick else 1), 0.0, []
    for kind, queries in QUERIES.items():
        counts = [n // 10 if quick else n for n in queries]
        seconds, gib = zip(*(apart(kind, gallery, n) for n in counts))
        if len(counts) > 1:  # each keeps its feature and its neighbours, whatever else is asked
            growth = max(0.0, (gib[-1] - gib[0]) / (counts[-1] - counts[0]))
        name = f"retrieval {gallery} x {gallery}" + (", exact mAP" if kind == "exact" else "")
        whole = {
            "minutes": seconds[-1] / 60 * gallery / counts[-1],
            "peak memory in GiB": gib[-1] + growth * (gallery - counts[-1]),
        }
        rows += [{"benchmark": name, "measure": f"{m}, from {counts[-1]}", "value": v} for m, v in whole.items()]
    return rows


def main() -> None:
    if len(sys.argv) > 1:
        kind, gallery, queries = sys.argv[1:]
        print(*measure(kind, int(gallery), int(queries)))
        return
    for row in run():
        print(f"{row['benchmark']:40} {row['measure']:32} {row['value']:.4g}")


if __name__ == "__main__":
    main()
