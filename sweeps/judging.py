"""An encoder, judged: the protocols whose results are missing, and each result on file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from methods.base import method_class
from methods.checkpoint import load_encoder, told_with
from methods.encoder import Encoder
from protocols.base import Result, Subject, accuracy, make_protocol
from skeletons.audit import verdict_on
from skeletons.clips import Clips
from skeletons.copies import copies
from skeletons.errors import BadInput
from skeletons.sampling import ClipTensors
from skeletons.splits import Split, split
from skeletons.whole import is_full, written_whole
from sweeps.identity import Judgement, data_of, device_of
from sweeps.plan import Work
from sweeps.records import Records, provenance, write_json

PEEKED = "best_test was looked at on the way and used for nothing"
Report = Callable[[str, dict[str, Any]], None]


def judge(work: Work, records: Records, report: Report) -> None:
    """Run the protocols whose results are missing; the features of one pooling are extracted once. Where one fails, the
    others are run all the same."""
    config, device = work.config, device_of(work.config)
    with records.failing(work.pretraining):
        encoder = None if work.raw else load_encoder(records.encoder(work.pretraining), device)
    subjects: dict[tuple[str, str], Subject] = {}
    failed: list[Exception] = []

    def one(judgement: Judgement) -> float:
        data, part = data_of(config, judgement.target)
        seen = judgement.target, judgement.pooling
        if seen not in subjects:
            same = next((s for (target, _), s in subjects.items() if target == judgement.target), None)
            store = same.store if same else ClipTensors(data, device)
            subjects[seen] = Subject(encoder, data, part, store, config.views, judgement.pooling, work.seed)
        protocol = make_protocol(judgement.protocol, config.protocol)
        began = time.monotonic()
        result = protocol(subjects[seen])
        result.details["seconds"] = time.monotonic() - began
        told = judgement if work.raw or protocol.pools else replace(judgement, pooling="its own")
        write_result(work, records, told, result, data, part, encoder)
        return next(iter(result.metrics.values()))

    for key, judgement in work.judgements.items():
        if records.result_file(work.pretraining, judgement.identity).is_file():
            continue
        try:
            with records.failing(work.pretraining, judgement.identity):
                top1 = one(judgement)
        except Exception as error:  # `failing` put it on file; the first is raised when all were tried
            if is_full(error):
                raise
            failed.append(error)
        else:
            report("judged", {"protocol": key, "top1": top1})
    if failed:
        raise failed[0]


def write_result(
    work: Work,
    records: Records,
    judgement: Judgement,
    result: Result,
    data: Clips,
    part: Split,
    encoder: Encoder | None,
) -> None:
    """Put a result on file, its arrays first: where there is a result, there is all of it."""
    truth = torch.from_numpy(data.labels[part.test])
    arrays: dict[str, Any] = dict(result.arrays)
    if result.predicted is not None:
        arrays["predicted"] = result.predicted.numpy()
    if arrays:
        arrays |= {"truth": truth.numpy(), "class_names": np.array(data.class_names)}
        with written_whole(records.arrays_file(work.pretraining, judgement.identity)) as temporary:
            np.savez_compressed(temporary, **arrays)
    about = {
        "protocol": judgement.protocol,
        "identity": judgement.identity,
        "pretraining": work.pretraining,
        "data": data.name,
        **trained_on(work, records, data, part),
        "fingerprint": data.fingerprint,
        "split": part.name,
        "stream": data.stream,
        "pooling": judgement.pooling,
        "seed": work.seed,
        "selection": "last epoch; " + (PEEKED if "best_test" in result.metrics else "test split read once"),
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        **provenance(),
    }
    if encoder is not None and encoder.topology != data.topology:
        known = encoder.topology.joints
        about["joints_shared"] = [joint for joint in data.topology.joints if joint in known]
        about["joints_unknown"] = [joint for joint in data.topology.joints if joint not in known]
    if data.chiral:
        about["chiral"] = len(data.chiral)
    if said := verdict_on(data, part.name):
        about["audit"] = said
    write_json(records.result_file(work.pretraining, judgement.identity), {**_told(result, data, part), **about})


def trained_on(work: Work, records: Records, data: Clips, part: Split) -> dict[str, Any]:
    """What an encoder was trained on: data, split, and how many of the test clips were among its training clips, where
    these are not the training clips of the split it is judged on."""
    config = work.config
    if not config.encoder:
        source, learnt = data_of(config)
        trains = not work.raw and method_class(config.method.name).trains
        told = {"trained_on": source.name, "trained_split": learnt.name}
    else:
        known = told_with(records.encoder(work.pretraining))
        told = {"trained_on": known.get("data", "unknown data"), "trained_split": known.get("split", "")}
        if trains := known.get("fingerprint") == data.fingerprint:
            try:
                source, learnt = data, split(data, known["split"])
            except BadInput:  # a split that this file no longer has
                trains = False
    if not trains or (source.fingerprint == data.fingerprint and np.array_equal(learnt.train, part.train)):
        return told
    return {**told, "test_clips_seen": int(copies(data, part.test, source, learnt.train).sum())}


def _told(result: Result, data: Clips, part: Split) -> dict[str, Any]:
    """A protocol's result as plain values; on splits with training clips among the test clips, also without those."""
    truth = torch.from_numpy(data.labels[part.test])
    found = {"recipe": result.recipe, **result.details, **result.metrics, "value": next(iter(result.metrics.values()))}
    neither = np.setdiff1d(np.arange(len(data)), np.concatenate([part.train, part.test]))
    found |= {"train_clips": len(part.train), "test_clips": len(part.test), "left_out": data.names(neither)}
    if result.predicted is None:
        return found
    right = (result.predicted == truth).reshape(-1, len(truth))
    found["correct"] = ["".join("1" if c else "0" for c in draw) for draw in right.tolist()]
    twins = copies(data, part.test, data, part.train)
    if twins.any():
        clean = torch.from_numpy(~twins)
        alone = accuracy(result.predicted[..., clean], truth[clean])
        found |= {"top1_without_twins": alone, "clips_without_twins": int(clean.sum())}
    return found
