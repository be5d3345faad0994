"""The fast linear probe: its own time on many clips, against other solvers, and against the slow probe.

`linear probe, slow against fast` counts everything from clips to predictions, on generated clips (demo), with both
probes' defaults: the slow one encodes every training clip once an epoch, 100 in all, for one rate; the fast one encodes
each of them four times, tries its 24 settings, and fits the chosen one again. The encoder has the papers' size, cut to
two layers (`quick`: width 32, 10 epochs for both, so its ratio says little).
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from methods.backbone import Transformer
from methods.encoder import EncoderConfig
from protocols.base import Subject, make_protocol
from protocols.linear import LinearConfig
from protocols.linear_fast import ProbeConfig, fit
from skeletons.clips import Clips
from skeletons.randomness import permutation
from skeletons.sampling import ClipTensors, ViewConfig
from skeletons.sources import DataConfig, open_clips
from skeletons.splits import Split, split
from sweeps.config import ProtocolConfig


def features(clips: int, width: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy features of one crop around a centre for each class."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(clips) % classes
    centres = 0.25 * torch.randn(classes, width, generator=generator)
    return (centres[y] + torch.randn(clips, width, generator=generator))[None], y


def many_clips(quick: bool) -> list[dict]:
    """SGD on all settings at once; wall and processor time, which differ where the machine is busy."""
    clips, width, classes, length = (4000, 64, 20, "10 epochs") if quick else (40_000, 256, 60, "100 epochs")
    x, y = features(clips, width, classes)
    config = ProbeConfig(length=length, batch=1024)
    count = len(config.settings())
    wall, processor = time.perf_counter(), time.process_time()
    fit(x, y, classes, config.settings(), config, 0)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    name = f"linear_fast, {clips} x {width}, {classes} classes"
    said = f"{count} settings, {length}"
    return [
        {"benchmark": name, "measure": f"seconds, {said}", "value": wall},
        {"benchmark": name, "measure": "processor seconds, 1 thread", "value": processor},
    ]


def solvers(quick: bool) -> list[dict]:
    """One setting: SGD against scikit-learn's L-BFGS at the same weight decay; seconds, and accuracy on new clips."""
    from sklearn.linear_model import LogisticRegression

    clips, width, classes = (2000, 64, 20) if quick else (40_000, 256, 60)
    x, y = features(clips * 5 // 4, width, classes)
    train, test = (x[:, :clips], y[:clips]), (x[0, clips:], y[clips:])
    config, decay, rows = ProbeConfig(batch=1024), 1e-3, []
    began = time.perf_counter()
    found = fit(*train, classes, [(0.1, decay)], config, 0)
    times = {"SGD": time.perf_counter() - began}
    right = {"SGD": 100 * float((found.predict(test[0])[0] == test[1]).float().mean())}
    z = [((part - found.mean) * found.scale).numpy() for part in (train[0][0], test[0])]
    began = time.perf_counter()
    solved = LogisticRegression(C=1 / (decay * clips), max_iter=1000).fit(z[0], train[1].numpy())
    times["L-BFGS"] = time.perf_counter() - began
    right["L-BFGS"] = 100 * float(np.mean(solved.predict(z[1]) == test[1].numpy()))
    for solver in times:
        name = f"one setting, {clips} x {width}, {solver}"
        rows.append({"benchmark": name, "measure": "seconds", "value": times[solver]})
        rows.append({"benchmark": name, "measure": "accuracy on new clips, %", "value": right[solver]})
    return rows


def some(part: Split, count: int) -> Split:
    """So many clips of each part, drawn."""
    return Split(part.name, *(np.sort(rows[permutation(len(rows), 0)[:count]]) for rows in (part.train, part.test)))


def slow_and_fast(data: Clips, part: Split, config: EncoderConfig, frames: int, protocol: ProtocolConfig) -> list[dict]:
    """Both probes from clips to predictions, on one thread."""
    encoder, store = Transformer(config, data.topology, frames), ClipTensors(data)
    processor, right = {}, {}
    for name in ("linear", "linear_fast"):
        fresh = Subject(encoder, data, part, store, ViewConfig(frames=frames), "mean")
        began = time.process_time()
        right[name] = make_protocol(name, protocol)(fresh).metrics["top1"]
        processor[name] = time.process_time() - began
    title = f"linear probe, slow against fast, {len(part.train)} clips"
    rows = [{"benchmark": title, "measure": f"processor seconds, {n}", "value": t} for n, t in processor.items()]
    rows += [{"benchmark": title, "measure": f"accuracy, {n}, %", "value": value} for n, value in right.items()]
    ratio = processor["linear"] / processor["linear_fast"]
    return [*rows, {"benchmark": title, "measure": "linear_fast, times faster", "value": ratio}]


def run(quick: bool = False) -> list[dict]:
    """Rows of all three."""
    torch.set_num_threads(1)
    data = open_clips(DataConfig(name="demo"))
    part = split(data, "xsub")
    if quick:
        part = some(part, 96)
        size, protocol = EncoderConfig(width=32, depth=1, heads=2), ProtocolConfig()
        protocol = replace(protocol, probe=ProbeConfig(length="10 epochs"), linear=LinearConfig(length="10 epochs"))
    else:
        size, protocol = EncoderConfig(depth=2), ProtocolConfig()
        part = some(part, 288)
    torch.manual_seed(0)
    return [*many_clips(quick), *solvers(quick), *slow_and_fast(data, part, size, 16 if quick else 32, protocol)]
