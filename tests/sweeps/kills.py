"""A sweep that is killed again and again must end as one that nobody disturbed.

    python -m tests.sweeps.kills [kills=100] [runs=20] [workers=4] [seed=0] [fresh=0.1] [keep=FOLDER]

Cells are four methods, each with runs/4 seeds. SIGKILL meets the whole process group, the command alone, or one worker,
at a random moment or at the moment when some file appears or is being written. Killed sweeps are started again until
they end by themselves; then everything they left is compared with an undisturbed sweep, and the next one is killed,
until there were enough kills. Most starts are forks of this process, where Python and torch are loaded already, so that
kills meet the sweep and not imports; a share `fresh` is `python sweeps/run.py`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

from skeletons.sources.demo import DemoSpec, generate
from sweeps.composing import compose
from tests.sweeps import outcome
from tests.sweeps.conftest import TINY

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("mamp", "slim", "skeletonclr", "supervised")
EVENTS = (  # a kill may wait for one of these to appear; the hidden ones are being written
    "*/.checkpoint.pt.*",
    "*/checkpoint.pt",
    "*/.encoder.safetensors.*",
    "*/encoder.safetensors",
    "*/.run.json.*",
    "*/run.json",
    "*/eval/*/.*",
    "*/eval/*/arrays.npz",
    "*/eval/*/result.json",
    "plans/.*",
    "plans/*.json",
    "studies/*",
    "mlflow/*.db",
    "mlflow/*.db-journal",
    "mlflow/.*",
    "mlflow/mirrored*",
    "mlflow/artifacts/*",
)
LONGEST = 300.0  # seconds that a sweep may take before something is wrong with it


@dataclass
class Arena:
    """A folder to kill sweeps in.

    Args:
        folder: for data, runs, tables and logs.
        runs: pieces of work.
        steps: of each training.
    """

    folder: Path
    runs: int
    workers: int
    steps: int = 12
    kills: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0  # seconds that a worker outlived its parent, at most

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ |= {
            "SKELBENCH_CACHE": str(self.folder / "cache"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "OMP_NUM_THREADS": "1",
        }
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        np.savez(self.folder / "tiny.npz", **generate(DemoSpec(subjects=4, cameras=2, repetitions=1)))

    def line(self, name: str) -> list[str]:
        """The command line of the sweep whose results go to the folder `name`."""
        sizes = [o for o in TINY if not o.startswith(("train.length", "train.evaluations"))]
        data = ["data=archive", f"data.file={self.folder / 'tiny.npz'}", "data.split=xsub"]
        cells = [f"grid.method={','.join(METHODS)}", f"seeds={list(range(self.runs // len(METHODS)))}"]
        train = [f"train.length={self.steps} steps", "train.evaluations=2", "train.log_every=3"]
        train += ["train.checkpoint_seconds=0", "ablation.floors=false"]
        return [*data, *cells, *sizes, *train, f"workers={self.workers}", f"runs={self.folder / name}", "page=false"]

    def start(self, name: str, fresh: bool) -> int:
        """Start the sweep, leader of its own process group; returns its number."""
        log, out = self.folder / f"{name}.log", self.folder / f"{name}.out"
        if fresh:
            with open(log, "ab") as file:
                process = subprocess.Popen(
                    [sys.executable, str(ROOT / "sweeps" / "run.py"), *self.line(name)],
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                    env={**os.environ, "SKELBENCH_OUT": str(out)},
                )
            return process.pid
        pid = os.fork()
        if pid == 0:
            status = 99
            try:
                os.setsid()
                os.environ["SKELBENCH_OUT"] = str(out)
                with open(log, "ab") as file:
                    os.dup2(file.fileno(), 1)
                    os.dup2(file.fileno(), 2)
                forks = multiprocessing.get_context("fork")
                multiprocessing.get_context = lambda method=None: forks
                from sweeps import run

                status = run.main(self.line(name))
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        return pid

    def finish(self, name: str, fresh: bool = False) -> int:
        """Run the sweep to its end; returns its exit status."""
        return self.wait(self.start(name, fresh), LONGEST) or 0

    def wait(self, pid: int, seconds: float) -> int | None:
        """Exit status of the command if it ends within so many seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if (status := ended(pid)) is not None:
                return status
            time.sleep(0.002)
        return None

    def disturb(self, name: str, random: random.Random, fresh: bool) -> int | None:
        """Start the sweep and kill something of it; returns the status of one that ended before."""
        pid = self.start(name, fresh)
        lead = 6.0 if fresh else 0.0
        status = self._moment(name, pid, lead, random)
        if status is not None:
            return status
        whom = random.choice(("group", "group", "command", "worker"))
        if whom == "worker":
            others = [p for p in group(pid) if p != pid]
            if others:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(random.choice(others), signal.SIGKILL)
                self.kills["worker"] += 1
            status = self._moment(name, pid, 0.0, random)
            if status is not None:
                return None  # a sweep that lost a worker may say so and end
            whom = "group"
        self.kills[whom] += 1
        if whom == "group":
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if random.random() < 0.7:  # otherwise the next start meets workers that are just leaving
            self.slowest = max(self.slowest, emptied(pid))
        return None

    def _moment(self, name: str, pid: int, lead: float, random: random.Random) -> int | None:
        """Wait for a random moment; returns the exit status where the sweep ends before."""
        if random.random() < 0.5:
            return self.wait(pid, random.uniform(0, lead + random.choice((1.0, 3.0, 12.0))))
        pattern, runs = random.choice(EVENTS), self.folder / name
        seen, until = set(runs.glob(pattern)), time.monotonic() + lead + 6
        while time.monotonic() < until and not set(runs.glob(pattern)) - seen:
            if (status := ended(pid)) is not None:
                return status
            time.sleep(0.001)
        return self.wait(pid, random.choice((0, 0, 0.01)))

    def complaints(self, name: str, undisturbed: str = "undisturbed") -> list[str]:
        """In what a finished sweep differs from the undisturbed one."""
        mine, other = self.folder / name, self.folder / undisturbed
        found = [f"left behind: {stranger}" for stranger in outcome.strangers(mine)]
        found += outcome.difference(outcome.results(other), outcome.results(mine))
        found += outcome.difference(outcome.window(other), outcome.window(mine))
        trials = outcome.queue(mine)
        found += [f"still {state} in the queue: {k}" for k, state in trials if state in ("RUNNING", "WAITING")]
        done = Counter(key for key, state in trials.elements() if state == "COMPLETE")
        found += [f"done {n} times by the queue: {key}" for key, n in done.items() if n != 1]
        tables = (outcome.table(self.folder / f"{sweep}.out") for sweep in (undisturbed, name))
        return found + outcome.difference(*tables)


