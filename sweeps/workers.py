"""The queue and who works on it.

An Optuna study on journal storage is the queue: pieces of work are enqueued trials, so workers never take the same one.
The files in `runs/` are the truth: what is complete there is not enqueued, and a trial whose worker died is given back
by enqueueing its work again.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.config import from_yaml, to_yaml
from sweeps.execute import execute
from sweeps.identity import Judgement
from sweeps.plan import Work
from sweeps.records import Records
from sweeps.remote import shared

if TYPE_CHECKING:
    from optuna import Study

Event = tuple[str, str, dict[str, Any]]  # kind, key of the work, details


def open_study(path: Path, name: str) -> Study:
    """The study called `name` in a journal file, made if it is not there."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental-feature notices
        storage = JournalStorage(JournalFileBackend(str(path)))
        return optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)


def enqueue(study: Study, works: Sequence[Work], records: Records) -> None:
    """Put work in the queue that is neither there nor being done by somebody alive."""
    from optuna.trial import TrialState

    waiting = set()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
        key, identity = trial.user_attrs.get("key"), trial.user_attrs.get("pretraining", "")
        owned = (identity, *(need["pretraining"] for need in trial.user_attrs.get("needs", ())))
        if trial.state == TrialState.WAITING or any(map(records.is_owned, owned)):
            waiting.add(key)
        else:  # its worker died
            study.tell(trial.number, state=TrialState.FAIL)
    for work in sorted(works, key=lambda w: bool(w.needs)):  # who needs others waits for them: last, all are there
        if work.key not in waiting:
            params = {"cell": work.cell, "split": work.split, "seed": work.seed}
            study.enqueue_trial(params, user_attrs={"key": work.key, **_told(work)})


def _told(work: Work) -> dict[str, Any]:
    """A piece of work as plain values, for the queue."""
    told: dict[str, Any] = {"pretraining": work.pretraining, "config": to_yaml(work.config)}
    told |= {"cell": work.cell, "split": work.split, "raw": work.raw, "needs": [_told(need) for need in work.needs]}
    told["judgements"] = {name: asdict(judgement) for name, judgement in work.judgements.items()}
    return told


def _work_of(a: dict[str, Any]) -> Work:
    """The piece of work that `_told` wrote down."""
    config = from_yaml(a["config"])
    judgements = {key: Judgement(**fields) for key, fields in a["judgements"].items()}
    needs = tuple(map(_work_of, a["needs"]))
    return Work(a["cell"], a["split"], config.seeds[0], config, a["pretraining"], judgements, a["raw"], needs)


def pull(journal: Path, name: str, records: Records, tell: Callable[[Event], None]) -> None:
    """Take work from the queue until it is empty. A piece that fails is recorded, the others go on."""
    from optuna.trial import TrialState

    study = open_study(journal, name)
    while study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        trial = study.ask()
        if "key" not in trial.user_attrs:  # somebody else took the last one between the two lines above
            study.tell(trial, state=TrialState.FAIL)
            return
        work = _work_of(trial.user_attrs)
        tell(("started", work.key, {"cell": work.cell, "split": work.split, "seed": work.seed}))
        try:
            with shared(work, records):
                execute(work, records, lambda kind, details, key=work.key: tell((kind, key, details)))  # type: ignore[misc]
        except Exception as error:
            study.tell(trial, state=TrialState.FAIL)
            tell(("failed", work.key, {"reason": str(error) or type(error).__name__}))
            continue
        scores = [records.result(work.pretraining, j) for j in work.results]
        study.tell(trial, scores[0]["value"] if scores and scores[0] else 0.0)
        tell(("finished", work.key, {}))


def _child(journal: Path, name: str, root: Path, number: int, events: Any) -> None:
    """A worker process; it does not outlive its parent, even one that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    try:
        pull(journal, name, Records(root), events.put)
    except KeyboardInterrupt:
        sys.exit(130)


def run_all(journal: Path, name: str, works: Sequence[Work], records: Records, workers: int) -> Iterator[Event]:
    """Do all works and yield what happens.

    Args:
        workers: processes; with 1 everything happens in this one.
    """
    study = open_study(journal, name)
    enqueue(study, works, records)
    if workers == 1:
        yield from _in_this_process(journal, name, records)
        return
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    processes = [
        context.Process(target=_child, args=(journal, name, records.root, n, events), daemon=True)
        for n in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        while any(p.is_alive() for p in processes) or not events.empty():
            try:
                yield events.get(timeout=0.5)
            except queue.Empty:
                continue
    finally:
        for process in processes:
            process.terminate()
            process.join()
    dead = [p.exitcode for p in processes if p.exitcode]
    if dead:
        yield (
            "died",
            "",
            {"reason": f"{len(dead)} worker(s) died (exit status {dead[0]}); run the command again"},
        )


def _in_this_process(journal: Path, name: str, records: Records) -> Iterator[Event]:
    """Events of `pull`, through a thread so that they arrive while it works."""
    events: queue.Queue[Event | None] = queue.Queue()

    def work() -> None:
        try:
            pull(journal, name, records, events.put)
        finally:
            events.put(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while (event := events.get()) is not None:
        yield event
    thread.join()


def worker_count(asked: int, threads: int, works: int, device: str) -> int:
    """Processes to start: as asked, or one for each `threads` cores (on a GPU: one)."""
    if asked > 0:
        return min(asked, max(1, works))
    if device.startswith("cuda"):
        return 1
    cores = len(os.sched_getaffinity(0))
    return max(1, min(works, cores // max(1, threads)))


__all__ = ["Event", "enqueue", "open_study", "pull", "run_all", "worker_count"]
