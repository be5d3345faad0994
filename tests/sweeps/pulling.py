"""Trivial pieces of work, and workers that only note which they were given."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from functools import partial
from pathlib import Path

from methods.base import method_class
from sweeps import workers
from sweeps.config import Config
from sweeps.plan import Work
from sweeps.work_queue import Address, Queue
from sweeps.workers import Processes, Tell


def trivial(cells: int) -> list[Work]:
    """As many pieces, without anything to judge: complete from the start, so that only their order to run counts."""
    method = method_class("untrained").Config(name="untrained")
    return [
        Work(f"cell{n}", "xsub", n, Config(method=method, seeds=[n]), f"run{n}", {}, raw=True) for n in range(cells)
    ]


def note(address: Address, root: Path, tell: Tell) -> None:
    """What a worker does instead of `workers.pull`: a piece is noted with one append, and done.

    A piece for which there is a file `kill-CELL` kills its worker, once for each letter in that file.
    """

    def execute(work: Work, *_: object) -> None:
        with open(root / "executed", "a") as file:
            file.write(f"{work.cell}\n")
        deadly = root / f"kill-{work.cell}"
        if deadly.is_file() and (left := deadly.read_text()):
            deadly.write_text(left[1:])
            os.kill(os.getpid(), signal.SIGKILL)

    workers.execute = execute
    workers.pull(address, root, tell)


def noting(address: Address, root: Path) -> Processes:
    """Such workers, as processes."""
    return Processes(partial(note, address, root), "cpu")


def _take_and_die(address: Address) -> None:
    Queue(address).next().__enter__()
    os.kill(os.getpid(), signal.SIGKILL)


def lose_a_worker(address: Address) -> None:
    """A worker of some other command takes a piece, and loses its power."""
    process = multiprocessing.get_context("forkserver").Process(target=_take_and_die, args=(address,))
    process.start()
    process.join()


def executed(root: Path) -> Counter[str]:
    """Cell -> how often it was executed."""
    return Counter((root / "executed").read_text().split())
