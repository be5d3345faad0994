"""MLflow as the window onto the records: a parent run for a command's plan or study, and nested runs in it.

It is written from the files, after them, by a thread beside the work, and can be made again at any time. A thing is
shown once, whatever was killed when: its run is found again by its key, and is whole when its tag `mirrored` says so.
What goes wrong with it is said, once, and hurts nothing else: the files are the truth.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sweeps.records import provenance, read_json, write_json
from sweeps.tracking import all_runs, alone, experiment_called, open_client, shown_uri, where_tag

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

ENTRIES, PARAMS = 1000, 100  # that MLflow takes at once
LONGEST = 6000  # letters of a parameter


class Shown(Protocol):
    """What a nested run shows."""

    @property
    def key(self) -> str:
        """Its name; no other one of its window has it."""

    def state(self) -> str:
        """What there is of it now; "" where there is nothing to show yet."""

    def times(self) -> tuple[int, int]:
        """When it began and ended, in ms since the epoch."""

    def tags(self) -> dict[str, str]:
        """Of its run."""

    def fill(self, client: MlflowClient, run: Run, state: str) -> None:
        """Write all that its run has, and end it; what a killed command left half written is written again."""


class Window:
    """MLflow's database and artifacts under `runs/mlflow`, or the server that MLFLOW_TRACKING_URI names.

    Args:
        root: folder of all runs.
        name: of the parent run.
        experiment: that it belongs to.
        tags: of the parent run.
    """

    def __init__(self, root: Path, name: str, experiment: str, tags: Mapping[str, str]):
        self.name, self.experiment, self.tags = name, experiment, tags
        self.folder = root / "mlflow"
        self.marks = self.folder / f"mirrored-{name}.json"
        self.trouble = ""
        self._thread = ThreadPoolExecutor(1, "mirror")
        self._opened: tuple[MlflowClient, str, str] | None = None

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *error: Any) -> None:
        self._thread.shutdown(cancel_futures=True)

    def show(self, things: Iterable[Shown]) -> None:
        """Show what there is of them and is not shown yet, in the background."""
        done = self._marked()["done"]
        for thing in things:
            if (state := thing.state()) and done.get(thing.key) != state:
                self._later(self._show, thing)

    def close(self, artifacts: Iterable[Path] = ()) -> None:
        """Wait until all is shown, and end the parent run.

        Args:
            artifacts: the command's table and pictures.
        """
        files = [path for path in artifacts if path.is_file()]
        self._later(self._end, files)
        self._thread.shutdown()
        if self.trouble:
            what = f"MLflow ({shown_uri(self.folder)}) does not show everything: {self.trouble}"
            print(f"{what}; the records are complete, and the same command tries again", file=sys.stderr)

    def _later(self, task: Callable[..., None], *arguments: Any) -> None:
        def guarded() -> None:
            if not self.trouble:
                try:
                    task(*arguments)
                # Of any kind, be it a server's, a database's or a disk's: it must not stop the trainings, whose files
                # are the truth. The first is kept, nothing more is shown, and `close` prints it.
                except Exception as error:
                    self.trouble = str(error).partition("\n")[0][:300] or type(error).__name__

        self._thread.submit(guarded)

    def _marked(self) -> dict[str, Any]:
        """What is shown already: `done` (key -> state), and whether the parent has `ended`."""
        at = shown_uri(self.folder)
        marks = read_json(self.marks) or {}
        lost = at.startswith("sqlite") and not Path(at.removeprefix("sqlite:///")).is_file()
        return marks if marks.get("at") == at and not lost else {"at": at, "done": {}, "ended": False}

    def _mark(self, **changes: Any) -> None:
        marks = self._marked()
        write_json(self.marks, {**marks, **changes, "done": {**marks["done"], **changes.get("done", {})}})

    def _open(self) -> tuple[MlflowClient, str, str]:
        """Client, experiment and parent run."""
        if self._opened is None:
            client = open_client(self.folder)
            experiment = experiment_called(client, self.experiment)
            with alone(self.folder / "mirror.lock"):
                parent = self._only(client, experiment, plan=self.name, kind=self.tags["kind"])
                if parent is None:
                    tags = {"mlflow.runName": self.name, "plan": self.name, **self.tags, **commit_of(provenance())}
                    parent = client.create_run(experiment, tags=tags)
            self._opened = client, experiment, parent.info.run_id
        return self._opened

    def _only(self, client: MlflowClient, experiment: str, **tags: str) -> Run | None:
        """The run with these tags. Machines that share a server but no file system may have made several: the first
        stays, for all of them."""
        condition = " and ".join(where_tag(name, value) for name, value in tags.items())
        found = [r for r in all_runs(client, experiment, condition) if tags.items() <= r.data.tags.items()]
        for extra in found[1:]:
            client.delete_run(extra.info.run_id)
        return found[0] if found else None

    def _show(self, thing: Shown) -> None:
        """Show one as it is on file; one process of this machine at a time, so that nobody makes it twice."""
        from mlflow.entities import RunTag

        client, experiment, parent = self._open()
        with alone(self.folder / "mirror.lock"):
            state = thing.state()
            if not state or self._marked()["done"].get(thing.key) == state:
                return
            run = self._only(client, experiment, plan=self.name, key=thing.key)
            if run is None:
                tags = {"plan": self.name, "key": thing.key, **thing.tags(), "mlflow.parentRunId": parent}
                run = client.create_run(experiment, thing.times()[0], tags)
            elif run.data.tags.get("mlflow.parentRunId") != parent:
                client.set_tag(run.info.run_id, "mlflow.parentRunId", parent)
            if run.data.tags.get("mirrored") != state:
                thing.fill(client, run, state)
                client.log_batch(run.info.run_id, tags=[RunTag("mirrored", state)])
            self._mark(done={thing.key: state}, ended=False)

    def _end(self, artifacts: list[Path]) -> None:
        if self._marked()["ended"] or not self._marked()["done"]:
            return
        client, experiment, parent = self._open()
        for path in artifacts:
            client.log_artifact(parent, str(path))
        with alone(self.folder / "mirror.lock"):
            shown: dict[str, str] = {}
            for run in all_runs(client, experiment, where_tag("plan", self.name)):
                key, number = run.data.tags.get("key"), run.info.run_id
                if run.data.tags.get("plan") == self.name and key and shown.setdefault(key, number) != number:
                    client.delete_run(number)  # another machine showed it at the same moment
            client.set_terminated(parent)
            self._mark(ended=bool(artifacts))  # none: the report was killed, and the next command has them


def log_params(client: MlflowClient, run: Run, params: Mapping[str, Any]) -> None:
    """Write parameters that a run does not have yet; one that is too long for MLflow says that it was cut."""
    from mlflow.entities import Param

    texts = {named(key): str(value) for key, value in params.items()}
    more = " ... (cut here; all of it is in config.yaml)"
    cut = {key: text if len(text) <= LONGEST else text[: LONGEST - len(more)] + more for key, text in texts.items()}
    wanted = [Param(key, text) for key, text in cut.items() if key not in run.data.params]
    for few in _batches(wanted, PARAMS):
        client.log_batch(run.info.run_id, params=few)


def log_metrics(client: MlflowClient, run: Run, metrics: list[Metric]) -> None:
    """Write metrics, as many at once as MLflow takes."""
    for some in _batches(metrics, ENTRIES):
        client.log_batch(run.info.run_id, metrics=some)


def named(name: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^/\w.\- ]", "_", name)


def commit_of(about: dict[str, Any]) -> dict[str, str]:
    """Tags of the code that made something."""
    return {"commit": str(about["commit"]), "dirty": str(about["dirty"])}


def _batches(things: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(things), size):
        yield things[start : start + size]
