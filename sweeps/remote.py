"""Records on a tracking server, for machines that share no file system (`records=mlflow`).

A run's folder is a run of the experiment `skelbench records`, its files are artifacts under the same names. A tag for
each file, written after it, has its sha256: without the tag a file is not there yet. What is there stays: of two
machines that made the same result, the first one's is kept; only a failure goes when it was overcome. A plan is a run
too; its file may be written anew, each under its sha256.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skeletons.clips import written_whole
from skeletons.errors import BadInput, check_choices
from sweeps.config import Config
from sweeps.plan import Work
from sweeps.records import Records, read_json
from sweeps.tracking import all_runs, alone, experiment_called, open_client, where_tag

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "skelbench records"
FILE = "file:"
# What of a run's folder travels. In the order of their names a result comes after its arrays.
KEPT = re.compile(
    r"config\.yaml|run\.json|metrics\.jsonl|encoder\.safetensors|failure\.json"
    r"|eval/\w{1,64}/(arrays\.npz|result\.json|failure\.json)"
)
NAME = re.compile(r"\w[\w.,=+-]{0,250}")


def is_shared(config: Config) -> bool:
    """Whether records go through the tracking server.

    Raises:
        BadInput: an unknown place, or no server is named.
    """
    check_choices("config", config, records=("files", "mlflow"))
    if config.records == "mlflow" and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise BadInput("records=mlflow: set MLFLOW_TRACKING_URI to the tracking server, e.g. http://127.0.0.1:5000")
    return config.records == "mlflow"


@contextmanager
def shared(work: Work, records: Records) -> Iterator[None]:
    """Around the execution of a piece of work: fetch what others have done of it, and send what was done, or why it
    failed. Nothing where records are files."""
    if not is_shared(work.config):
        yield
        return
    identities = identities_of([work])
    pull(records, identities)
    try:
        yield
    finally:
        push(records, identities)


def fetch(config: Config, records: Records, works: Iterable[Work]) -> None:
    """Fetch what there is of these works, where records go through the server."""
    if is_shared(config):
        pull(records, identities_of([w for w in works if not records.complete(w.pretraining, w.results)]))


def send_runs(config: Config, records: Records, works: Iterable[Work]) -> None:
    """Send what the server does not have of these works, e.g. because it was away when they were done."""
    if is_shared(config):
        push(records, identities_of(works))


def send_plan(config: Config, records: Records, name: str) -> None:
    """Send a plan, where records go through the server."""
    if is_shared(config):
        push_plan(records, name)


def fetch_for_reports(records: Records) -> None:
    """Fetch all plans, and the results that they name; encoders stay where they are."""
    pull_plans(records)
    plans = [read_json(path) or {} for path in (records.root / "plans").glob("*.json")]
    pull(records, {work["pretraining"] for plan in plans for work in plan.get("works", ())}, encoders=False)


def identities_of(works: Iterable[Work]) -> set[str]:
    """Runs that belong to these works, those they need among them."""
    found: set[str] = set()
    for work in works:
        found |= {work.pretraining} | identities_of(work.needs)
    return found


def push(records: Records, identities: Iterable[str]) -> None:
    """Send files of runs that the server does not have; sent twice is sent once."""
    client, experiment = _open(records)
    for identity in identities:
        folder = records.run(identity)
        files = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()}
        files = {name: path for name, path in files.items() if KEPT.fullmatch(name)}
        if not files:
            continue
        with alone(records.root / "mlflow" / "remote.lock"):
            run = _run_of(client, experiment, "identity", identity)
            there = {tag.removeprefix(FILE) for tag in run.data.tags if tag.startswith(FILE)}
            for overcome in (name for name in there - files.keys() if _fails(name)):
                client.delete_tag(run.info.run_id, FILE + overcome)
            new = {name: path for name, path in files.items() if name not in there or _fails(name)}
            if new:
                _send(client, run.info.run_id, new)


def _send(client: MlflowClient, run: str, files: dict[str, Path]) -> None:
    from mlflow.entities import RunTag

    for name, path in files.items():
        client.log_artifact(run, str(path), str(Path(name).parent) if "/" in name else None)
    tags = [RunTag(FILE + name, _sha256(path)) for name, path in files.items()]
    for start in range(0, len(tags), 100):  # as many as MLflow takes at once
        client.log_batch(run, tags=tags[start : start + 100])
    client.set_terminated(run)


def pull(records: Records, identities: Iterable[str], encoders: bool = True) -> None:
    """Fetch files of runs that are not here. A run that somebody on this machine is working on is left to them.

    Raises:
        BadInput: a file arrives damaged.
    """
    wanted = {identity for identity in identities if not records.is_owned(identity)}
    if not wanted:
        return
    client, experiment = _open(records)
    one_by_one = [where_tag("identity", identity) for identity in sorted(wanted)] if len(wanted) <= 10 else []
    conditions = one_by_one or [where_tag("kind", "identity")]
    for run in (run for condition in conditions for run in all_runs(client, experiment, condition)):
        identity = run.data.tags.get("identity", "")
        if identity not in wanted:
            continue
        for tag in sorted(run.data.tags):
            name, target = tag.removeprefix(FILE), records.run(identity) / tag.removeprefix(FILE)
            ours = tag.startswith(FILE) and KEPT.fullmatch(name)
            if ours and not target.exists() and (encoders or name != "encoder.safetensors"):
                _receive(client, run, name, run.data.tags[tag], target)


def _receive(client: MlflowClient, run: Run, artifact: str, sha256: str, target: Path) -> None:
    """Put an artifact in its place, whole and as it was sent."""
    with tempfile.TemporaryDirectory() as folder:
        got = Path(client.download_artifacts(run.info.run_id, artifact, folder))
        if _sha256(got) != sha256:
            where = f"run {run.info.run_id} of MLflow's experiment {EXPERIMENT!r}"
            raise BadInput(f"{artifact} in {where}: damaged; delete that run there, and run again on who made it")
        with written_whole(target) as temporary:
            shutil.copyfile(got, temporary)


def push_plan(records: Records, name: str) -> None:
    """Send a plan's file."""
    client, experiment = _open(records)
    path = records.plan_file(name)
    sha256 = _sha256(path)
    with alone(records.root / "mlflow" / "remote.lock"):
        run = _run_of(client, experiment, "plan", name)
        client.log_artifact(run.info.run_id, str(path), sha256)
        client.set_tag(run.info.run_id, "sha256", sha256)
        client.set_terminated(run.info.run_id)


