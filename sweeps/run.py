"""`python sweeps/run.py ablation=stm data=nwucla scale=small`: plan, run what is missing, print the table.

ablation=NAME        fill a table                     (see sweeps/conf/ablation)
method=NAME          train and judge one method       (see sweeps/conf/method)
encoder=PATH         judge an encoder from a file     (one of ours, or SLiM's release)
tuned=PATH           with the settings in a file      (that sweeps/tune.py wrote; what is said beside it wins)
data=NAME            demo, irds, nwucla, utdmhad, sbu, ntu60, ntu120, archive   (data.stream=joint|bone|motion)
scale=demo|small|paper   setting=paper|matched   budget=clips|flops|seconds   masking=NAME   augment=NAME
grid.KEY=a,b,c       cross values into cells
cells=[a,b]          only these cells of an ablation, beside the floors
seeds=[0,1,2]        splits=[xsub,xview]    workers=N    ranks=N    dry=true    retry=failed
page=false           print the table, draw nothing
launcher=local|slurm|ray   storage=journal|postgresql://USER@HOST/DATABASE   launch.FIELD=VALUE   beyond one machine
records=mlflow       results travel over the server of MLFLOW_TRACKING_URI: for machines that share no folder
SECTION.FIELD=VALUE  any field; sweeps/config.py lists them all
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # this folder's own files must not stand in for packages of the same name
    from sweeps.forking import start_early

    start_early(sys.argv[1:])  # before the imports below, which take as long as its own

from methods.base import support_matrix
from skeletons.errors import command
from sweeps.config import Config
from sweeps.execute import failure_of
from sweeps.identity import digest
from sweeps.launchers import check_launch
from sweeps.mirror import Mirror
from sweeps.notes import notes
from sweeps.plan import Work, make_plan
from sweeps.progress import Progress
from sweeps.ranks import under_torchrun
from sweeps.records import Records, out_folder, write_json
from sweeps.remote import fetch, send_plan, send_runs
from sweeps.tuned import read_tuned


def what_it_is(config: Config, works: Sequence[Work]) -> tuple[str, str]:
    """A short name of what is run, for files, and its title."""
    crossed: dict[str, dict[str, None]] = {}
    for work in works:
        for key, found, value in (word.partition("=") for word in work.cell.split()):
            if found:
                crossed.setdefault(key, {})[value] = None
    if config.ablation.name:
        return config.ablation.name, config.ablation.title or config.ablation.name
    if crossed:
        title = "; ".join(f"{key}: {', '.join(values)}" for key, values in crossed.items())
        return "-".join(key.rpartition(".")[2] for key in crossed), f"{title}; on {config.data.name}"
    if config.encoder:
        return "encoder", f"{Path(config.encoder).name} on {config.data.name}"
    return config.method.name, f"{config.method.name} on {config.data.name}"


def plan_name(config: Config, works: Sequence[Work]) -> str:
    """Name of a plan: what it is, and a hash of the works in it."""
    what, _ = what_it_is(config, works)
    return f"{what}-{config.data.name}-{config.scale}-{digest(sorted(w.key for w in works))[:6]}"


def write_plan(records: Records, name: str, config: Config, works: Sequence[Work], command: Sequence[str]) -> None:
    """Leave on file which runs and results fill the table, for the reports."""
    write_json(
        records.plan_file(name),
        {
            "name": name,
            "command": "python sweeps/run.py " + shlex.join(command),
            "ablation": config.ablation.name,
            "title": what_it_is(config, works)[1],
            "source": config.ablation.source,
            "differs": config.ablation.differs,
            "labels": {key: j.heading for w in works for key, j in w.judgements.items()},
            "reference": config.ablation.reference,
            "show": config.ablation.show,
            "data": config.data.name,
            "stream": " ".join(dict.fromkeys(w.config.data.stream for w in works)),
            "scale": config.scale,
            "setting": config.setting,
            "tuned": read_tuned(Path(config.tuned))["found"] if config.tuned else {},
            "written": time.time(),
            "works": [
                {
                    "cell": w.cell,
                    "split": w.split,
                    "seed": w.seed,
                    "pretraining": w.pretraining,
                    "judgements": {key: j.identity for key, j in w.judgements.items()},
                }
                for w in works
            ],
        },
    )


def show_plan(
    config: Config, works: Sequence[Work], missing: Sequence[Work], records: Records, strategies: bool = False
) -> None:
    """Print what is trained and judged how, what is there already, and what the rest will cost (`dry=true`).

    Args:
        strategies: also which methods can use which masking strategies.
    """
    from sweeps.forecast import Forecast, flops_in_words, in_words
    from sweeps.workers import worker_count

    failed = {w.key: reason for w in missing if config.retry != "failed" and (reason := failure_of(w, records))}
    missing = [work for work in missing if work.key not in failed]
    expected = Forecast(records).of(missing)
    judged = dict.fromkeys(name for work in works for name in work.judgements)
    _, title = what_it_is(config, works)
    print(
        f"{title}; data={config.data.name} scale={config.scale} setting={config.setting}; judged by", ", ".join(judged)
    )
    wide = max(len(work.cell) for work in works)
    for work in works:
        line = f"{work.cell:<{wide}}  {work.split:<8} seed {work.seed}  {work.pretraining:<12}  "
        if work.key in failed:
            print(f"{line}failed before: {failed[work.key].partition(chr(10))[0]}")
            continue
        if work.key not in expected:
            print(line + "there")
            continue
        cost = expected[work.key]
        what = f"to train, {flops_in_words(cost.flops)}" if cost.flops else "to judge"
        about = "" if cost.measured else " by its FLOPs"
        print(line + what + (f", {in_words(cost.seconds)}{about}" if cost.seconds else ""))
    there = len(works) - len(missing) - len(failed)
    print(f"{len(works)} pieces, {there} there, {len(missing)} to do")
    if failed:
        print(f"{len(failed)} failed before and would be left alone; retry=failed runs them again")
    if missing:
        workers = worker_count(config, len(missing))
        times = [cost.seconds for cost in expected.values()]
        known = [seconds for seconds in times if seconds is not None]
        # No worker can share its longest piece with another.
        whole = max(sum(known) / workers, max(known, default=0.0))
        flops = flops_in_words(sum(cost.flops for cost in expected.values()))
        if len(known) < len(times) or not whole:
            print(f"training {flops}; time unknown: nothing like it was run on this machine")
        else:
            print(f"training {flops}; about {in_words(whole)} on {workers} worker(s)")
    if config.ablation.note:
        print(config.ablation.note)
    if not strategies:
        return
    print("\nmasking strategies that methods can use:")
    alike: dict[str, list[str]] = {}
    for method, row in support_matrix().items():
        if usable := ", ".join(name for name, reason in row.items() if reason is None):
            alike.setdefault(usable, []).append(method)
    for usable, methods in alike.items():
        print(fill(f"{', '.join(methods)}: {usable}", 110, subsequent_indent="    "))


def main(command: Sequence[str]) -> int:
    """Run the command line; returns the exit status."""
    if any(c in ("-h", "--help") for c in command):
        print(__doc__)
        return 0
    config, works = make_plan(command)
    check_launch(config)
    records = Records(config.runs)
    fetch(config, records, works)
    missing = [w for w in works if not records.complete(w.pretraining, w.results)]
    for note in notes(command, config, works, records):
        print(f"note: {note}", file=sys.stderr)
    if config.dry:
        masked = config.ablation.name == "masking" or any("masking" in o.partition("=")[0] for o in command)
        show_plan(config, works, missing, records, masked)
        return 0
    name = plan_name(config, works)
    write_plan(records, name, config, works, command)
    send_plan(config, records, name)
    todo = missing if config.retry == "failed" else [w for w in missing if failure_of(w, records) is None]
    with Mirror(records, name, config, works) as mirror:
        # Where all is there, the queue may still say that somebody works: who was killed between result and word.
        begun = (records.root / "studies" / f"{name}.log").is_file()
        if todo or begun:
            _run(config, todo, records, name, mirror)
        send_runs(config, records, works)
        fetch(config, records, works)
        mirror.show_rest()
        left = {w.key: reason for w in missing if (reason := _left(w, records))}
        there = len(works) - len(missing)
        print(f"{len(works)} pieces: {there} were there, {len(missing) - len(left)} done now")
        sys.stdout.flush()
        records.tidy(w.pretraining for w in works)
        report = [sys.executable, str(ROOT / "reports" / "make.py"), f"plan={name}", f"runs={records.root}"]
        report += [] if config.page else ["page=false"]
        shown = subprocess.run(report).returncode
        out = out_folder()
        drawn = [picture for picture in out.glob(f"pictures/*-{name}-*") if picture.stat().st_size]
        mirror.close(sorted([*out.glob(f"*{name}*"), *drawn]))
    before = {w.key for w in missing} - {w.key for w in todo}
    for key, reason in left.items():
        print(f"failed{' before' * (key in before)}: {key}: {reason}", file=sys.stderr)
    if before:
        print("what failed before was left alone; retry=failed runs it again", file=sys.stderr)
    return 1 if left else shown


def _left(work: Work, records: Records) -> str:
    """Why a piece is not there in the end; "" where it is."""
    if records.complete(work.pretraining, work.results):
        return ""
    return (failure_of(work, records) or "not done").partition("\n")[0]


def _run(config: Config, works: Sequence[Work], records: Records, name: str, mirror: Mirror) -> None:
    """Do these works."""
    from sweeps.forecast import Forecast
    from sweeps.launchers import make_launcher
    from sweeps.supervise import run_all
    from sweeps.work_queue import Address, Queue
    from sweeps.workers import worker_count

    address = Address(config.storage, name, records.root / "studies" / f"{name}.log", config.launch.grace)
    workers = worker_count(config, len(works))
    for work in works:
        records.forget_failure(work.pretraining, work.results)
    expected = {key: cost.seconds for key, cost in Forecast(records, count=False).of(works).items()}
    pieces, launcher = Queue(address), make_launcher(config, address, works, records, workers)
    with Progress(len(works), workers, expected) as progress:
        for event in mirror.watching(run_all(pieces, works, records, launcher, workers, config.launch.lost)):
            progress.event(*event)


if __name__ == "__main__":
    command(under_torchrun(main))
