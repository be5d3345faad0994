"""Timing of alternatives in one process, in turn, so that a machine's changing speed meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median


def seconds(alternatives: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, after one unmeasured call."""
    found: dict[str, list[float]] = {name: [] for name in alternatives}
    for call in alternatives.values():
        call()
    for _ in range(rounds):
        for name, call in alternatives.items():
            began = time.perf_counter()
            call()
            found[name].append(time.perf_counter() - began)
    return {name: median(times) for name, times in found.items()}


def compare(benchmark: str, times: dict[str, float], mine: str, other: str) -> list[dict]:
    """Rows with each time, and how many times faster `mine` is than `other`."""
    rows = [{"benchmark": benchmark, "measure": f"milliseconds, {n}", "value": 1000 * t} for n, t in times.items()]
    return [*rows, {"benchmark": benchmark, "measure": f"{mine}, times faster", "value": times[other] / times[mine]}]
