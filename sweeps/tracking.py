"""Where MLflow is, and how it is opened: the database under `runs/mlflow`, or what MLFLOW_TRACKING_URI names.

Nothing calls out of the machine but to that server. MLflow takes seconds to import and to make a database, so it is
imported where it is first used, and a database is a copy of an empty one that is made once on a machine.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from skeletons.clips import written_whole

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PAGE = 1000  # runs that are asked for at once


def tracking_uri(folder: Path) -> str:
    """Where runs are tracked.

    Args:
        folder: `runs/mlflow`, for where no server is named.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"


def shown_uri(folder: Path) -> str:
    """`tracking_uri(folder)` as it is printed and written down: without whose it is, and their password."""
    return re.sub("(?<=://)[^/@]*@", "", tracking_uri(folder))


def open_client(folder: Path) -> MlflowClient:
    """A client of `tracking_uri(folder)`, whose database is made where it is not there."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # its 7 take minutes to find out that nobody is there
    from mlflow import MlflowClient

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    uri = tracking_uri(folder)
    if file := _database(uri):
        _make_database(file)
    return MlflowClient(uri, uri)


def _database(uri: str) -> Path | None:
    """The file of an SQLite database, None of anything else."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _make_database(file: Path) -> None:
    """Make an empty database; processes that do so at once would disturb each other, so they take turns."""
    if file.is_file():
        return
    from mlflow import MlflowClient

    cache = Path(os.environ.get("SKELBENCH_CACHE") or Path.home() / ".cache" / "skelbench")
    empty = cache / f"mlflow-{version('mlflow')}.db"
    with alone(empty.with_suffix(".lock")):
        if not empty.is_file():
            with written_whole(empty) as temporary:
                MlflowClient(f"sqlite:///{temporary}").search_experiments()
    with alone(file.with_suffix(".lock")):
        if not file.is_file():
            with written_whole(file) as temporary:
                shutil.copyfile(empty, temporary)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Be the only process on this machine that is in a block with this lock file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def experiment_called(client: MlflowClient, name: str) -> str:
    """Number of an experiment, made where it is not there; one that was deleted is taken back."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        file = _database(client.tracking_uri)
        place = (file.parent / "artifacts").as_uri() if file else None  # MLflow's own would be the current directory
        try:
            return client.create_experiment(name, artifact_location=place)
        except MlflowException:  # somebody else just made it
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def all_runs(client: MlflowClient, experiment: str, condition: str = "") -> list[Run]:
    """All runs of an experiment that fulfil a condition, the oldest first: every process sees the same order."""
    found: list[Run] = []
    token: str | None = None
    while token is None or token:
        page = client.search_runs([experiment], condition, max_results=PAGE, page_token=token)
        found += page
        token = page.token or ""
    return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))


def where_tag(name: str, value: str) -> str:
    """A condition that holds for runs with this tag, and perhaps for a few more: what would end the quotation, or means
    something in a pattern, stands for any character. Compare the tags of what is found."""
    pattern = "".join(c if c.isalnum() or c in "-. /=,:" else "_" for c in value)
    return f"tags.`{name}` LIKE '{pattern}'"
