"""An order to prepare recordings, and what an archive must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skeletons.preparing import Order
from skeletons.sources.ntu_skeleton import Ntu60, Options

FILES = ("frames.npy", "observed.npy", "tracking.npy", "table.npz", "meta.json", "report.json")


def order(raw: Path, out: Path, **more: Any) -> Order:
    return Order(Ntu60(raw, Options()), out, **more)


def content(archive: Path) -> dict[str, bytes]:
    assert sorted(p.name for p in archive.iterdir()) == sorted(FILES)
    return {name: (archive / name).read_bytes() for name in FILES}
