"""Sweeps that are killed, ended and interrupted (the long form of the first test: python -m tests.sweeps.kills)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from sweeps import run
from tests.sweeps import outcome
from tests.sweeps.kills import emptied, group

ROOT = Path(__file__).resolve().parents[2]


def test_a_sweep_that_is_killed_again_and_again_ends_as_one_that_nobody_disturbed(tmp_path):
    asked = ["kills=3", "runs=4", "workers=2", "steps=4", "fresh=0", f"keep={tmp_path / 'arena'}"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.sweeps.kills", *asked], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills" in done.stdout


def test_who_was_killed_after_his_last_result_is_not_taken_to_be_still_at_work(tiny, tmp_path, monkeypatch, capfd):
    reported = SimpleNamespace(run=lambda line: SimpleNamespace(returncode=0))
    monkeypatch.setattr(run, "subprocess", reported)
    line = [*tiny, "method=untrained", "protocol=retrieval", "ablation.floors=false"]
    assert run.main(line) == 0
    (log,) = (tmp_path / "runs" / "studies").glob("*.log")
    with warnings.catch_warnings(action="ignore"):
        storage = JournalStorage(JournalFileBackend(str(log)))
    study = optuna.load_study(study_name=log.stem, storage=storage)
    (done,) = study.get_trials()
    study.enqueue_trial(done.params, user_attrs=done.user_attrs)
    study.ask()
    assert "RUNNING" in {state for _, state in outcome.queue(tmp_path / "runs")}
    assert run.main(line) == 0
    assert not {"RUNNING", "WAITING"} & {state for _, state in outcome.queue(tmp_path / "runs")}
    assert "1 pieces: 1 were there, 0 done now" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("number", "everybody", "workers", "status", "says"),
    [
        (signal.SIGTERM, False, 2, 143, "ended"),
        (signal.SIGINT, True, 1, 130, "interrupted"),
        (signal.SIGINT, True, 2, 130, "interrupted"),
    ],
)
def test_who_is_asked_to_end_does_so_at_once_and_says_how_to_go_on(tiny, number, everybody, workers, status, says):
    """A terminal's Ctrl-C reaches the whole process group, a `kill` the command alone."""
    line = [*tiny, "grid.method=mamp,slim", "train.length=100000 steps", "ablation.floors=false", f"workers={workers}"]
    with subprocess.Popen(
        [sys.executable, str(ROOT / "sweeps" / "run.py"), *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what a shell starts with & ignores it
    ) as process:
        assert process.stdout is not None
        try:
            started = 0
            while started < workers:
                shown = process.stdout.readline()
                assert shown, "it ended before it was asked to"
                started += "started" in shown
            os.killpg(process.pid, number) if everybody else process.send_signal(number)
            _, told = process.communicate(timeout=30)  # about a second, where nothing else runs
        finally:
            process.kill()
    assert process.returncode == status, told
    assert told.splitlines() == [f"{says}; the same command goes on where this one stopped"]
    emptied(process.pid)
    assert not group(process.pid)
