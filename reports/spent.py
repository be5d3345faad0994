"""What a run cost in FLOPs, from its records: counted on the meta device, once for each configuration, and kept in
`runs/flops.json`, for counting takes about as long as drawing.

A clip of one person, on the joints of the data that was trained on. FLOPs = 2 x MAC (see reports/flops.py).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

from skeletons.errors import BadInput
from skeletons.topology import topology_of
from sweeps.composing import from_yaml
from sweeps.config import Config
from sweeps.identity import digest
from sweeps.records import Records, read_json, write_json

VERSION = 1


@dataclass(frozen=True)
class Spent:
    """FLOPs of one run.

    Attributes:
        inference: of the encoder that is kept, on one person of one clip.
        training: of the whole training, all views, networks and heads, forward and backward; 0 where nothing is
            trained.
    """

    inference: float
    training: float


def spent(records: Records, identities: list[str]) -> dict[str, Spent]:
    """What each run cost; without those that were trained elsewhere (an encoder that was given) or whose configuration
    cannot be read."""
    path = records.root / "flops.json"
    known: dict[str, Any] = read_json(path) or {}
    found, before = {}, len(known)
    for identity in identities:
        told = records.about(identity).get("hashed")
        if not told:
            continue
        shape = {name: told.get(name) for name in ("method", "fields", "versions", "topology", "masking")}
        key = digest({"counting": VERSION, **shape})
        if key not in known:
            if (config := config_of(records, identity)) is None:
                continue
            inference, step = counted_on(config, topology_of(*told["topology"]))
            known[key] = {"method": told["method"], "inference": inference, "step": step}
        one = known[key]
        found[identity] = Spent(one["inference"], one["step"] * told.get("steps", 0))
    if len(known) > before:
        with suppress(OSError):  # of somebody else's records nothing is kept
            write_json(path, known)
    return found


def config_of(records: Records, identity: str) -> Config | None:
    """The configuration that a run was trained with, without how it was judged, which may be of another version; None
    where it is gone, or has settings that this version does not know."""
    path = records.run(identity) / "config.yaml"
    if not path.is_file():
        return None
    read = yaml.load(path.read_text(), Loader=yaml.SafeLoader)
    with suppress(BadInput):
        return from_yaml(yaml.safe_dump({k: v for k, v in read.items() if k not in ("protocol", "ablation")}))
    return None


def counted_on(config: Config, topology: Any) -> tuple[int, int]:
    """FLOPs of the encoder on one person, and of a training step on clips of one person."""
    import torch

    from methods.base import build
    from methods.flops import counted
    from sweeps.costs import CLASSES, count_views, parts_of

    method = build(parts_of(config, topology, CLASSES)).to("meta")
    joints = torch.empty(1, config.views.frames, len(topology), 3, device="meta")
    inference = counted(lambda: method.kept(joints))
    if not method.trains:
        return inference, 0
    return inference, sum(count_views(config, topology, 1).flops.values())
