"""The command's part while workers work: see that there are enough of them, and that what dead ones had gets done."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence

from skeletons.errors import BadInput
from skeletons.whole import is_full
from sweeps.execute import fail
from sweeps.plan import Work
from sweeps.records import Records
from sweeps.work_queue import Queue
from sweeps.workers import Event, Launcher

FRUITLESS = 5  # workers that died one after another, with nothing done in between
LOOK = 2.0  # seconds between two looks at the queue


def run_all(
    pieces: Queue, works: Sequence[Work], records: Records, launcher: Launcher, workers: int, limit: int
) -> Iterator[Event]:
    """Do all works and yield what happens.

    Args:
        workers: how many at once.
        limit: how often a piece may lose its worker without getting further; then it has failed.

    Raises:
        BadInput: the disk is full, or workers die before they do anything.
    """
    forgiven = {trial.number for trial in pieces.trials("RUNNING")}  # if their workers are dead, so was the sweep
    try:
        list(return_lost(pieces, records, limit, {}, forgiven))
        pieces.enqueue(works)
        yield from _supervise(pieces, records, launcher, workers, limit, forgiven)
    except OSError as error:
        if is_full(error):
            raise records.disk_full() from error
        raise
    finally:
        launcher.close()


def _supervise(
    pieces: Queue, records: Records, launcher: Launcher, workers: int, limit: int, forgiven: Collection[int]
) -> Iterator[Event]:
    busy: set[int] = set()
    fruitless, looked = 0, 0.0
    while True:
        for event in launcher.events(0.5 if busy else 0.0):
            if event[0] == "stopped":
                raise BadInput(event[2]["reason"])
            fruitless = 0
            yield event
        ended = launcher.ended()
        busy -= ended.keys()
        if not ended and busy and time.monotonic() - looked < LOOK:
            continue
        looked = time.monotonic()
        yield from return_lost(pieces, records, limit, dict(ended.values()), forgiven)
        left = [trial.state.name for trial in pieces.trials("WAITING", "RUNNING")]
        if not left and not busy:
            return
        if not left:
            launcher.enough()
        died = [reason for _, reason in ended.values() if reason]
        fruitless += len(died)
        if fruitless >= FRUITLESS:
            raise BadInput(f"workers die before they do anything ({died[-1]})")
        free = [slot for slot in range(workers) if slot not in busy]
        if new := free[: left.count("WAITING")]:
            launcher.start(new)
            busy |= set(new)
        if not busy:
            time.sleep(LOOK)  # what is left is being done by another command


def return_lost(
    pieces: Queue, records: Records, limit: int, ended: Mapping[str, str], forgiven: Collection[int] = ()
) -> Iterator[Event]:
    """Give back what dead workers had taken, or record it as failed.

    Args:
        ended: name of a worker that is known to have ended -> why ("" for no reason).
        forgiven: see `Queue.give_back`.
    """
    why = next(filter(None, ended.values()), "no sign of life")

    def progress(work: Work) -> int | None:
        if work.results and records.complete(work.pretraining, work.results):
            return None
        return records.progress(work.pretraining, work.results)

    for work, lost in pieces.give_back(limit, progress, ended, forgiven):
        told = {"cell": work.cell, "split": work.split, "seed": work.seed}
        if lost < limit:
            yield "given back", work.key, {**told, "reason": why}
        elif not records.complete(work.pretraining, work.results):
            reason = f"lost its worker {lost} times ({why})"
            fail(work, records, reason)
            yield "failed", work.key, {**told, "reason": reason}
