"""Workers pull pieces of work from the queue until it is empty; here, those of this machine.

A worker that dies gives its piece back: the command enqueues it again and starts another worker in its place. A piece
that keeps killing its workers without getting any further is recorded as failed.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from skeletons.errors import BadInput
from skeletons.whole import is_full
from sweeps.config import Config
from sweeps.execute import execute, fail
from sweeps.forking import open_to_interruption, start_server
from sweeps.identity import device_of
from sweeps.records import Records
from sweeps.remote import shared
from sweeps.work_queue import Address, Queue, worker_name

Event = tuple[str, str, dict[str, Any]]  # kind, key of the work, details
Tell = Callable[[Event], None]
GPU_LOST = "this process can use its GPU no more; the same command goes on with the rest"


class Launcher(Protocol):
    """Where workers run. Each has a slot, from 0, which says which GPU it gets."""

    def start(self, slots: Sequence[int]) -> None:
        """Start a worker in each of these slots."""

    def events(self, timeout: float) -> Iterator[Event]:
        """What happened, as far as workers tell; waits up to `timeout` seconds for it."""

    def ended(self) -> dict[int, tuple[str, str]]:
        """Slots whose worker has ended since last asked -> its name in the queue, and why it died ("": it did not)."""

    def enough(self) -> None:
        """Nothing is left to do: workers that have not begun need not."""

    def close(self) -> None:
        """The command ends, or was interrupted."""


def pull(address: Address, root: Path, tell: Tell) -> None:
    """Take work from the queue until it is empty. A piece that fails is recorded, the others go on.

    Raises:
        BadInput: the disk is full. This is no piece's failure: what was begun goes on with the next command.
    """
    records, pieces = Records(root), Queue(address)
    while _pull_one(pieces, records, tell):
        pass


def _pull_one(pieces: Queue, records: Records, tell: Tell) -> bool:
    import torch

    with pieces.next() as claim:
        if claim is None:
            return False
        work = claim.work
        tell(("started", work.key, {"cell": work.cell, "split": work.split, "seed": work.seed}))
        try:
            with shared(work, records):
                execute(work, records, lambda kind, details: tell((kind, work.key, details)))
        except Exception as error:  # of any kind: this piece failed, and is told so; the others go on
            if is_full(error):
                raise records.disk_full() from error
            reason = str(error) or type(error).__name__
            fail(work, records, reason, traceback.format_exc())  # e.g. the server of the records was away
            pieces.fail(claim)
            tell(("failed", work.key, {"reason": reason}))
            if isinstance(error, torch.AcceleratorError):
                sys.exit(1)  # this process can use its GPU no more; another worker takes its place
            return True
        scores = [records.result(work.pretraining, j) for j in work.results]
        pieces.finish(claim, scores[0]["value"] if scores and scores[0] else 0.0)
        tell(("finished", work.key, {}))
    return True


def take_gpu(slot: int, device: str, ranks: int = 1) -> None:
    """Make "cuda" mean the GPU of a slot, or the first of its `ranks`, round robin; a GPU that was named stays."""
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        places = max(1, torch.cuda.device_count() // ranks)
        torch.cuda.set_device(slot % places * ranks)


def _child(job: Callable[[Tell], None], slot: int, device: str, ranks: int, events: Connection) -> None:
    """A worker process; it does not outlive its parent, even one that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    try:
        open_to_interruption()
        take_gpu(slot, device, ranks)
        job(events.send)
    except BadInput as error:
        events.send(("stopped", "", {"reason": str(error)}))
    except KeyboardInterrupt:
        sys.exit(130)


class Processes:
    """Workers as processes of this machine.

    Each has a pipe of its own: a queue that all share has a lock that a killed worker would take with it.

    Args:
        job: what each of them does; it is given where to tell of events.
        device: as in a configuration.
        ranks: GPUs that a worker needs.
    """

    def __init__(self, job: Callable[[Tell], None], device: str, ranks: int = 1):
        self.job, self.device, self.ranks = job, device, ranks
        self.workers: dict[int, tuple[Any, Connection]] = {}

    def start(self, slots: Sequence[int]) -> None:
        start_server()
        context = multiprocessing.get_context("forkserver")
        for slot in slots:
            ours, theirs = context.Pipe(duplex=False)
            arguments = (self.job, slot, self.device, self.ranks, theirs)
            process = context.Process(target=_child, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self.workers[slot] = process, ours

    def events(self, timeout: float) -> Iterator[Event]:
        pipes = [pipe for _, pipe in self.workers.values() if not pipe.closed]
        for pipe in wait(pipes, timeout) if pipes else ():
            assert isinstance(pipe, Connection)
            try:
                while pipe.poll():
                    yield pipe.recv()
            except (EOFError, OSError):  # it ended, perhaps in the middle of a word
                pipe.close()

    def ended(self) -> dict[int, tuple[str, str]]:
        found = {}
        for slot, (process, pipe) in list(self.workers.items()):
            if pipe.closed:  # all it had to say was heard
                process.join()
                found[slot] = worker_name(process.pid), how_it_died(process.exitcode)
                del self.workers[slot]
        return found

    def enough(self) -> None:
        """Those that have not begun end by themselves."""

    def close(self) -> None:
        for process, _ in self.workers.values():
            process.terminate()
        for process, pipe in self.workers.values():
            process.join()
            pipe.close()


class ThisProcess:
    """One worker, in a thread of this process: its events arrive while it works."""

    def __init__(self, address: Address, root: Path):
        self.address, self.root = address, root
        self.told: queue.Queue[Event | None] = queue.Queue()
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def start(self, slots: Sequence[int]) -> None:
        def work() -> None:
            try:
                pull(self.address, self.root, self.told.put)
            except BaseException as error:
                self.error = error
            finally:
                self.told.put(None)

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()

    def events(self, timeout: float) -> Iterator[Event]:
        try:
            while (event := self.told.get(timeout=timeout)) is not None:
                yield event
        except queue.Empty:
            return

    def ended(self) -> dict[int, tuple[str, str]]:
        if self.thread is None or not self.told.empty():
            return {}
        self.thread.join(0.1)
        if self.thread.is_alive():
            return {}
        self.thread = None
        if isinstance(self.error, SystemExit):
            raise BadInput(GPU_LOST)
        if self.error is not None:
            raise self.error
        return {0: (worker_name(os.getpid()), "")}

    def enough(self) -> None:
        """It ends by itself."""

    def close(self) -> None:
        """The thread ends with the process."""


def how_it_died(status: int | None) -> str:
    """Words for the exit status of a process; none for a good one."""
    if not status:
        return ""
    if status > 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def worker_count(config: Config, works: int) -> int:
    """Workers for so many works: as asked; or as many as there are works, where a cluster shares out its machines; or,
    here, one for each GPU or core that a work does not share with another."""
    import torch

    works, device = max(1, works), device_of(config)
    if config.workers > 0 or config.launcher != "local":
        return min(config.workers or works, works)
    if device.startswith("cuda"):
        return max(1, min(works, torch.cuda.device_count() // config.ranks)) if device == "cuda" else 1
    return max(1, min(works, len(os.sched_getaffinity(0)) // max(1, config.threads * config.ranks)))
