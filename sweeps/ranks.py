"""One training in several processes (ranks) that share each of its batches (methods/distributed.py).

`ranks=N` starts the others here, on this machine: N - 1 followers for each training, which end with it. Where the whole
command runs under torchrun, for ranks on several machines that share `runs` and the data, its processes are the ranks:
the first works as always, the others follow it from training to training.

Rank 0 is whoever does the work: it owns the run's folder, its lock, checkpoints, records and evaluations. A follower is
told a configuration and a folder, trains the same from the same checkpoint, and writes nothing; it ends when rank 0
does, however that ends. Each training has a process group of its own, so that one which broke leaves nothing behind.

On GPUs each rank of a machine has one, from the worker's on, and they talk through NCCL; not run
yet, for want of two.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from methods import distributed
from methods.base import build, method_class
from methods.trainer import TrainingFailed
from skeletons.errors import BadInput
from sweeps.composing import from_yaml, to_yaml
from sweeps.config import Config
from sweeps.costs import parts_of
from sweeps.identity import data_of, device_of

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = timedelta(hours=1)  # for who is still evaluating; a rank that dies is noticed at once (gloo)
LONG = timedelta(days=30)  # between two trainings


def check(config: Config) -> None:
    """Raises BadInput where the ranks that a configuration asks for cannot be."""
    if config.ranks < 1:
        raise BadInput(f"ranks={config.ranks} must be at least 1")
    if config.train.batch % config.ranks:
        raise BadInput(f"train.batch={config.train.batch} must be a multiple of ranks={config.ranks}: they share it")
    gpus = torch.cuda.device_count() if device_of(config).startswith("cuda") else config.ranks
    if config.ranks > gpus and config.launcher == "local" and not dist.is_torchelastic_launched():
        raise BadInput(f"ranks={config.ranks}: this machine has {gpus} GPU(s), and each rank its own")
    if config.ranks > 1 and method_class(config.method.name).trains:
        data, _ = data_of(config)
        method = build(parts_of(config, data.topology, len(data.class_names)))
        if alone := distributed.of_one_rank(method):
            remedy = "take BatchNorm of methods/distributed.py"
            raise BadInput(f"method {config.method.name!r}: {alone[0]} is a batch norm of each rank alone; {remedy}")


def device_here(config: Config) -> str:
    """The device of this process: of the GPUs from the first on, each rank of a machine has its own.

    Raises:
        BadInput: there are not so many.
    """
    if distributed.world() == 1 or not device_of(config).startswith("cuda"):
        return device_of(config)
    here = int(os.environ["LOCAL_RANK"]) if dist.is_torchelastic_launched() else distributed.rank()
    first = _first_gpu(config)
    own = int(first.partition(":")[2]) + here
    if own >= torch.cuda.device_count():
        raise BadInput(f"ranks={config.ranks} from {first} on: there is no cuda:{own}")
    torch.cuda.set_device(own)
    return f"cuda:{own}"


def _first_gpu(config: Config) -> str:
    """The device of rank 0: as named, else the one that `take_gpu` gave this worker. Under torchrun, which has one
    worker, the first: there each rank asks for itself."""
    device = device_of(config)
    if device != "cuda":
        return device
    return f"cuda:{0 if dist.is_torchelastic_launched() else torch.cuda.current_device()}"


@contextmanager
def together(config: Config, folder: Path, identity: str) -> Iterator[None]:
    """In this context this process is rank 0 and the others train the same, where the configuration asks for more than
    one rank.

    Args:
        folder: of the run, where all of them look for a checkpoint.
        identity: of the run.

    Raises:
        TrainingFailed: another rank died.
    """
    if config.ranks == 1 or not method_class(config.method.name).trains:
        yield
        return
    with ExitStack() as stack:
        followers: list[Follower] = []
        if dist.is_torchelastic_launched():
            store = _rendezvous()[0]
        else:
            apart = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skelbench-ranks-")))
            store = dist.FileStore(str(apart / "store"), config.ranks)
            followers = [stack.enter_context(_follower(r, config.ranks, apart)) for r in range(1, config.ranks)]
        number = store.add("trainings", 1) - 1
        work = {
            "config": to_yaml(replace(config, device=_first_gpu(config))),
            "folder": str(folder),
            "identity": identity,
        }
        store.set(f"training {number}", json.dumps(work))
        _meet(store, number, config.ranks, followers)
        with _group(store, number, 0, config):
            try:
                yield
            except TrainingFailed:  # all of them say the same
                raise
            except RuntimeError:
                _name_lost(followers, 10.0)
                raise
            for follower in followers:  # before the group goes, or the last message may not arrive
                follower.process.wait()


class Follower(NamedTuple):
    """A process that `together` started, and the file of what it says."""

    rank: int
    process: subprocess.Popen
    said: Path


def _name_lost(followers: Sequence[Follower], wait: float) -> None:
    """Raises TrainingFailed with the last words of the follower that failed first, if one has.

    Args:
        wait: seconds for one that is about to end.
    """
    lost = []
    for follower in followers:
        with suppress(subprocess.TimeoutExpired):
            if follower.process.wait(wait):
                lost.append(follower)
    if lost:
        first = min(lost, key=lambda follower: follower.said.stat().st_mtime)
        words = first.said.read_text().strip().splitlines() or [f"exit status {first.process.returncode}"]
        raise TrainingFailed(f"rank {first.rank} of {len(followers) + 1} ended before the training did: {words[-1]}")


@contextmanager
def _follower(number: int, ranks: int, folder: Path) -> Iterator[Follower]:
    """A process on this machine that follows through one training. It reads a pipe that ends with this process."""
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    line = [sys.executable, "-P", "-m", "sweeps.ranks", str(number), str(ranks), str(folder / "store")]
    said = folder / f"said {number}"
    with open(said, "w") as words:
        process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=words, stderr=words, env=environment)
    try:
        yield Follower(number, process, said)
    finally:
        process.kill()
        process.communicate()


def _meet(store: dist.Store, number: int, ranks: int, followers: Sequence[Follower]) -> None:
    """Wait until all ranks are there: in the group itself nobody would notice one that does not come."""
    awaited = [f"here {number} {r}" for r in range(1, ranks)]
    while not store.check(awaited):
        _name_lost(followers, 0.0)
        time.sleep(0.02)


@contextmanager
def _group(store: dist.Store, number: int, rank: int, config: Config) -> Iterator[None]:
    """The process group of one training."""
    gpu = device_of(config).startswith("cuda")
    if not dist.is_torchelastic_launched() and Path("/sys/class/net/lo").exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # ranks of one machine
    dist.init_process_group(
        "nccl" if gpu else "gloo",
        store=dist.PrefixStore(f"group {number}", store),
        rank=rank,
        world_size=config.ranks,
        timeout=PATIENCE,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _follow(store: dist.Store, rank: int, number: int) -> bool:
    """Take part in a training; returns whether there was one.

    Raises:
        BadInput: this rank would train something else.
    """
    from sweeps.execute import trained  # it leads trainings, and so stands above this file

    work = json.loads(store.get(f"training {number}"))
    if not work:
        return False
    config = from_yaml(work["config"])
    torch.set_num_threads(config.threads)
    store.set(f"here {number} {rank}", "")
    with _group(store, number, rank, config):
        trained(config, Path(work["folder"]), work["identity"])
    return True


def main(arguments: Sequence[str]) -> None:
    """A follower that `together` started: RANK RANKS STORE."""
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
    number, ranks, path = arguments
    _follow(dist.FileStore(path, int(ranks)), int(number), 0)


@cache
def _rendezvous() -> tuple[dist.Store, int, int]:
    """torchrun's store, this process's rank, and how many there are."""
    store, rank, ranks = next(iter(dist.rendezvous("env://")))
    store.set_timeout(LONG)
    return store, rank, ranks


def under_torchrun(main: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str]], int]:
    """`main` for a command that may run under torchrun: then the first process does it, with as many ranks as there
    are, and the others follow."""

    def led(command: Sequence[str]) -> int:
        if not dist.is_torchelastic_launched():
            return main(command)
        store, rank, ranks = _rendezvous()
        if rank == 0:
            try:
                return main([*command, f"ranks={ranks}", "workers=1"])
            finally:
                store.set(f"training {store.add('trainings', 1) - 1}", "null")
        for number in itertools.count():
            try:
                if not _follow(store, rank, number):
                    break
            except Exception:  # rank 0 says what failed, and goes on with other work
                traceback.print_exc()
        return 0

    return led


if __name__ == "__main__":
    main(sys.argv[1:])
