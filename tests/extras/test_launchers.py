"""Workers beyond this machine, for real: submitit's local executor, a Ray cluster of two nodes, Slurm with one node."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.work_queue import Address, Queue
from tests.extras.conftest import absent

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 4


@pytest.fixture
def command(tiny, tmp_path):
    """Runs four encoders of seconds on a launcher, and leaves `tmp_path / "runs"`."""

    def call(*launch: str) -> subprocess.CompletedProcess:
        line = [o for o in tiny if not o.startswith("workers")]
        line += [
            "method=mamp",
            "protocol=retrieval",
            "ablation.floors=false",
            f"seeds={list(range(SEEDS))}",
            "workers=2",
        ]
        env = os.environ | {"SKELBENCH_OUT": str(tmp_path / "out"), "RAY_USAGE_STATS_ENABLED": "0"}
        asked = [sys.executable, str(ROOT / "sweeps" / "run.py"), *line, *launch]
        return subprocess.run(asked, capture_output=True, text=True, timeout=400, env=env)

    return call


def workers_of(tmp_path: Path) -> list[str]:
    """Names of the workers that did the pieces."""
    (journal,) = (tmp_path / "runs" / "studies").glob("*.log")
    done = Queue(Address("journal", journal.stem, journal)).trials("COMPLETE")
    assert len(done) == SEEDS and len(list((tmp_path / "runs").glob("*/eval/*/result.json"))) == SEEDS
    return [trial.user_attrs["worker"] for trial in done]


def test_jobs_of_submitit_do_what_processes_of_this_machine_do(command, tmp_path):
    if importlib.util.find_spec("submitit") is None:
        absent("submitit")
    done = command("launcher=slurm", "launch.executor=local")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS} pieces: 0 were there, {SEEDS} done now" in done.stdout and "finished" in done.stdout
    workers_of(tmp_path)
    encoders = {p.parent.name: p.read_bytes() for p in (tmp_path / "runs").glob("*/encoder.safetensors")}
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert command("launcher=local").returncode == 0
    assert encoders == {p.parent.name: p.read_bytes() for p in (tmp_path / "runs").glob("*/encoder.safetensors")}


@pytest.fixture
def ray_cluster(monkeypatch) -> Iterator[str]:
    """Address of a cluster of two nodes with one core each."""
    if importlib.util.find_spec("ray") is None:
        absent("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    about = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**about, "include_dashboard": False})
    try:
        cluster.add_node(**about)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_tasks_run_on_both_nodes_of_a_ray_cluster(command, tmp_path, ray_cluster):
    done = command("launcher=ray", f"launch.address={ray_cluster}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS} pieces: 0 were there, {SEEDS} done now" in done.stdout
    assert len(set(workers_of(tmp_path))) == 2


def test_no_ray_cluster_is_one_line(command, tmp_path):
    if importlib.util.find_spec("ray") is None:
        absent("ray")
    done = command("launcher=ray", "launch.address=127.0.0.1:1")
    assert done.returncode == 2 and "ray start --head" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_jobs_of_a_slurm_node(command, tmp_path, slurm):
    done = command("launcher=slurm", "launch.hours=0.2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS} pieces: 0 were there, {SEEDS} done now" in done.stdout
    workers_of(tmp_path)
    assert subprocess.run(["squeue", "--noheader"], capture_output=True, text=True).stdout == ""
