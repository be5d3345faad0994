"""The one training loop: pretraining, supervised training, and later probing and fine-tuning.

Everything random is keyed by (seed, step), so a run that is killed and started again gives bit-identical weights (same
kind of device, same number of threads). Lengths are said in steps, epochs, clips seen, or shares of the run, because
papers' "epochs" are not comparable: SLiM's is 1,250 steps, about 24 passes over NTU-60.

Several processes can train together (methods/distributed.py): each takes its block of the global batch and of its
draws, so that they train as one process would with the same `train.batch`, up to the order of sums. Dropout and
stochastic depth alone are drawn by each rank for itself. Rank 0 evaluates and writes.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from methods.base import Method
from methods.checkpoint import load_checkpoint, save_checkpoint
from methods.distributed import average, copy_first, everywhere, rank, world
from methods.losses import effective_rank, spread
from methods.optimisation import TrainConfig, clip_gradients, optimizer_for, rate, steps_in, update_groups
from skeletons.errors import BadInput
from skeletons.randomness import Draws, permutation
from skeletons.sampling import Sampler, centre_view
from skeletons.whole import written_whole

VERSION = 1
__all__ = [
    "TrainConfig",
    "TrainingFailed",
    "batch_clips",
    "collapse_watch",
    "optimizer_for",
    "rate",
    "steps_in",
    "train",
]
Evaluator = Callable[[nn.Module, int], Iterable[tuple[str, float]]]


class TrainingFailed(RuntimeError):
    """Training cannot go on; says where it stopped and what is left."""


def batch_clips(step: int, batch: int, clips: int, seed: int, cache: dict[int, np.ndarray] | None = None) -> Tensor:
    """Rows (clip) of the batch at `step`: passes over all clips, each in its own order, cut into batches.

    Args:
        cache: orders already drawn, by pass.
    """
    place = np.arange(step * batch, (step + 1) * batch)
    rows = np.empty(batch, np.int64)
    for number in np.unique(place // clips):
        known = cache is not None and int(number) in cache
        order = cache[int(number)] if known and cache else permutation(clips, seed, "order", int(number))
        if cache is not None and not known:
            cache.clear()
            cache[int(number)] = order
        here = place // clips == number
        rows[here] = order[place[here] % clips]
    return torch.from_numpy(rows)


def collapse_watch(encoder: nn.Module, sampler: Sampler, clips: int = 256) -> Iterator[tuple[str, float]]:
    """Spread and effective rank of the features of some training clips: both fall when a method collapses."""
    rows = torch.arange(min(clips, len(sampler.store)), device=sampler.store.device)
    batch = centre_view(sampler.store, rows, sampler.config)
    with torch.no_grad():
        features = encoder(batch.joints[:, 0]).patches.flatten(1, 2).mean(1)
    yield "feature_spread", spread(features)
    yield "feature_rank", effective_rank(features)


def train(
    method: Method,
    sampler: Sampler,
    config: TrainConfig,
    seed: int,
    folder: Path | None = None,
    evaluators: Iterable[Evaluator] = (),
    progress: Callable[[int, int, dict[str, float]], None] = lambda step, steps, metrics: None,
    identity: str = "",
) -> list[dict[str, float]]:
    """Train `method` and return the lines of its metrics.

    Args:
        method: on the device of the sampler's store.
        seed: of the order of clips and of every draw.
        folder: where `checkpoint.pt` and `metrics.jsonl` go; an unfinished run there is continued, by all ranks.
        evaluators: given (encoder, step) now and then, each yields (name, value).
        progress: told of every logged step.
        identity: of the run; a checkpoint of another one is refused.

    Raises:
        TrainingFailed: the loss is not finite.
        BadInput: settings or a checkpoint that cannot be used.
    """
    config.check()
    if config.batch % world():
        raise BadInput(f"train.batch={config.batch} must be a multiple of ranks={world()}, which share it equally")
    share = config.batch // world()
    own = slice(rank() * share, (rank() + 1) * share)
    device, clips = sampler.store.device, len(sampler.store)
    steps = max(1, steps_in(config.length, config.batch, clips))
    warmup, frozen = (steps_in(length, config.batch, clips, steps) for length in (config.warmup, config.freeze_last))
    optimizer = optimizer_for(method, config)
    first, lines = _resume(method, optimizer, folder, device, identity)
    if everywhere(first, torch.empty(0, device=device)) != first * world():
        raise BadInput(f"{folder}: ranks see different checkpoints; it must lie where all of them can read it")
    copy_first(method)
    loss_of = torch.compile(method.loss) if config.compile else method.loss
    amp = torch.autocast(device.type, torch.bfloat16) if config.precision == "bf16" else contextlib.nullcontext()
    evaluate_at = {round(steps * (i + 1) / config.evaluations) for i in range(config.evaluations)}
    orders: dict[int, np.ndarray] = {}
    began = saved = time.monotonic()
    method.train()
    for step in range(first, steps):
        torch.manual_seed(Draws(seed, step, "torch", *([rank()] if rank() else [])).torch_seed())
        lr = update_groups(optimizer, config, step, steps, warmup, frozen)
        method.before_step(step / steps)
        draws = Draws(seed, step, device=device, rank=rank(), world=world())
        views = sampler(batch_clips(step, config.batch, clips, seed, orders)[own].to(device), draws)
        with amp:
            parts = loss_of(views, draws)
        parts["loss"].backward()
        parts = average(method.parameters(), parts)
        norm = clip_gradients(method, optimizer, config)
        logging = (step + 1) % config.log_every == 0 or step + 1 == steps
        due = time.monotonic() - saved >= config.checkpoint_seconds or step + 1 == steps
        saving = folder is not None and rank() == 0 and due
        if (device.type == "cpu" or logging or saving) and not torch.isfinite(parts["loss"] + norm):
            raise TrainingFailed(_not_finite(step, parts, folder))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.after_step((step + 1) / steps)
        if logging or step + 1 in evaluate_at:
            line = {
                "step": step + 1,
                **{k: float(v.detach()) for k, v in parts.items()},
                "lr": lr,
                "grad_norm": float(norm),
            }
            line["clips_per_second"] = (step + 1 - first) * config.batch / (time.monotonic() - began)
            line["time"] = time.time()
            if step + 1 in evaluate_at and rank() == 0:
                line.update(_evaluations(method, sampler, evaluators, step + 1))
            lines.append(line)
            progress(step + 1, steps, line)
        if folder is not None and saving:
            _save(method, optimizer, folder, step + 1, lines, identity)
            saved = time.monotonic()
    return lines


def _evaluations(method: Method, sampler: Sampler, evaluators: Iterable[Evaluator], step: int) -> dict[str, float]:
    method.eval()
    found = dict(collapse_watch(method.kept, sampler))
    for evaluator in evaluators:
        found.update(evaluator(method.kept, step))
    method.train()
    return found


def _not_finite(step: int, parts: dict[str, Tensor], folder: Path | None) -> str:
    shown = ", ".join(f"{k} {float(v.detach()):.4g}" for k, v in parts.items())
    left = "nothing was saved yet"
    if folder is not None and (folder / "checkpoint.pt").is_file():
        state = load_checkpoint(folder / "checkpoint.pt", torch.device("cpu"))
        left = f"the last good checkpoint is {folder / 'checkpoint.pt'}, step {state['step'] if state else 0}"
    return f"the loss or its gradient is not finite at step {step + 1} ({shown}); {left}; try a smaller train.lr"


def _save(
    method: Method, optimizer: torch.optim.Optimizer, folder: Path, step: int, lines: list, identity: str
) -> None:
    # Metrics travel inside the checkpoint, so that both are always of the same step. Their file is written first: a run
    # that is killed in between will write it again.
    with written_whole(folder / "metrics.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    state = {
        "identity": identity,
        "step": step,
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "metrics": lines,
    }
    save_checkpoint(folder / "checkpoint.pt", state)


def _resume(
    method: Method, optimizer: torch.optim.Optimizer, folder: Path | None, device: torch.device, identity: str
) -> tuple[int, list[dict[str, float]]]:
    """First step to take, and the metrics so far; loads the checkpoint where there is one."""
    state = load_checkpoint(folder / "checkpoint.pt", device) if folder is not None else None
    if state is None:
        return 0, []
    if state["identity"] != identity:
        raise BadInput(f"{folder}: holds a checkpoint of another run ({state['identity']}); choose another folder")
    method.load_state_dict(state["method"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["metrics"]
