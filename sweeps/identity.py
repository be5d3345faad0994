"""The identity of what a piece of work will produce: a hash of all that can change it, and of nothing else.

What can change a result (the fields that a piece reads and that differ from their defaults, component versions, the
data's fingerprint, precision, threads, kind of device) hashes to its identity; what cannot (workers, paths) stays out.
So the full SLiM of several tables is trained once, and a new protocol reuses every encoder there is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from methods import backbone, decoder, trainer
from methods.backbone import Transformer
from methods.base import Method, method_class
from methods.encoder import encoder_kinds
from methods.masking import MaskingConfig, all_strategies
from methods.trainer import steps_in
from protocols import features
from protocols.base import make_protocol
from skeletons import augment, clips, sampling
from skeletons.clips import Clips
from skeletons.sources import DataConfig, open_clips
from skeletons.splits import Split, split
from skeletons.streams import JOINT
from sweeps.composing import compose
from sweeps.config import Config, differing, select

RAW = "raw"
# Fields of `train` that cannot change the weights; length, warmup and freeze_last enter as steps.
NEUTRAL = ("log_every", "evaluations", "checkpoint_seconds", "length", "warmup", "freeze_last")


@dataclass(frozen=True)
class Judgement:
    """One protocol on one encoder.

    Attributes:
        identity: of its result.
        protocol: as in `protocol.names`.
        pooling: of the features.
        target: data to judge on; empty means the data it was trained on.
        heading: of its column in tables.
    """

    identity: str
    protocol: str
    pooling: str
    target: str = ""
    heading: str = ""


def digest(content: Any) -> str:
    """12 hexadecimal digits of canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]


@cache
def _opened(name: str, root: str | None, file: str | None, cache_folder: str | None, stream: str) -> Clips:
    return open_clips(DataConfig(name=name, root=root, file=file, cache=cache_folder, stream=stream))


def data_of(config: Config, target: str = "") -> tuple[Clips, Split]:
    """The clips and the split of a configuration; opened once in a process.

    Args:
        target: other data to judge on, see `target_of`.
    """
    d = target_of(config, target) if target else config.data
    found = _opened(d.name, d.root, d.file, d.cache, d.stream)
    return found, split(found, d.split)


@cache
def _named(target: str) -> DataConfig:
    return compose([f"data={target}"]).data


def target_of(config: Config, target: str) -> DataConfig:
    """The data that a transfer goes to, by its own default split, from the same folders and as the same stream;
    `NAME@SPLIT` says another split."""
    name, _, part = target.partition("@")
    found = _named(name)
    d = config.data
    return replace(found, root=d.root, cache=d.cache, stream=d.stream, split=part or found.split)


def device_of(config: Config) -> str:
    """The device to run on: auto takes a GPU where there is one."""
    import torch

    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.device


def _masking_identity(method: type[Method], config: MaskingConfig) -> dict[str, Any]:
    """What the method's strategies read of the masking section."""
    found: dict[str, Any] = {}
    plain = MaskingConfig()
    for view, name in method.strategies(config).items():
        chosen = all_strategies()[name]
        fields = {field: getattr(config, field) for field in chosen.reads}
        fields |= {
            field: getattr(config, field) for field in chosen.options if getattr(config, field) != getattr(plain, field)
        }
        if view == "local" and name != "none":
            fields["probability"] = config.local_probability
            if config.local_largest_area and "largest_area" in fields:
                fields["largest_area"] = config.local_largest_area
        if view == "global" and name != "none" and config.global_probability != plain.global_probability:
            fields["probability"] = config.global_probability
        if view in ("global", "local") and name != "none" and config.ratio_draw != plain.ratio_draw:
            fields["ratio_draw"] = config.ratio_draw
        found[view] = {"strategy": name, "version": chosen.version, **fields}
    return found


def stream_of(data: Clips) -> dict[str, str]:
    """The stream, for an identity and for an encoder's file: nothing where it is the neutral one."""
    return {} if data.stream == JOINT else {"stream": data.stream}


