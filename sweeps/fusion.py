"""Score fusion as pieces of work: one for each stream, and one that adds up what these left on file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from protocols import fusion
from protocols.base import Result, accuracy
from protocols.fusion import FusionConfig, fuse, fused_protocol
from skeletons.errors import BadInput
from sweeps.config import Config
from sweeps.identity import Judgement, digest
from sweeps.plan import Work, work_of
from sweeps.records import Records


def stream_works(cell: str, config: Config, raw: bool = False) -> list[Work]:
    """The works of a cell that asks for fusion: `CELL joint`, ... and `CELL fused`, which needs them.

    The streams' works are the same as those of `data.stream=...` without fusion. Raw coordinates are not fused.

    Raises:
        BadInput: the encoder is given as a file, which is of one stream.
    """
    if config.encoder:
        raise BadInput(
            f"protocol=fusion trains an encoder on each stream; {config.encoder} is one, judge it by another"
        )
    settings, names = config.protocol.fusion, config.protocol.names
    fused = {name: fused_protocol(name, config.protocol) for name in names}
    judged = {protocol for protocol in fused.values() if protocol}
    plain = list(dict.fromkeys(protocol or name for name, protocol in fused.items()))
    alone = replace(config, protocol=replace(config.protocol, names=plain))
    each = tuple(
        work_of(f"{cell} {stream}", replace(alone, data=replace(config.data, stream=stream)), raw)
        for stream in settings.streams
    )
    if raw:
        return list(each)
    judgements = {
        key: _fused(key, one, each, settings) for key, one in each[0].judgements.items() if one.protocol in judged
    }
    identity = digest({"fused": [work.pretraining for work in each]})
    return [*each, Work(f"{cell} fused", each[0].split, each[0].seed, config, identity, judgements, needs=each)]


def _fused(key: str, one: Judgement, each: tuple[Work, ...], settings: FusionConfig) -> Judgement:
    """The judgement that adds up the streams' judgements called `key`, of which `one` is the first."""
    content = {
        "protocol": fusion.NAME,
        "version": fusion.VERSION,
        "of": [[work.pretraining, work.judgements[key].identity] for work in each],
        "weights": settings.weights,
        "scores": settings.scores,
    }
    return replace(one, identity=digest(content), protocol=fusion.NAME)


def fused_result(work: Work, key: str, records: Records) -> Result:
    """What the streams' encoders find together.

    Args:
        work: one that needs the streams' works, which are complete.
        key: of the judgement.

    Raises:
        BadInput: a stream's result was stored without its scores.
    """
    settings = work.config.protocol.fusion
    found = [_stored(records, need, need.judgements[key]) for need in work.needs]
    scores, truth = [s for s, _ in found], found[0][1]
    assert all(torch.equal(t, truth) for _, t in found), "streams are of the same test clips"
    fused = fuse(scores, settings)
    metrics = {"top1": accuracy(fused.argmax(-1), truth)}
    metrics |= {f"top1_{s}": accuracy(x.argmax(-1), truth) for s, x in zip(settings.streams, scores)}
    details = {"streams": settings.streams, "weights": settings.weights}
    return Result(metrics, settings.recipe, fused.argmax(-1), details, {"scores": fused.numpy()})


def _stored(records: Records, work: Work, judgement: Judgement) -> tuple[Tensor, Tensor]:
    """Scores (..., test, class) and classes (test) that a result has on file."""
    path = records.arrays_file(work.pretraining, judgement.identity)
    arrays = np.load(path, allow_pickle=False) if path.is_file() else {}
    if "scores" not in arrays:
        raise BadInput(f"{path.parent}: holds a result without scores; remove that folder and run again")
    return torch.from_numpy(arrays["scores"]).float(), torch.from_numpy(arrays["truth"])