def pull_plans(records: Records) -> None:
    """Fetch plans that are not here, or newer there."""
    client, experiment = _open(records)
    for run in all_runs(client, experiment, where_tag("kind", "plan")):
        name, sha256 = run.data.tags.get("plan", ""), run.data.tags.get("sha256", "")
        path = records.plan_file(name)
        if not sha256 or not NAME.fullmatch(name) or (path.is_file() and _sha256(path) == sha256):
            continue
        with tempfile.TemporaryDirectory() as folder:
            there = Path(folder) / "plan.json"
            _receive(client, run, f"{sha256}/{name}.json", sha256, there)
            if _written(there) > _written(path):
                with written_whole(path) as temporary:
                    shutil.copyfile(there, temporary)


def _written(path: Path) -> float:
    return float((read_json(path) or {}).get("written", -1.0))


def _open(records: Records) -> tuple[MlflowClient, str]:
    client: Any = open_client(records.root / "mlflow")
    return client, experiment_called(client, EXPERIMENT)


def _run_of(client: MlflowClient, experiment: str, kind: str, name: str) -> Run:
    """The run that holds an identity's or a plan's files; several machines may have made one each, which is as well."""
    condition = f"{where_tag('kind', kind)} and {where_tag(kind, name)}"
    found = [run for run in all_runs(client, experiment, condition) if run.data.tags.get(kind) == name]
    return found[0] if found else client.create_run(experiment, tags={"mlflow.runName": name, "kind": kind, kind: name})


def _fails(name: str) -> bool:
    return Path(name).name == "failure.json"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