def ended(pid: int) -> int | None:
    """Exit status of a child, None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def group(leader: int) -> list[int]:
    """Processes of a process group that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == leader and state != "Z":
                found.append(int(path.parent.name))
    return found


def emptied(leader: int, longest: float = 15.0) -> float:
    """Seconds until nobody is left of a process group."""
    began = time.monotonic()
    while time.monotonic() - began < longest:
        if not group(leader):
            return time.monotonic() - began
        time.sleep(0.01)
    raise AssertionError(f"after {longest:.0f} s there are still processes of a killed sweep: {group(leader)}")


def main(arguments: list[str]) -> int:
    """Kill sweeps as asked, say how they ended; returns 1 where one differs."""
    wanted = {"kills": "100", "runs": "20", "workers": "4", "seed": "0", "fresh": "0.1", "keep": "", "steps": "12"}
    wanted |= dict(argument.partition("=")[::2] for argument in arguments)
    kills, fresh, chance = int(wanted["kills"]), float(wanted["fresh"]), random.Random(int(wanted["seed"]))
    folder = Path(wanted["keep"] or tempfile.mkdtemp(prefix="skelbench-kills-")).resolve()
    for module in ("mlflow", "optuna", "sweeps.run", "sweeps.workers", "sweeps.mirror", "torch._dynamo"):
        import_module(module)  # once, for all forks
    compose([])

    arena = Arena(folder, int(wanted["runs"]), int(wanted["workers"]), int(wanted["steps"]))
    began = time.monotonic()
    assert arena.finish("undisturbed") == 0, (folder / "undisturbed.log").read_text()[-3000:]
    print(f"undisturbed: {time.monotonic() - began:.0f} s in {folder}", flush=True)
    sweep, starts, wrong = 0, 0, 0
    while arena.kills.total() < kills:
        name, sweep, here, ending = f"killed{sweep}", sweep + 1, arena.kills.total(), None
        while ending is None and arena.kills.total() < kills:
            ending, starts = arena.disturb(name, chance, chance.random() < fresh), starts + 1
        if ending is None:
            ending = arena.finish(name)
        complaints = arena.complaints(name) + ([f"exit status {ending}"] if ending else [])
        wrong += bool(complaints)
        took = time.monotonic() - began
        print(f"{name}: {arena.kills.total() - here} kills, {took:.0f} s, {len(complaints)} complaints")
        print("".join(f"    {complaint[:300]}\n" for complaint in complaints[:20]), end="", flush=True)
    told = ", ".join(f"{n} of a {whom}" for whom, n in sorted(arena.kills.items()))
    print(
        f"{arena.kills.total()} kills ({told}) in {starts} starts of {sweep} sweeps; {wrong} of them ended differently"
    )
    print(f"the last process left {arena.slowest:.1f} s after a kill at most")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
