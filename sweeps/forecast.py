"""What missing pieces of work will cost: their FLOPs, and the time that earlier runs on such a machine lead to expect.

A run of the same configuration, whatever its length and seed, says its speed outright. For one that was never run the
speed is that of the nearest run there is, by FLOPs: of the same method, else of any. Where nothing was ever run, no
time is given. Counts are kept in `runs/forecast.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any, NamedTuple

from methods.base import method_class
from methods.trainer import steps_in
from skeletons.errors import BadInput
from sweeps.budget import step_flops, throughput_key
from sweeps.composing import from_yaml
from sweeps.config import Config
from sweeps.identity import data_of, device_of, digest
from sweeps.plan import Work
from sweeps.records import Records, provenance, read_json, write_json

# Of a pretraining identity: what changes how long a run is, or nothing of its speed.
LENGTH = {"seed": 0, "steps": 1, "warmup": 1}


class Expected(NamedTuple):
    """What a piece of work will cost.

    Attributes:
        flops: of the training that is missing; 0 where none is.
        seconds: of training and judging, on one worker; None where nothing was ever measured.
        measured: this very configuration was run before, at this or another length.
    """

    flops: float
    seconds: float | None
    measured: bool


@dataclass
class Forecast:
    """Costs, from what the records know.

    Args:
        records: earlier runs.
        count: count FLOPs that were never counted; without it (it takes about a second a configuration) what was never
            run has no time.
    """

    records: Records
    count: bool = True
    counted: dict[str, float] = field(default_factory=dict)
    rates: dict[tuple[str, str, int], float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counted = read_json(self.records.root / "forecast.json") or {}

    def of(self, works: Sequence[Work]) -> dict[str, Expected]:
        """Key of each work -> what it will cost; what several works need is counted for the first of them."""
        before, found = len(self.counted), {}
        trained: set[str] = set()
        for work in works:
            parts = [self._one(part, trained) for part in (*work.needs, work)]
            times = [part.seconds for part in parts]
            whole = None if None in times else sum(t for t in times if t is not None)
            found[work.key] = Expected(sum(p.flops for p in parts), whole, all(p.measured for p in parts))
        if len(self.counted) > before:
            write_json(self.records.root / "forecast.json", self.counted)
        return found

    def _one(self, work: Work, trained: set[str]) -> Expected:
        judging = sum(
            self._judging.get((j.protocol, work.config.data.name), 0.0)
            for j in work.judgements.values()
            if not self.records.result_file(work.pretraining, j.identity).is_file()
        )
        there = work.raw or work.config.encoder or work.needs or not method_class(work.config.method.name).trains
        if there or work.pretraining in trained or self.records.encoder(work.pretraining).is_file():
            return Expected(0, judging, True)
        trained.add(work.pretraining)
        config = work.config
        data, part = data_of(config)
        steps = max(1, steps_in(config.train.length, config.train.batch, len(part.train)))
        key = throughput_key(config, data)
        if not self.count:
            speed = self._speeds.get(key)
            return Expected(0, None if speed is None else steps * speed + judging, speed is not None)
        flops = self._step(config)
        if key in self._speeds:
            return Expected(steps * flops, steps * self._speeds[key] + judging, True)
        rate = self._rate(config)
        return Expected(steps * flops, steps * flops / rate + judging if rate else None, False)

    def _step(self, config: Config) -> float:
        """FLOPs of a training step, counted once."""
        key = digest(["flops", throughput_key(config, data_of(config)[0])])
        if key not in self.counted:
            self.counted[key] = step_flops(config)
        return self.counted[key]

    def _rate(self, config: Config) -> float | None:
        """FLOPs a second of the nearest configuration that was run on such a device; looked for once."""
        key = config.method.name, device_of(config).partition(":")[0], config.threads
        if key not in self.rates:
            self.rates[key] = self._nearest(*key)
        return self.rates[key]

    def _nearest(self, method: str, *place: object) -> float | None:
        known = [run for run in self._runs if (run["hashed"]["device"], run["hashed"]["threads"]) == place]
        known.sort(key=lambda run: run["method"] == method)  # those last, the newest at the very end
        for run in reversed(known):
            try:
                its = from_yaml((self.records.run(run["identity"]) / "config.yaml").read_text())
            except (BadInput, OSError):  # an older version's
                continue
            return self._step(its) / self._speeds[_speed_key(run)]
        return None

    @cached_property
    def _runs(self) -> list[dict[str, Any]]:
        """Runs that were trained on such a machine, oldest first."""
        found = [run for run in self._read("*/run.json") if run.get("clips_per_second") and "hashed" in run]
        found = [run for run in found if run["machine"] == provenance()["machine"]]
        return sorted(found, key=lambda run: run["finished"])

    @cached_property
    def _speeds(self) -> dict[str, float]:
        """What the time of a step depends on -> median seconds of a step."""
        seconds: dict[str, list[float]] = {}
        for run in self._runs:
            batch = run["hashed"]["fields"]["train"].get("batch", Config().train.batch)
            seconds.setdefault(_speed_key(run), []).append(batch / run["clips_per_second"])
        return {key: median(values) for key, values in seconds.items()}

    @cached_property
    def _judging(self) -> dict[tuple[str, str], float]:
        """(protocol, data) -> median seconds."""
        seconds: dict[tuple[str, str], list[float]] = {}
        for result in self._read("*/eval/*/result.json"):
            if "seconds" in result:
                seconds.setdefault((result["protocol"], result["data"]), []).append(result["seconds"])
        return {key: median(values) for key, values in seconds.items()}

    def _read(self, pattern: str) -> Iterator[dict[str, Any]]:
        """Files that can be read; a forecast does not fail on a damaged one, whoever needs it says so."""
        for path in self.records.root.glob(pattern):
            try:
                yield json.loads(path.read_text())
            except (OSError, json.JSONDecodeError):
                continue


def _speed_key(run: dict[str, Any]) -> str:
    """`throughput_key` of the configuration that a run had."""
    return digest({k: v for k, v in run["hashed"].items() if k != "frozen"} | LENGTH)


def in_words(seconds: float) -> str:
    """A time as a person says it: 40 s, 12 min, 3.5 h, 2.1 days."""
    for unit, size, until in (("s", 1, 90), ("min", 60, 90 * 60), ("h", 3600, 36 * 3600)):
        if seconds < until:
            return f"{seconds / size:.0f} {unit}" if seconds / size >= 10 else f"{seconds / size:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"


def flops_in_words(flops: float) -> str:
    """E.g. 3.2 TFLOPs."""
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if flops >= size:
            return f"{flops / size:.3g} {prefix}FLOPs"
    return f"{flops / 1e9:.2g} GFLOPs"
