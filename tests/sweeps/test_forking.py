"""The process that workers are forked from starts with the command, and stays quiet when that is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeps import forking
from tests.sweeps.kills import emptied, group

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("line", "cores", "starts"),
    [
        ("ablation=stm", 2, True),
        ("ablation=stm", 1, False),
        ("ablation=stm workers=0", 2, True),
        ("ablation=stm workers=1", 2, False),
        ("ablation=stm workers=4", 1, True),
        ("ablation=stm dry=true", 2, False),
        ("ablation=stm dry=false launcher=local", 2, True),
        ("ablation=stm launcher=slurm workers=4", 2, False),
        ("-h", 2, False),
    ],
)
def test_it_starts_before_all_else_where_several_workers_will_run(monkeypatch, line, cores, starts):
    started = []
    monkeypatch.setattr(forking, "start_server", lambda: started.append(line))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    forking.start_early(line.split())
    assert bool(started) == starts


def test_no_rank_of_torchrun_starts_one(monkeypatch):
    monkeypatch.setattr(forking, "start_server", lambda: pytest.fail("started"))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    forking.start_early(["workers=4"])


def test_nothing_is_imported_there_that_takes_time():
    line = (
        "import sys, sweeps.forking; print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {line}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"torch", "numpy", "optuna"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("command", ["run", "tune"])
def test_interrupted_while_it_imports_the_server_says_nothing(tmp_path, command):
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "sweeps" / f"{command}.py"), "method=slim", "workers=2", f"runs={tmp_path}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what a shell starts with & ignores it
    )
    with process:
        try:
            until = time.monotonic() + 60
            while not any("forkserver" in Path(f"/proc/{pid}/cmdline").read_text() for pid in group(process.pid)):
                assert time.monotonic() < until, "no server was started"
                time.sleep(0.01)
            time.sleep(0.2)  # both are importing torch
            os.killpg(process.pid, signal.SIGINT)
            _, told = process.communicate(timeout=60)  # its end is the end of the server, too
        finally:
            process.kill()
    assert process.returncode != 0
    assert "KeyboardInterrupt" in told, "it was not the command's imports that were interrupted"
    assert 'File "<string>"' not in told  # how the server would begin its traceback
    emptied(process.pid)
    assert not group(process.pid)
