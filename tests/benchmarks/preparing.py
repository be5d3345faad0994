"""NTU RGB+D's raw files become an archive: the rate on files of real size, the memory, and opening what was made.

The rate is measured on generated files (about 230 kB a person) and extrapolated to NTU-60's 56,578 recordings.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from skeletons.clips import open_archive
from skeletons.sources.ntu_skeleton import Ntu60, Options
from skeletons.sources.ntu_text import JOINTS, parse
from skeletons.topology import KINECT_V2
from skeletons.writing import StoreWriter
from tests.skeletons import ntu_files

NTU60 = 56_578  # recordings
WORKERS = 2


def plain(path: Path) -> np.ndarray:
    """What a plain reader does: line by line, a `float` for every field that is kept. (frame, 25, 3) of all bodies."""
    found = []
    with path.open() as file:
        for _ in range(int(file.readline())):
            for _ in range(int(file.readline())):
                file.readline()
                joints = int(file.readline())
                found.append([[float(x) for x in file.readline().split()[:3]] for _ in range(joints)])
    return np.array(found, np.float32)


def run(quick: bool = False) -> list[dict]:
    """Rows of parsing, of the command with two workers, and of opening."""
    rows = []

    def row(benchmark: str, measure: str, value: float) -> None:
        rows.append({"benchmark": benchmark, "measure": measure, "value": value})

    with tempfile.TemporaryDirectory() as place:
        raw = Path(place) / "raw"
        paths = ntu_files.collection(raw, 60 if quick else 300)
        row("NTU raw files", "kB a file", sum(p.stat().st_size for p in paths) / len(paths) / 1e3)
        times = {"ours": [], "plain": []}  # type: dict[str, list[float]]
        for path in paths[:60]:
            began = time.perf_counter()
            _, bodies = parse(path.read_bytes(), str(path))
            middle = time.perf_counter()
            joints = plain(path)
            times["ours"].append(middle - began)
            times["plain"].append(time.perf_counter() - middle)
            assert len(bodies) > 1 or (joints.reshape(-1, JOINTS, 3) == bodies[0].joints).all()
        for name, seconds in times.items():
            row(f"NTU raw files, parsing, {name}", "ms a file (median)", 1e3 * float(np.median(seconds)))
        source = Ntu60(raw, Options())
        began = time.perf_counter()
        for path in paths[:60]:
            source.read(path)
        row("NTU raw files, parsing and choosing bodies", "ms a file", 1e3 * (time.perf_counter() - began) / 60)
        few, many = _prepare(Path(place), paths, len(paths) // 4), _prepare(Path(place), paths, len(paths))
        rate = (many[0] - few[0]) / (len(paths) - len(paths) // 4)  # what starting takes is left out
        row(f"prepare {len(paths)} files, {WORKERS} workers", "s", many[0])
        row(f"prepare, {WORKERS} workers", "ms a file", 1e3 * rate)
        row(f"prepare NTU-60, {WORKERS} workers, extrapolated", "minutes", rate * NTU60 / 60)
        row(f"prepare {len(paths) // 4} files", "MB at most in a process", few[1])
        row(f"prepare {len(paths)} files", "MB at most in a process", many[1])
    rows += _opening()
    return rows


def _prepare(place: Path, paths: list[Path], count: int) -> tuple[float, float]:
    """Seconds and MB (the largest process) of the command on the first `count` files."""
    raw, out = place / f"raw{count}", place / f"out{count}"
    raw.mkdir()
    for path in paths[:count]:
        (raw / path.name).symlink_to(path)
    line = [sys.executable, "-c", MEASURED, "source=ntu60", f"raw={raw}", f"out={out}", f"workers={WORKERS}"]
    began = time.perf_counter()
    done = subprocess.run(line, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return time.perf_counter() - began, float(done.stdout.split()[-1]) / 1e3


MEASURED = """
import resource, sys
from skeletons import prepare
if __name__ == "__main__":
    prepare.main(sys.argv[1:])
    print(max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def _opening() -> list[dict]:
    """Opening an archive with as many clips as NTU-60, of a frame each (frames are not read)."""
    with tempfile.TemporaryDirectory() as place:
        joints = np.tile(ntu_files.person(1, 0)[:, None], (1000, 2, 1, 1))
        with StoreWriter(Path(place), KINECT_V2, 2) as writer:
            for start in range(0, NTU60, 1000):
                count = min(1000, NTU60 - start)
                writer.add(joints[:count], [1] * count)
            number = np.arange(NTU60)
            columns = {
                "clip": np.array([f"S001C001P001R001A{n:06d}" for n in number]),
                "label": number % 60,
                **dict.fromkeys(("subject", "camera", "setup", "repetition"), number % 40),
                "train_xsub": number % 2 == 0,
                "train_xview": number % 3 == 0,
            }
            meta = {"name": "ntu60", "source": "bench", "fps": 30.0, "class_names": ["a"] * 60}
            writer.finish(columns, meta)
        times = []
        for _ in range(7):
            began = time.perf_counter()
            assert len(open_archive(Path(place))) == NTU60
            times.append(time.perf_counter() - began)
    return [{"benchmark": "open an archive of 56,578 clips", "measure": "ms (median)", "value": 1e3 * np.median(times)}]
