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

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # this folder's own files must not stand in for packages of the same name
    from sweeps.forking import start_early

    start_early(sys.argv[1:])  # before the imports below, which take as long as its own

from methods.base import method_class
from methods.trainer import steps_in
from skeletons.errors import BadInput, command, unknown
from sweeps.budget import step_seconds
from sweeps.config import Config
from sweeps.identity import data_of
from sweeps.mirror_study import StudyMirror
from sweeps.plan import Work
from sweeps.progress import Progress
from sweeps.records import out_folder
from sweeps.spaces import Space, fit_space, read_space
from sweeps.studies import best_file, conclude, summary
from sweeps.supervise import FRUITLESS
from sweeps.trial import work_through
from sweeps.tuned import with_tuned
from sweeps.tuning import Search, open_search, study_name, to_do, works_of
from sweeps.workers import GPU_LOST, Event, Processes, Tell, worker_count, worker_name

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
    if "," in own["score"]:
        raise BadInput(f"score={own['score']}: one protocol judges, e.g. score=linear_fast")
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
    for name, only in (("launcher", "local"), ("storage", "journal"), ("records", "files"), ("budget", "clips")):
        if getattr(config, name) != only:
            why = "tuning runs on one machine" if name != "budget" else "a trial is compared by its length"
            raise BadInput(f"{name}={getattr(config, name)}: {why}; leave that out")
    said = {o.partition("=")[0] for o in line}
    space = fit_space(space, config, said)
    name = study_name(works, space)
    search = Search(name, given, space, own["score"], int(own["trials"]), Path(config.runs).resolve())
    search = replace(search, command=f"{worker_name(os.getpid())} {time.time()}", limit=config.launch.lost)
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
    workers = worker_count(works[0].config, left)
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
    written = "python sweeps/tune.py " + shlex.join(line)
    left = to_do(search, study)
    with StudyMirror(search.root, search.name, works[0].config) as mirror:
        if left > 0:
            workers = worker_count(works[0].config, left)
            with Progress(left, workers) as progress:

                def tell(event: Event) -> None:
                    progress.event(*event)
                    if event[0] in ("finished", "failed"):
                        mirror.show_study(conclude(search, works, study, written))

                run_all(search, works[0].config, workers, tell)
        found = conclude(search, works, study, written)
        mirror.show_study(found)
        print(summary(found, best_file(search)))
        sys.stdout.flush()
        shown, pictures = 1, []
        if found["best"] is not None:
            drawing = [sys.executable, str(ROOT / "reports" / "figures.py"), "figure=tuning", f"study={search.name}"]
            shown = subprocess.run([*drawing, f"runs={search.root}"]).returncode
            pictures = sorted(out_folder().glob(f"*{search.name}*"))
        mirror.close([search.journal.with_suffix(".json"), best_file(search), *pictures])
    return shown


def run_all(search: Search, config: Config, workers: int, tell: Tell) -> None:
    """Carry out what is left and tell of it; one worker is this process. Another one takes the place of one that dies.

    Raises:
        BadInput: the disk is full, or workers die before they do anything.
    """
    if workers == 1:
        try:
            work_through(search, tell)
        except SystemExit as error:
            raise BadInput(GPU_LOST) from error
        return
    processes, fruitless = Processes(partial(work_through, search), config.device, config.ranks), 0
    try:
        processes.start(range(workers))
        while processes.workers:
            for event in processes.events(0.5):
                if event[0] == "stopped":
                    raise BadInput(event[2]["reason"])
                fruitless = 0
                tell(event)
            died = {slot: reason for slot, (_, reason) in processes.ended().items() if reason}
            fruitless += len(died)
            if fruitless >= FRUITLESS:
                raise BadInput(f"workers die before they do anything ({[*died.values()][-1]})")
            for reason in died.values():
                tell(("died", "", {"reason": reason}))
            processes.start([*died])
    finally:
        processes.close()


if __name__ == "__main__":
    command(main)
