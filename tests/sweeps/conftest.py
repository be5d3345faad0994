"""A tiny data set on file and a command line that trains on it in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skeletons.sources.demo import DemoSpec, generate

TINY = (
    "backbone.width=16",
    "backbone.depth=1",
    "heads.prototypes=16",
    "heads.hidden=16",
    "heads.bottleneck=8",
    "decoder.width=16",
    "decoder.depth=1",
    "train.length=6 steps",
    "train.batch=8",
    "train.evaluations=1",
    "protocol.probe.length=10 steps",
    "protocol.probe.crops=1",
    "protocol.linear.length=10 steps",
)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 clips of 4 subjects in the exchange format."""
    path = tmp_path_factory.mktemp("archive") / "tiny.npz"
    np.savez(path, **generate(DemoSpec(subjects=4, cameras=2, repetitions=1)))
    return path


@pytest.fixture
def tiny(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides for a run of seconds, with runs and cache in the test's folder."""
    monkeypatch.setenv("SKELBENCH_CACHE", str(archive.parent / "cache"))
    return [
        "data=archive",
        f"data.file={archive}",
        "data.split=xsub",
        f"runs={tmp_path / 'runs'}",
        "workers=1",
        "page=false",
        *TINY,
    ]
