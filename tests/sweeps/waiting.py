"""Waiting for other processes, in tests that kill them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def until(true: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is so, but not longer; returns whether it is."""
    deadline = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def until_steps(folder: Path, steps: int) -> None:
    """Wait until a run has put so many lines of metrics on file, or a minute is over."""
    lines = folder / "metrics.jsonl"
    until(lambda: lines.is_file() and len(lines.read_text().splitlines()) >= steps, 60)
