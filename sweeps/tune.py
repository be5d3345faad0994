"""`python sweeps/tune.py method=slim tune=optimizer trials=50`: search for settings; the test split is never read.

tune=NAME[,NAME]     what may change                  (see sweeps/conf/tune; PATH.yaml for one's own)
trials=50            to have in the end; more of them later go on from there
score=linear_fast    protocol that judges, on training subjects that are withheld (retrieval, finetune, ...)
seeds=[0,1]          a trial's score is the mean over them
workers=N            processes; with one, the same command always ends with the same trials
retry=failed         trials that failed are done again
dry=true             what would be tuned, what is there already, and about how long it takes
All else as for sweeps/run.py (method, data, scale, setting, SECTION.FIELD=VALUE): where the search starts.
The best is written as a file for `python sweeps/run.py tuned=PATH`.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # this folder's own files must not stand in for packages of the same name

from methods.base import method_class
from methods.trainer import steps_in
from skeletons.errors import BadInput, command, unknown
from sweeps.budget import step_seconds
from sweeps.identity import data_of, device_of
from sweeps.plan import Work
from sweeps.progress import Progress
from sweeps.spaces import Space, fit_space, read_space
from sweeps.studies import best_file, conclude, summary
from sweeps.tuned import with_tuned
from sweeps.tuning import Event, Search, open_search, study_name, to_do, work_through, works_of
from sweeps.workers import worker_count

OWN = {"tune": "optimizer", "trials": "50", "score": "linear_fast", "retry": ""}


def make_search(line: Sequence[str]) -> tuple[Search, list[Work]]:
    """What the command line asks for, and the trainings that it starts from.

    Raises:
        BadInput: it is not one method on one split, or not something that can be tuned without the test split.
    """
    own = OWN | {k: v for k, _, v in (o.partition("=") for o in line) if k in OWN}
    given = with_tuned([o for o in line if o.partition("=")[0] not in OWN])
    for override in given:
        if (key := override.partition("=")[0]) in ("ablation", "encoder", "protocol.names") or key.startswith("grid."):
            raise BadInput(f"{override!r}: one method is tuned at a time, by `score=`; leave that out")
    if not own["trials"].isdigit() or not int(own["trials"]):
        raise BadInput(f"trials={own['trials']}: write a whole number of trials, e.g. trials=50")
    if own["retry"] not in ("", "failed"):
        raise unknown("retry", own["retry"], ["failed"])
    space = read_space(own["tune"])
    works = works_of(given, own["score"])
    config = works[0].config
    method = method_class(config.method.name)
    if len({work.split for work in works}) > 1 or len({work.cell for work in works}) > 1:
        raise BadInput(f"splits={config.splits}: one split is tuned on at a time; give data.split=NAME")
    if any(w.needs or not w.pretraining or any(j.target for j in w.judgements.values()) for w in works):
        raise BadInput(f"score={own['score']}: judge on the data that is trained on, e.g. score=linear_fast")
    if not method.trains or method.uses_labels:
        what = "reads the labels of the clips that tuning withholds" if method.trains else "trains nothing"
        raise BadInput(f"method {method.name!r} {what}; tune another one")
    for name, only in (("launcher", "local"), ("storage", "journal"), ("records", "files")):
        if getattr(config, name) != only:
            raise BadInput(f"{name}={getattr(config, name)}: tuning runs on one machine; leave that out")
    said = {o.partition("=")[0] for o in line}
    space = fit_space(space, config, said)
    name = study_name(works, space)
    search = Search(name, given, space, own["score"], int(own["trials"]), Path(config.runs).resolve())
    if own["retry"] and search.journal.is_file():
        failed = [t.number for t in open_search(search).get_trials(deepcopy=False) if t.state.name == "FAIL"]
        search = replace(search, again=tuple(failed))
    return search, works


def show_plan(search: Search, works: list[Work]) -> None:
    """Print the space, the trials that are there and the time that the others take (`dry=true`)."""
    _show_space(search.space)
    there = []
    if search.journal.is_file():
        there = open_search(search).get_trials(deepcopy=False)
    states = [t.state.name.lower() for t in there]
    counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states)) or "none"
    left = to_do(search, open_search(search)) if there else search.trials
    print(f"{search.name}: {search.trials} trials of seeds {[w.seed for w in works]}; there: {counts}; {left} to do")
    seconds, how = _expected(there, works)
    workers = _workers(works[0], left)
    print(f"expected: {left * seconds / workers / 60:.0f} min on {workers} worker(s), {seconds:.0f} s a trial ({how})")


def _expected(there: list[Any], works: list[Work]) -> tuple[float, str]:
    """Seconds of a trial, and how they are known."""
    known = [(t.datetime_complete - t.datetime_start).total_seconds() for t in there if t.datetime_complete]
    if known:
        return median(known), f"median of {len(known)}"
    train = works[0].config.train
    steps = max(1, steps_in(train.length, train.batch, len(data_of(works[0].config)[1].train)))
    each = step_seconds(works[0].config)
    return steps * each * len(works), f"{steps} steps of {each * 1000:.0f} ms, before pruning, without judging"


def _show_space(space: Space) -> None:
    for parameter in space.parameters:
        follow = "".join(f", and {other} with it" for other in space.along.get(parameter.key, ()))
        start = space.start[parameter.key]
        shown = f"{start:g}" if isinstance(start, float) else start
        print(f"  {parameter.key:<28} {parameter.shown():<36} from {shown}{follow}")
    for reason in dict.fromkeys(space.dropped.values()):
        print(f"  left as it is, {reason}: {', '.join(k for k, r in space.dropped.items() if r == reason)}")


def _workers(work: Work, left: int) -> int:
    config = work.config
    return worker_count(config.workers, config.threads, max(1, left), device_of(config))


def main(line: Sequence[str]) -> int:
    """Run the command line; returns the exit status."""
    if any(o in ("-h", "--help") for o in line):
        print(__doc__)
        return 0
    search, works = make_search(line)
    if works[0].config.dry:
        show_plan(search, works)
        return 0
    print(f"{search.name}: tuning by {search.score} on withheld training subjects; the test split is not read")
    _show_space(search.space)
    study = open_search(search)
    written = "python sweeps/tune.py " + " ".join(line)
    left = to_do(search, study)
    died: list[str] = []
    if left > 0:
        workers = _workers(works[0], left)
        with Progress(left, workers) as progress:

            def tell(event: Event) -> None:
                progress.event(*event)
                if event[0] in ("finished", "failed"):
                    conclude(search, works, study, written)
                if event[0] == "died":
                    died.append(event[2]["reason"])

            run_all(search, workers, tell)
    found = conclude(search, works, study, written)
    print(summary(found, best_file(search)))
    sys.stdout.flush()
    drawing = [sys.executable, str(ROOT / "reports" / "figures.py"), "figure=tuning", f"study={search.name}"]
    shown = subprocess.run([*drawing, f"runs={search.root}"]).returncode if found["best"] is not None else 1
    for reason in died:
        print(f"failed: {reason}", file=sys.stderr)
    return 1 if died else shown


def run_all(search: Search, workers: int, tell: Callable[[Event], None]) -> None:
    """Carry out what is left and tell of it; one worker is this process."""
    if workers == 1:
        work_through(search, tell)
        return
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    processes = [context.Process(target=_child, args=(search, events), daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    try:
        while any(p.is_alive() for p in processes) or not events.empty():
            with suppress(queue.Empty):
                tell(events.get(timeout=0.5))
    finally:
        for process in processes:
            process.terminate()
            process.join()
    if dead := [p.exitcode for p in processes if p.exitcode]:
        reason = f"{len(dead)} worker(s) died (exit status {dead[0]}); the same command goes on"
        tell(("died", "", {"reason": reason}))


def _child(search: Search, events: Any) -> None:
    """A worker process; it does not outlive its parent, even one that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    try:
        work_through(search, events.put)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    command(main)
