"""`python reports/flops.py measure=true [scale=small] [method=NAME] [setting=...] [clips=64] [step_clips=8]
[runs=DIR | keep=FILE]`: how long every method takes on this machine and how much memory; kept in runs/costs.json, which
reports read.

Each is measured in a process of its own, on random clips of two persons (of one where the method trains on one): the
views are those that are counted, already on the device. Nothing is learnt and nothing else is written.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from methods.base import Method, all_methods, build
from methods.trainer import optimizer_for
from reports.counting import NAME, Costs, Measured, cost_key
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch
from skeletons.topology import KINECT_V2
from sweeps.composing import compose
from sweeps.config import Config
from sweeps.costs import CLASSES, JOINTS, parts_of, views_of
from sweeps.groups import options
from sweeps.identity import device_of
from sweeps.records import provenance

BUDGET = 1.0  # seconds for each number, once its first call is done
CODE = "import sys; from reports.measuring import measure_here; measure_here(sys.argv[1:])"


def real(view: Batch, device: str) -> Batch:
    """Random joints in the shape of a view on the meta device, all of them observed."""
    shape = view.joints.shape
    labels = None if view.labels is None else torch.arange(shape[0], device=device) % CLASSES
    joints = torch.randn(shape, device=device) * 0.3
    observed, present = (torch.ones(s, dtype=torch.bool, device=device) for s in (shape[:-1], shape[:2]))
    return Batch(joints, observed, present, view.views, labels)


def seconds_of(call: Callable[[], Any], device: str) -> float:
    """Median seconds of a call: as many as fit `BUDGET` after the first, which only warms up; one at least. On one
    thread it is the processor's time, which other programs do not change."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter

    def once() -> float:
        began = clock()
        call()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return clock() - began

    rounds = max(1, min(50, int(BUDGET / once())))
    return median(once() for _ in range(rounds))


def step_of(config: Config, method: Method, device: str) -> Callable[[], None]:
    """A whole training step, as the trainer does it, on views that are there already."""
    views = {name: real(view, device) for name, view in views_of(method, config).items()}
    optimizer, draws = optimizer_for(method, config.train), Draws(0, 0, device=device)

    def step() -> None:
        method.loss(views, draws)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), config.train.clip_norm or math.inf)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.after_step(0.5)

    return step


def resident() -> float:
    """MiB of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak(device: str) -> float:
    """MiB at most so far."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(config: Config, clips: int, step_clips: int) -> Measured:
    """Measure a configuration in this process, which should have done nothing else: its peak memory is the step's.

    Args:
        clips: that the encoder is given at once.
        step_clips: of a training step; those of the configuration do not fit every machine.
    """
    torch.set_num_threads(config.threads)
    device = device_of(config)
    small = replace(config, train=replace(config.train, batch=step_clips))
    before = 0.0 if device.startswith("cuda") else resident()
    method = build(parts_of(small, KINECT_V2, CLASSES)).to(device)
    step_seconds = most = 0.0
    if method.trains:
        step_seconds = seconds_of(step_of(small, method, device), device) / step_clips
        most = peak(device) - before
    encoder = method.kept.eval()
    with torch.inference_mode():
        one, many = (torch.randn(n, config.views.frames, JOINTS, 3, device=device) for n in (1, clips))
        single, batch = seconds_of(lambda: encoder(one), device), seconds_of(lambda: encoder(many), device)
    about = provenance()
    where = {"device": about["machine"], "threads": config.threads, "torch": about["torch"], "commit": about["commit"]}
    return Measured(
        **where,
        date=time.strftime("%Y-%m-%d"),
        milliseconds=1000 * single,
        clips_per_second=clips / batch,
        clips=clips,
        step_milliseconds=1000 * step_seconds,
        mebibytes=most,
        step_clips=step_clips if method.trains else 0,
    )


def measure_here(arguments: Sequence[str]) -> None:
    """What the process of one measurement does: print it as JSON."""
    clips, step_clips, *overrides = arguments
    print(json.dumps(asdict(measure(compose(overrides), int(clips), int(step_clips)))))


def asked_for(given: dict[str, str]) -> dict[tuple[str, str], list[str]]:
    """(method, setting) -> overrides: of all methods in both settings, or of those that the command line names."""
    rest = [f"{key}={value}" for key, value in {"scale": "paper", **given}.items() if key not in ("method", "setting")]
    methods = given["method"].split(",") if "method" in given else [m for m in options("method") if m in all_methods()]
    settings = given["setting"].split(",") if "setting" in given else ["paper", "matched"]
    return {(m, s): [f"method={m}", f"setting={s}", *rest] for m in methods for s in settings}


def measure_all(asked: dict[tuple[str, str], list[str]], costs: Costs, wanted: dict[str, str]) -> int:
    """Measure configurations one after the other and keep the results; returns the exit status.

    Args:
        asked: (method, setting) -> overrides.
        wanted: `clips`, `step_clips`, `keep` of the command line.

    Raises:
        BadInput: there is no folder to keep them in.
    """
    file = Path(wanted["keep"]) if "keep" in wanted else costs.file
    if file is None or not file.parent.is_dir():
        raise BadInput(f"{file.parent if file else NAME}: no such folder; give keep=FILE or the runs=DIR of a sweep")
    numbers = [wanted.get("clips", "64"), wanted.get("step_clips", "8")]
    if not all(n.isdecimal() and int(n) for n in numbers):
        raise BadInput(f"clips={numbers[0]} step_clips={numbers[1]}: write whole numbers from 1")
    failed = 0
    for (method, setting), overrides in asked.items():
        done = subprocess.run([sys.executable, "-c", CODE, *numbers, *overrides], capture_output=True, text=True)
        if done.returncode:
            failed += 1
            print(f"{method:14} {setting:8} failed: {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
            continue
        found = Measured(**json.loads(done.stdout.splitlines()[-1]))
        device = f"{found.device}, {found.threads} thread{'s' * (found.threads != 1)}"
        costs.keep({"measured": {cost_key(compose(overrides)): {device: asdict(found)}}}, file)
        print(
            f"{method:14} {setting:8} {found.milliseconds:8.1f} ms, {found.clips_per_second:8.1f} clips/s, step "
            f"{found.step_milliseconds:8.1f} ms a clip, {found.mebibytes:8.0f} MiB",
            flush=True,
        )
    print(f"kept in {file}")
    return int(failed > 0)
