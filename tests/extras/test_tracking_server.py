"""A real tracking server on loopback: machines that share no folder, and the user interface."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from skeletons.sources.demo import DemoSpec, generate
from sweeps.tracking import all_runs, open_client

ROOT = Path(__file__).resolve().parents[2]
SIZE = "backbone.width=16 backbone.depth=1 decoder.width=16 decoder.depth=1 train.batch=8 train.evaluations=1"


def answers(port: int, process: subprocess.Popen, within: float = 240.0) -> str:
    """What the front page says, once it does."""
    for _ in range(int(within)):
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as page:
                return page.read().decode()
        except OSError:
            time.sleep(1)
    raise AssertionError("the server does not answer")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def stopped(process: subprocess.Popen) -> None:
    """End the server and its workers: it was started as the leader of a session of its own."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    line = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    line += ["--backend-store-uri", f"sqlite:///{folder / 'db'}", "--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(line, stdout=log, stderr=log, start_new_session=True, cwd=folder, env=environment)
    try:
        answers(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        stopped(process)


def test_three_machines_without_a_common_folder_fill_one_table(server, tmp_path, monkeypatch):
    np.savez(tmp_path / "tiny.npz", **generate(DemoSpec(subjects=4, cameras=2, repetitions=1)))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("SKELBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SKELBENCH_OUT", str(tmp_path / "out"))
    line = ["data=archive", f"data.file={tmp_path / 'tiny.npz'}", "data.split=xsub", "method=mamp", *SIZE.split()]
    line += ["train.length=6 steps", "protocol=retrieval", "records=mlflow"]

    def call(machine: str, script: str, *words: str) -> str:
        command = [sys.executable, str(ROOT / script), f"runs={tmp_path / machine}", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0 and "MLflow" not in done.stderr, done.stderr
        return done.stdout

    assert "3 pieces: 0 were there, 3 done now" in call("b", "sweeps/run.py", *line, "workers=2")
    assert "page: " in call("a", "reports/make.py", "records=mlflow", f"out={tmp_path / 'a-out'}")
    (table,) = (tmp_path / "a-out").glob("mamp-archive-*.txt")
    row = next(row for row in table.read_text().splitlines() if row.startswith("mamp "))
    assert "missing" not in row
    assert not list((tmp_path / "a").glob("*/encoder.safetensors")), "reports need no encoders"
    assert "3 pieces: 3 were there, 0 done now" in call("c", "sweeps/run.py", *line, "workers=1")

    client = open_client(tmp_path / "unused")
    (experiment,) = (e for e in client.search_experiments() if e.name == "single runs")
    keys = [r.data.tags["key"] for r in all_runs(client, experiment.experiment_id) if "key" in r.data.tags]
    assert len(keys) == len(set(keys)) == 3, "B and C mirrored the same plan"
    (version,) = client.search_model_versions("name = 'skelbench-mamp-archive'")
    (mamp,) = (p for p in (tmp_path / "b").glob("*/run.json") if json.loads(p.read_text())["method"] == "mamp")
    assert version.tags["identity"] == mamp.parent.name
    script = f"""
import mlflow, numpy
model = mlflow.pyfunc.load_model("models:/skelbench-mamp-archive/{version.version}")
print(model.predict(numpy.ones((2, 1, 30, 25, 3), "float32")).shape)
"""
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert loaded.stdout.strip() == "(2, 16)", loaded.stderr


def test_the_user_interface_opens_on_loopback(tmp_path, monkeypatch):
    monkeypatch.setenv("SKELBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    port = free_port()
    line = [
        "make",
        "ui",
        f"RUNS={tmp_path / 'runs'}",
        f"PORT={port}",
        f"VENV={sys.prefix}",
        "-o",
        f"{sys.prefix}/.installed",
    ]
    nothing = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert nothing.returncode == 2 and "nothing to show yet" in nothing.stdout
    open_client(tmp_path / "runs" / "mlflow")
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(line, stdout=log, stderr=log, start_new_session=True, cwd=ROOT)
    try:
        assert "<title>MLflow</title>" in answers(port, process)
        listening = [row.split()[1] for row in Path("/proc/net/tcp").read_text().splitlines()[1:] if " 0A " in row]
        assert f"0100007F:{port:04X}" in listening and f"00000000:{port:04X}" not in listening
    finally:
        stopped(process)