def pretraining_identity(config: Config, data: Clips, part: Split) -> tuple[str, dict[str, Any]]:
    """Identity of the encoder that a configuration makes, and the content that was hashed."""
    method = method_class(config.method.name)
    read = {path: differing(select(config, path), None) for path in method.reads if path != "train"}
    content: dict[str, Any] = {
        "method": method.name,
        "fields": {k: v for k, v in read.items() if v not in ({}, None)},
        "versions": {"method": method.version, "backbone": backbone.VERSION},
        "topology": [data.topology.joints, data.topology.parents],
        "seed": config.seeds[0],
    }
    if config.backbone.kind != Transformer.kind:
        content["versions"][config.backbone.kind] = encoder_kinds()[config.backbone.kind].version
    if method.trains:
        train = config.train
        steps = max(1, steps_in(train.length, train.batch, len(part.train)))
        content["fields"]["train"] = {k: v for k, v in differing(train, None).items() if k not in NEUTRAL}
        content |= {
            "steps": steps,
            "warmup": steps_in(train.warmup, train.batch, len(part.train), steps),
            "masking": _masking_identity(method, config.masking),
            "data": data.fingerprint,
            "train_clips": digest(np.asarray(part.train).tolist()),
            "chiral": bool(data.chiral),
            **_computed_by(config),
        }
        # Like threads, ranks add up in another order: the same training, but for its last bits.
        content |= {"ranks": config.ranks} if config.ranks != 1 else {}
        frozen = steps_in(train.freeze_last, train.batch, len(part.train), steps)
        content |= ({"frozen": frozen} if frozen else {}) | stream_of(data)
        if method.augments and data.stream != JOINT:  # 1 augmented bones and motion; nothing else changed
            content["versions"]["augments"] = 2
        if data.chiral and (method.augments or method.uses_labels):  # 1 mirrored views by themselves, and labelled ones
            content["versions"]["chiral"] = 2
        content["versions"] |= {
            "decoder": decoder.VERSION,
            "trainer": trainer.VERSION,
            "sampling": sampling.VERSION,
            "augment": augment.VERSION,
            "clips": clips.VERSION,
        }
    return digest(content), content


def given_identity(config: Config) -> str:
    """Identity of an encoder that is given as a file, run by this version's code."""
    content: dict[str, Any] = {"file": hashlib.sha256(Path(config.encoder).read_bytes()).hexdigest()}
    kind = config.backbone.kind
    content["versions"] = {"backbone": backbone.VERSION, kind: encoder_kinds()[kind].version}
    return digest(content)


def judgement(config: Config, protocol: str, pooling: str, target: str = "", raw: bool = False) -> Judgement:
    """A protocol on the encoder that a configuration makes."""
    judge = make_protocol(protocol, config.protocol)
    data, part = data_of(config, target)
    content = {
        "protocol": protocol,
        "version": judge.version,
        "features": features.VERSION,
        "versions": {"sampling": sampling.VERSION, "augment": augment.VERSION, "trainer": trainer.VERSION},
        "probe": None,
        **{name: differing(select(config.protocol, name), None) for name in judge.reads},
        **_judged_on(data, part),
        **_computed_by(config),
        "pooling": RAW if raw else pooling,
        "test_crop": config.views.test_crop,
        "seed": config.seeds[0] if judge.seeded else None,
    }
    return Judgement(digest(content), protocol, RAW if raw else pooling, target, judge.heading)


def _judged_on(data: Clips, part: Split) -> dict[str, Any]:
    """The clips of a split, and what protocols read of them beside coordinates and labels."""
    return {
        "data": data.fingerprint,
        "split": part.name,
        "train_clips": _of_array(part.train),
        "test_clips": _of_array(part.test),
        "subjects": _of_array(data.table["subject"]) if "subject" in data.table else None,
        "chiral": data.chiral,
        "classes": len(data.class_names),
        "topology": [data.topology.joints, data.topology.parents],
        **stream_of(data),
    }


def _computed_by(config: Config) -> dict[str, Any]:
    """What the last bits depend on."""
    import torch

    return {
        "threads": config.threads,
        "device": device_of(config).partition(":")[0],
        "torch": torch.__version__.partition("+")[0],
    }


def _of_array(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()[:12]
