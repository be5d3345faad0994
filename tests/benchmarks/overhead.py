"""What a sweep costs beside training and evaluation: its start, and its own work around each run.

Sweeps of very short runs are timed whole, in this process; what is left when training and protocols are taken off is
overhead. It is told apart into what every sweep has once and what each run adds. Most is said in seconds of the
processor, this process's and its children's: by the clock, whatever else the machine does would count too.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any
from unittest import mock

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from methods.base import all_methods
from sweeps import execute
from sweeps import run as command
from sweeps.composing import compose
from sweeps.config import Config
from sweeps.groups import CONF
from tests.benchmarks.alternating import compare, seconds

RUN = [sys.executable, str(Path(command.__file__))]
DEMO = 60  # seconds that training and evaluation take in a run at scale=demo, about, on one core
SHORT = ["train.length=4 steps", "train.evaluations=1", "protocol.probe.length=4 steps", "protocol.probe.crops=1"]


def run(quick: bool = False) -> list[dict]:
    """Rows of all parts."""
    with tempfile.TemporaryDirectory() as folder:
        return [*composing(3 if quick else 9), *sweeping(Path(folder)), *starting(Path(folder), 1 if quick else 5)]


def starting(folder: Path, rounds: int) -> list[dict]:
    """Seconds from the start of Python to the plan of a table, and to the first piece of work; `import torch` alone, as
    the part of it that is not ours."""
    alone = ["method=mamp", "seeds=[0,1]", "ablation.floors=false"]
    calls: dict[str, Callable[[], object]] = {
        "import torch": lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True),
        "dry=true, one cell": lambda: _output([*alone, "dry=true"], "there"),
        "dry=true, 31 cells": lambda: _output(["ablation=masking", "dry=true"], "there"),
        "first piece, one process": lambda: _output([*alone, "workers=1", f"runs={folder}/start"], ": started"),
        "first piece, two workers": lambda: _output([*alone, "workers=2", f"runs={folder}/start"], ": started"),
    }
    processor: dict[str, list[float]] = {name: [] for name in calls}

    def counted(name: str) -> None:
        began = _processor()
        calls[name]()
        processor[name].append(_processor() - began)

    clock = seconds({name: partial(counted, name) for name in calls}, rounds)
    rows = [{"benchmark": "start-up by the clock", "measure": f"seconds, {n}", "value": v} for n, v in clock.items()]
    for name, times in processor.items():
        rows.append({"benchmark": "start-up, processor", "measure": f"seconds, {name}", "value": median(times)})
    return rows


def _processor(clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of the processor so far, of this process (or thread) and of all children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock() + children.ru_utime + children.ru_stime


def _output(line: list[str], awaited: str) -> None:
    """Run the command until it has written these words."""
    process = subprocess.Popen([*RUN, *line], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    if not any(awaited in text for text in process.stdout):
        raise AssertionError(f"{line} did not get to {awaited!r}")
    process.kill()
    process.communicate()


def composing(rounds: int) -> list[dict]:
    """The configuration of a cell, by our composition and by Hydra's."""
    store, line = ConfigStore.instance(), ["ablation=masking", "method=mamp", "masking=tube"]
    store.store(name="schema", node=Config)
    for name, cls in all_methods().items():
        store.store(group="schema", name=name, node=cls.Config)

    def hydra() -> None:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            OmegaConf.to_object(hydra_compose("config", line))

    taken = seconds({"ours": lambda: compose(line), "Hydra": hydra}, rounds)
    return compare("configuration of a cell", taken, "ours", "Hydra")


def sweeping(folder: Path) -> list[dict]:
    """Overhead of sweeps of 2 and of 8 short runs at the sizes of scale=demo, after one that fills all caches."""
    _sweep(folder / "first", 1)
    few, many = _sweep(folder / "few", 2), _sweep(folder / "many", 8)
    rows = []
    for part in many:
        each = (many[part] - few[part]) / 6
        rows.append(
            {
                "benchmark": f"overhead, {part}",
                "measure": "processor seconds, once a sweep",
                "value": few[part] - 2 * each,
            }
        )
        rows.append({"benchmark": f"overhead, {part}", "measure": "processor seconds, each run", "value": each})
    whole = (many["all"] - few["all"]) / 6
    share = {"benchmark": "overhead, all", "measure": "percent of a run, scale=demo", "value": 100 * whole / DEMO}
    return [*rows, share]


def _sweep(runs: Path, number: int) -> Counter[str]:
    """Part -> seconds, for one sweep in this process."""
    taken: Counter[str] = Counter()

    def timed(owner: Any, name: str, part: str) -> Any:
        call = getattr(owner, name)

        def clocked(*arguments: Any, **named: Any) -> Any:
            began = _processor(time.thread_time)
            try:
                return call(*arguments, **named)
            finally:
                taken[part] += _processor(time.thread_time) - began

        return mock.patch.object(owner, name, clocked)

    started = subprocess.run

    def quiet(line: list[str], **named: Any) -> Any:
        """The report says what it has to say elsewhere."""
        return started(line, **{"stdout": subprocess.DEVNULL, **named})

    line = ["method=mamp", f"seeds={list(range(number))}", *SHORT, "ablation.floors=false", "workers=1", f"runs={runs}"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, {"SKELBENCH_OUT": str(runs / "out")}))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(mock.patch.object(command, "subprocess", SimpleNamespace(run=quiet)))
        for owner, name, part in (
            (execute, "pretrain", "work"),
            (execute, "judge", "work"),
            (command, "make_plan", "plan"),
            (command, "write_plan", "plan"),
            (command.subprocess, "run", "report"),
        ):
            stack.enter_context(timed(owner, name, part))
        began = _processor()
        status = command.main(line)
        whole = _processor() - began
    assert status == 0
    taken["all"] = whole - taken.pop("work")
    taken["queue, locks, MLflow"] = taken["all"] - taken["plan"] - taken["report"]
    return taken
