"""Recordings to prepare, and people to audit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from skeletons import audit, preparing
from skeletons.clips import Clips, open_store, write_store
from skeletons.findings import Finding
from skeletons.preparing import prepare
from skeletons.sources.demo import DemoSpec, generate
from skeletons.topology import topology_of
from tests.skeletons import ntu_files as ntu
from tests.skeletons.planted import Arrays
from tests.skeletons.prepared import content, order


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirteen recordings of up to 21 frames: one on the list, one without frames, one that was lost and found."""
    folder = tmp_path_factory.mktemp("ntu")
    for n in range(10):
        frames = 12 + n
        people = [(ntu.FIRST_ID, range(frames), ntu.person(frames, n))]
        if n % 4 == 3:
            people.append((ntu.FIRST_ID + 1, range(frames), ntu.person(frames, 50 + n, x=1)))
        ntu.write(folder / f"part{n % 2}", ntu.name(1 + n, 1 + n % 3, camera=1 + n % 3), ntu.scene(frames, *people))
    ntu.write(folder, "S001C002P005R002A008", [])
    ntu.write(folder, ntu.name(11), [])
    lost = ntu.scene(19, (ntu.FIRST_ID, [*range(6), *range(10, 19)], ntu.person(15, 60)))
    ntu.write(folder, ntu.name(12), lost)
    return folder


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "CHUNK", 2)


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed call writes."""
    out = tmp_path_factory.mktemp("whole") / "a"
    prepare(order(raw, out))
    return content(out)


@pytest.fixture
def damaged(raw: Path, tmp_path: Path) -> Path:
    """The recordings, with one cut short and one whose name another has."""
    folder = tmp_path / "raw"
    shutil.copytree(raw, folder)
    path = folder / "part0" / f"{ntu.name(5, 2, camera=2)}.skeleton"
    path.write_bytes(path.read_bytes()[:5000])
    shutil.copy(folder / "part1" / f"{ntu.name(8, 2, camera=2)}.skeleton", folder / "part0")
    return folder


@pytest.fixture(scope="module")
def crowd() -> Arrays:
    """48 clips of 4 persons, half of them in training, by a sensor without errors."""
    made = generate(DemoSpec(subjects=4, cameras=1, repetitions=1, noise=0.0))
    return made | {"fps": np.float64(24)}  # slow enough for the quickest of them to be possible


@pytest.fixture
def people(crowd: Arrays) -> Arrays:
    """A copy to damage."""
    return {k: np.array(v) for k, v in crowd.items() if k != "train_xview"}  # there is one camera


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[Arrays], Clips]:
    def store(arrays: Arrays) -> Clips:
        folder = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        topology = topology_of(arrays["joint_names"], arrays["parents"])
        write_store(folder, arrays, topology, {"name": "planted", "source": "generated"})
        return open_store(folder)

    return store


@pytest.fixture
def found(stored) -> Callable[..., dict[str, Finding]]:
    """All findings on arrays, by check."""

    def look(arrays: Arrays, asked: str = "xsub") -> dict[str, Finding]:
        return {f.check.strip() if f.check != "  subjects" else "both sides": f for f in _audit(arrays, asked)[0]}

    def _audit(arrays: Arrays, asked: str):
        return audit.audit(stored(arrays), asked)

    return look
