"""What methods cost, counted once and remembered: FLOPs on the meta device, and what was measured on real devices.

Counting a training step takes seconds, and a report shows every method in both settings. So what is known of a
configuration lies in `costs.json`, under a key of all that a count reads: the one that came with this program
(reports/results/costs.json), then the runs' own, which gets what had to be counted anew.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from methods import backbone, decoder
from methods.base import Parts, all_methods, method_class
from methods.encoder import encoder_kinds
from sweeps.composing import compose
from sweeps.config import Config, differing
from sweeps.costs import MethodCost, Pass, cost
from sweeps.groups import options
from sweeps.identity import digest
from sweeps.records import read_json, write_json

SHIPPED = Path(__file__).resolve().parent / "results" / "costs.json"
NAME = "costs.json"
SECTIONS = [name for name in Parts.__dataclass_fields__ if name in Config.__dataclass_fields__]
IDLE = ("log_every", "evaluations", "checkpoint_seconds")  # of `train`: they change no step


@dataclass(frozen=True)
class Measured:
    """What one configuration took on one device (reports/measuring.py); one thread on a CPU unless said otherwise.

    Attributes:
        device, threads, torch, commit, date: where and when.
        milliseconds: the encoder that is kept on one clip of one person, median.
        clips_per_second: the same on `clips` clips at once.
        clips: of that batch.
        step_milliseconds: a training step on a clip of two persons (one where the method trains on one), without
            loading and augmentation; 0 where nothing is trained.
        mebibytes: peak of a training step's memory above what the program takes before it: weights, optimiser,
            gradients, activations.
        step_clips: of that step.
    """

    device: str
    threads: int
    torch: str
    commit: str
    date: str
    milliseconds: float
    clips_per_second: float
    clips: int
    step_milliseconds: float
    mebibytes: float
    step_clips: int


def cost_key(config: Config) -> str:
    """Digest of all that a count reads."""
    method = method_class(config.method.name)
    read = {name: differing(getattr(config, name), None) for name in SECTIONS}
    read |= {"train": {k: v for k, v in differing(config.train, None).items() if k not in IDLE}}
    versions = {"method": method.version, "backbone": backbone.VERSION, "decoder": decoder.VERSION}
    versions["kind"] = encoder_kinds()[config.backbone.kind].version
    return digest({"method": method.name, "fields": read, "versions": versions})


@cache
def every_method(scale: str) -> dict[tuple[str, str], Config]:
    """(method, setting) -> configuration, of all methods with a configuration of their own."""
    return {
        (name, setting): compose([f"method={name}", f"setting={setting}", f"scale={scale}"])
        for name in options("method")
        if name in all_methods()
        for setting in reversed(options("setting"))  # the authors' first
    }


class Costs:
    """Costs that are known, and counting where they are not.

    Args:
        root: folder of the runs, where what is counted anew is kept; None keeps nothing.
    """

    def __init__(self, root: Path | None = None):
        self.file = root / NAME if root else None
        self.known = [read_json(file) or {} for file in (SHIPPED, self.file) if file]

    def _find(self, kind: str, key: str) -> dict[str, Any]:
        return {name: one for known in self.known for name, one in known.get(kind, {}).get(key, {}).items()}

    def counted(self, config: Config) -> MethodCost:
        """FLOPs and parameters."""
        key = cost_key(config)
        if not (found := self._find("counted", key)):
            found = as_plain(cost(config))
            self.keep({"counted": {key: found}})
        return from_plain(config, found)

    def measured(self, config: Config) -> dict[str, Measured]:
        """Device -> what it took there; empty where it was not measured."""
        return {device: Measured(**one) for device, one in self._find("measured", cost_key(config)).items()}

    def keep(self, new: dict[str, dict[str, dict]], file: Path | None = None) -> None:
        """Add to the runs' file, or another one.

        Args:
            new: "counted" -> key -> what; "measured" -> key -> device -> what.
        """
        file = file or self.file
        if file is None or not file.parent.is_dir():
            return
        known = read_json(file) or {}
        for kind, entries in new.items():
            for key, entry in entries.items():
                known.setdefault(kind, {}).setdefault(key, {}).update(entry)
        write_json(file, known)
        self.known.append(new)


def as_plain(found: MethodCost) -> dict[str, Any]:
    """Without its configuration, for JSON."""
    return {f.name: asdict(found)[f.name] if f.name == "step" else getattr(found, f.name) for f in fields(found)[1:]}


def from_plain(config: Config, plain: dict[str, Any]) -> MethodCost:
    """The other way."""
    found = MethodCost(config, Pass(*plain["inference"]))
    passes = {name: Pass(*one) for name, one in plain["passes"].items()}
    rest = {k: v for k, v in plain.items() if k not in ("inference", "passes", "terms")}
    return replace(found, passes=passes, terms=tuple(plain["terms"]), **rest)
