"""One piece of work: have the encoder (pretrain it if it is not there), then run the protocols that are missing."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from methods.base import Method, build, method_class
from methods.checkpoint import save_encoder, told_with
from methods.distributed import rank, world
from methods.released import open_encoder
from methods.trainer import TrainingFailed, steps_in, train
from protocols.features import extract
from protocols.retrieval import retrieve
from skeletons.augment import Augmentation, for_labels
from skeletons.clips import Clips
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import ClipTensors, Sampler
from skeletons.splits import Split, withhold
from skeletons.whole import is_full
from sweeps.composing import to_yaml
from sweeps.config import Config
from sweeps.costs import parts_of
from sweeps.fusion import fused_result
from sweeps.identity import data_of, device_of, pretraining_identity, stream_of
from sweeps.judging import Report, judge, write_result
from sweeps.notes import source_of
from sweeps.plan import Work, poolings_of
from sweeps.ranks import device_here, together
from sweeps.records import Records, provenance, write_json, write_text


def execute(work: Work, records: Records, report: Report = lambda event, details: None) -> None:
    """Do what is missing of a piece of work; what is there is left alone.

    Args:
        report: told of ("training", {step, steps, metrics}) and ("judged", {protocol, top1}).

    Raises:
        TrainingFailed, BadInput, ...: what failed first; each failure is recorded where its result should stand.
    """
    for need in work.needs:
        if failure_of(need, records) is None:
            try:
                execute(need, records, report)
            except Exception as error:  # `failing` put it on file; what needs it says so below
                if is_full(error):
                    raise
    torch.set_num_threads(work.config.threads)
    with records.owned(work.pretraining) as folder:
        if records.complete(work.pretraining, work.results):
            return
        if work.needs:
            combine(work, records, folder, report)
            return
        if not work.raw and not records.encoder(work.pretraining).is_file():
            with records.failing(work.pretraining):
                (adopt if work.config.encoder else pretrain)(work, folder, report)
        judge(work, records, report)


def failure_of(work: Work, records: Records) -> str | None:
    """Why a piece of work is not complete, if it failed."""
    if records.complete(work.pretraining, work.results):
        return None
    found = records.failure(work.pretraining, work.results)
    return found["reason"] if found else None


def fail(work: Work, records: Records, reason: str, trace: str = "") -> None:
    """Put on file why a piece of work failed, where nothing says so yet: at its encoder or its first missing result."""
    if records.complete(work.pretraining, work.results) or failure_of(work, records):
        return
    trained = work.raw or work.needs or records.encoder(work.pretraining).is_file()
    missing = (j for j in work.results if records.result(work.pretraining, j) is None)
    records.fail(work.pretraining, next(missing, "") if trained else "", reason, trace)


def make_method(config: Config, data: Clips, train_clips: int, device: str) -> Method:
    """The method with its initial weights, a function of the seed alone."""
    torch.manual_seed(Draws(config.seeds[0], "weights").torch_seed())
    steps = max(1, steps_in(config.train.length, config.train.batch, train_clips))
    method = build(parts_of(config, data.topology, len(data.class_names), steps, bool(data.chiral)))
    return method.to(device)


def make_sampler(config: Config, data: Clips, rows: np.ndarray, device: str) -> Sampler:
    """Training batches of the clips `rows`, as the method wants them."""
    method = method_class(config.method.name)
    augment = for_labels(config.augment, bool(data.chiral)) if method.uses_labels else config.augment
    augmentation = Augmentation(augment, data.topology, bool(data.chiral))
    store = ClipTensors(data, device, rows)
    wanted = (method.crops, method.local_views, method.one_person, method.uses_labels, method.augments)
    return Sampler(store, config.views, augmentation, *wanted)


def adopt(work: Work, folder: Path, report: Report) -> None:
    """Put an encoder that was given as a file into `folder`, as if it had been trained there."""
    path = Path(work.config.encoder)
    write_text(folder / "config.yaml", to_yaml(work.config))
    _nothing_trained(work, folder, {"method": "encoder", "encoder": str(path.resolve())})
    trained = {key: value for key, value in told_with(path).items() if key in ("data", "split", "fingerprint")}
    kept = {"identity": work.pretraining, "file": path.name, **trained, **stream_of(data_of(work.config)[0])}
    save_encoder(folder / "encoder.safetensors", open_encoder(path), kept)


def _nothing_trained(work: Work, folder: Path, own: dict[str, Any]) -> None:
    """The run.json of a piece that trains nothing itself."""
    about = {
        "identity": work.pretraining,
        **own,
        "data": data_of(work.config)[0].name,
        "split": work.split,
        "seconds": 0.0,
        "clips_per_second": None,
        "last": {},
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        **provenance(),
    }
    write_json(folder / "run.json", about)


def pretrain(work: Work, folder: Path, report: Report) -> None:
    """Train the encoder into `folder`, going on from a checkpoint where there is one."""
    config = work.config
    data, part = data_of(config)
    identity, content = pretraining_identity(config, data, part)
    write_text(folder / "config.yaml", to_yaml(config))
    began = time.monotonic()
    with together(config, folder, work.pretraining):
        method, lines = trained(config, folder, work.pretraining, report)
    about = {
        "identity": identity,
        "hashed": content,
        "method": config.method.name,
        "source": source_of(config),
        "data": data.name,
        "stream": data.stream,
        "split": part.name,
        "train_clips": len(part.train),
        "seconds": time.monotonic() - began,
        "clips_per_second": lines[-1]["clips_per_second"] if lines else None,
        "last": lines[-1] if lines else {},
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        **provenance(),
    }
    write_json(folder / "run.json", about)
    kept = {"identity": identity, "method": config.method.name}
    if method.trains:  # untrained encoders are the same for all data and streams
        kept |= {"data": data.name, "split": part.name, "fingerprint": data.fingerprint, **stream_of(data)}
    save_encoder(folder / "encoder.safetensors", method.kept, kept)
    (folder / "checkpoint.pt").unlink(missing_ok=True)


def trained(
    config: Config, folder: Path, identity: str, report: Report = lambda event, details: None
) -> tuple[Method, list[dict[str, float]]]:
    """The method of a configuration, trained, and its metrics; what every rank of a training does.

    Raises:
        BadInput: on this machine the configuration means another training than the one called `identity`, e.g. on a
            GPU where the plan, made without one, said `device=auto`.
    """
    data, part = data_of(config)
    if (here := pretraining_identity(config, data, part)[0]) != identity:
        who = f"rank {rank()}" if world() > 1 else f"{platform.node()} ({device_of(config)}, torch {torch.__version__})"
        raise BadInput(f"{who} would train {here}, not {identity}: its device, data, torch or SkelBench differ")
    device = device_here(config)
    method = make_method(config, data, len(part.train), device)
    if not method.trains:
        return method, []
    sampler = make_sampler(config, data, part.train, device)

    def told(step: int, steps: int, metrics: dict[str, float]) -> None:
        report("training", {"step": step, "steps": steps, **metrics})

    watch = online_retrieval(config, data, part, sampler.store)
    return method, train(method, sampler, config.train, config.seeds[0], folder, [watch], told, identity)


def online_retrieval(config: Config, data: Clips, part: Split, store: ClipTensors) -> Callable:
    """1-NN accuracy while training, of withheld training subjects against the others: the test split is not read."""
    fit, held = (torch.from_numpy(np.searchsorted(part.train, rows)) for rows in withhold(data, part.train))

    def evaluator(encoder: Any, step: int) -> Iterator[tuple[str, float]]:
        x = extract(encoder, store, torch.arange(len(store)), config.views, poolings_of(config)[""])
        y = store.labels.cpu()
        yield "knn", 100 * float(retrieve(x[fit], y[fit], x[held], y[held]).float().mean())

    return evaluator


def combine(work: Work, records: Records, folder: Path, report: Report) -> None:
    """Fuse the scores of the works that this one needs, where that is missing."""
    write_text(folder / "config.yaml", to_yaml(work.config))
    fused = [need.pretraining for need in work.needs]
    _nothing_trained(work, folder, {"method": work.config.method.name, "fused": fused})
    streams = "+".join(need.config.data.stream for need in work.needs)
    for key, judgement in work.judgements.items():
        if records.result_file(work.pretraining, judgement.identity).is_file():
            continue
        with records.failing(work.pretraining, judgement.identity):
            for need in work.needs:
                if reason := failure_of(need, records):
                    raise TrainingFailed(f"{need.cell}, which it needs, failed: {reason}")
            data, part = data_of(work.config, judgement.target)
            result = fused_result(work, key, records)
            write_result(work, records, judgement, result, replace(data, stream=streams), part, None)
        report("judged", {"protocol": key, "top1": result.metrics["top1"]})


def metrics_of(folder: Path) -> list[dict[str, float]]:
    """Lines of a run's metrics."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
