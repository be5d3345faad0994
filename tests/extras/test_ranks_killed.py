"""Trainings of two ranks that lose one of them, and the command under torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skeletons.sources.demo import DemoSpec, generate
from sweeps.records import Records
from tests.sweeps.conftest import TINY
from tests.sweeps.waiting import until, until_steps

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(ROOT / "sweeps" / "run.py")
LONG = ["train.length=60 steps", "train.checkpoint_seconds=0", "train.log_every=1", "train.evaluations=2"]


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> list[str]:
    """A command line that trains SLiM on two ranks for a few seconds."""
    path = tmp_path_factory.mktemp("archive") / "tiny.npz"
    np.savez(path, **generate(DemoSpec(subjects=4, cameras=2, repetitions=1)))
    data = ["data=archive", f"data.file={path}", "data.split=xsub"]
    return [*data, *TINY, *LONG, "method=slim", "protocol=retrieval", "ablation.floors=false", "workers=1"]


@pytest.fixture(scope="module")
def undisturbed(line, tmp_path_factory) -> Path:
    """The encoder of a run that nobody disturbed."""
    runs = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run([sys.executable, PROGRAM, *line, "ranks=2", f"runs={runs}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (encoder,) = runs.glob("*/encoder.safetensors")
    return encoder


def followers_of(pid: int) -> list[int]:
    """Processes that `pid` started."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True).stdout.splitlines()[1:]
    return [int(pid_) for pid_, parent in map(str.split, listed) if int(parent) == pid]


@pytest.mark.parametrize("victim", ["first", "follower"])
def test_who_is_killed_leaves_nobody_behind_and_the_same_command_goes_on(victim, line, undisturbed, tmp_path):
    command = [sys.executable, PROGRAM, *line, "ranks=2", f"runs={tmp_path / 'runs'}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "runs" / undisturbed.parent.name
    until_steps(folder, 8)
    (follower,) = followers_of(process.pid)
    os.kill(process.pid if victim == "first" else follower, signal.SIGKILL)
    said = process.communicate(timeout=60)[1]
    assert not (folder / "encoder.safetensors").is_file(), "the kill came too late to test anything"
    gone = until(lambda: not Path(f"/proc/{follower}").exists(), 10)
    assert gone, "a rank lives on without the first one"
    assert not Records(tmp_path / "runs").is_owned(folder.name)
    if victim == "follower":
        assert "rank 1 of 2 ended before the training did" in said

    again = ["retry=failed"] if victim == "follower" else []  # that the training lost a rank stands as its failure
    done = subprocess.run([*command, *again], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "encoder.safetensors").read_bytes() == undisturbed.read_bytes()
    steps = [json.loads(text)["step"] for text in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 61))


def test_under_torchrun_the_command_trains_the_same(line, undisturbed, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    floors = "ablation.floors=true"  # what trains nothing is between the trainings, and no follower waits for it
    command = [*torchrun, PROGRAM, *line, floors, f"runs={tmp_path / 'runs'}", "grid.train.lr=1e-3,2e-3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs").glob("*/encoder.safetensors"))) == 3
