"""MLflow as the window onto the records: a parent run for a plan, a nested run for each of its pieces, with parameters,
curves, artifacts, tags, and the encoder as a registered model.

It is written from the files, after them, by a thread beside the sweep, and can be made again at any time. A piece is
shown once, whatever was killed when: a run is found again by its key, and is whole when its tag `mirrored` says so.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.config import OF_THE_COMMAND, Config, differing, flat
from sweeps.execute import metrics_of
from sweeps.model import register, save_model
from sweeps.plan import UNTRAINED, Work, poolings_of
from sweeps.records import Records, provenance, read_json, write_json
from sweeps.tracking import all_runs, alone, experiment_called, open_client, shown_uri, where_tag

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

ENTRIES, PARAMS = 1000, 100  # that MLflow takes at once
LONGEST = 6000  # letters of a parameter
COMPLETE = "complete"
OF_THE_PLAN = (*OF_THE_COMMAND, "ablation", "runs", "records")  # settings that are no single piece's


class Mirror:
    """MLflow's database and artifacts under `runs/mlflow`, or the server that MLFLOW_TRACKING_URI names.

    What goes wrong with it is said, once, and hurts nothing else: the files are the truth.

    Args:
        records: what to mirror.
        plan: name of the plan; one experiment for each ablation, one parent run for each plan.
        config: of the plan.
        works: all its pieces.
    """

    def __init__(self, records: Records, plan: str, config: Config, works: Sequence[Work]):
        self.records, self.plan, self.config = records, plan, config
        self.works = {work.key: work for work in works}
        self.folder = records.root / "mlflow"
        self.marks = self.folder / f"mirrored-{plan}.json"
        self.trouble = ""
        self._thread = ThreadPoolExecutor(1, "mirror")
        self._opened: tuple[MlflowClient, str, str] | None = None

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, *error: Any) -> None:
        self._thread.shutdown(cancel_futures=True)

    def watching(self, events: Iterable[tuple[str, str, dict[str, Any]]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """The same events; what they say is finished or failed is mirrored meanwhile."""
        for event in events:
            if event[0] in ("finished", "failed") and event[1] in self.works:
                self._later(self._show, self.works[event[1]])
            yield event

    def show_rest(self) -> None:
        """Mirror what is complete or failed and not shown yet, in the background."""
        done = self._marked()["done"]
        for work in self.works.values():
            if (state := state_of(work, self.records)) and done.get(work.key) != state:
                self._later(self._show, work)

    def close(self, artifacts: Iterable[Path] = ()) -> None:
        """Wait until all is shown, and end the parent run.

        Args:
            artifacts: the plan's table and pictures.
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
                except Exception as error:  # whatever a server or a full disk may say
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
            experiment = experiment_called(client, self.config.ablation.name or "single runs")
            with alone(self.folder / "mirror.lock"):
                parent = self._only(client, experiment, plan=self.plan, kind="plan")
                if parent is None:
                    c = self.config
                    tags = {"mlflow.runName": self.plan, "plan": self.plan, "kind": "plan", "data": c.data.name}
                    tags |= {"scale": c.scale, "setting": c.setting, **_told(provenance())}
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

    def _show(self, work: Work) -> None:
        """Show one piece as it is on file; one process of this machine at a time, so that nobody makes it twice."""
        client, experiment, parent = self._open()
        with alone(self.folder / "mirror.lock"):
            state = state_of(work, self.records)
            if not state or self._marked()["done"].get(work.key) == state:
                return
            run = self._only(client, experiment, plan=self.plan, key=work.key)
            if run is None:
                start, _ = self._times(work)
                run = client.create_run(experiment, start, {**self._tags(work), "mlflow.parentRunId": parent})
            elif run.data.tags.get("mlflow.parentRunId") != parent:
                client.set_tag(run.info.run_id, "mlflow.parentRunId", parent)
            if run.data.tags.get("mirrored") != state:
                self._fill(client, run, work, state)
            self._mark(done={work.key: state}, ended=False)

    def _fill(self, client: MlflowClient, run: Run, work: Work, state: str) -> None:
        """Write all that a nested run has, and last that it is whole."""
        from mlflow.entities import Param, RunTag

        number, known = run.info.run_id, run.data.params
        params = [Param(key, value) for key, value in settings_of(work).items() if key not in known]
        for few in _batches(params, PARAMS):
            client.log_batch(number, params=few)
        for some in _batches(self._metrics(work) if state == COMPLETE else [], ENTRIES):
            client.log_batch(number, metrics=some)
        folder = self.records.run(work.pretraining)
        for name in ("config.yaml", "run.json", "metrics.jsonl", "failure.json"):
            if (folder / name).is_file() and not work.raw:
                client.log_artifact(number, str(folder / name))
        for result in work.results:
            for path in (self.records.result_file(work.pretraining, result), folder / "eval" / result / "arrays.npz"):
                if path.is_file():
                    client.log_artifact(number, str(path), f"eval/{result}")
        self._keep_model(client, number, work)
        client.set_terminated(number, "FINISHED" if state == COMPLETE else "FAILED", self._times(work)[1])
        client.log_batch(number, tags=[RunTag("mirrored", state)])

    def _keep_model(self, client: MlflowClient, run: str, work: Work) -> None:
        """The encoder, as a model that MLflow loads; those that were trained here are registered, each once."""
        encoder, config = self.records.encoder(work.pretraining), work.config
        if work.raw or work.needs or not encoder.is_file():
            return
        with tempfile.TemporaryDirectory() as folder:
            save_model(encoder, Path(folder) / "model", poolings_of(config)[""], config.views.test_crop)
            client.log_artifacts(run, folder)
        if config.method.name != UNTRAINED and not config.encoder:
            register(client, run, f"skelbench-{config.method.name}-{config.data.name}", self._tags(work))

    def _tags(self, work: Work) -> dict[str, str]:
        about = self.records.about(work.pretraining)
        return {
            "mlflow.runName": f"{work.cell} {work.split} seed {work.seed}",
            "plan": self.plan,
            "key": work.key,
            "cell": work.cell,
            "method": "raw" if work.raw else work.config.method.name,
            "data": work.config.data.name,
            "split": work.split,
            "seed": str(work.seed),
            "identity": work.pretraining,
            **_told(about if "commit" in about else provenance()),
        }

    def _metrics(self, work: Work) -> list[Metric]:
        """Curves with their own steps and times, and every number of the results."""
        from mlflow.entities import Metric

        start, end = self._times(work)
        lines = [] if work.raw else metrics_of(self.records.run(work.pretraining))
        last = lines[-1]["step"] if lines else 1
        found = []
        for line in lines:  # older records have no time: as if all steps had taken as long
            at = int(1000 * line["time"]) if "time" in line else int(start + (end - start) * line["step"] / last)
            values = {k: v for k, v in line.items() if k not in ("step", "time")}
            found += [Metric(_named(k), float(v), at, int(line["step"])) for k, v in values.items()]
        for protocol, judgement in work.judgements.items():
            result = self.records.result(work.pretraining, judgement.identity) or {}
            numbers = {k: v for k, v in result.items() if isinstance(v, int | float) and not isinstance(v, bool)}
            kept = {k: v for k, v in numbers.items() if k not in ("value", "seed")}
            found += [Metric(_named(f"{protocol}_{k}"), float(v), end, 0) for k, v in kept.items()]
        return found

    def _times(self, work: Work) -> tuple[int, int]:
        """When the piece began and ended, in ms since the epoch."""
        about = self.records.about(work.pretraining)
        results = [self.records.result(work.pretraining, result) or {} for result in work.results]
        ends = [_moment(one["finished"]) for one in (about, *results) if "finished" in one]
        began = _moment(about["finished"]) - about.get("seconds", 0) if "finished" in about else min(ends, default=0)
        return int(1000 * (began or time.time())), int(1000 * max(ends, default=time.time()))

    def _end(self, artifacts: list[Path]) -> None:
        if self._marked()["ended"] or not self._marked()["done"]:
            return
        client, experiment, parent = self._open()
        for path in artifacts:
            client.log_artifact(parent, str(path))
        with alone(self.folder / "mirror.lock"):
            shown: dict[str, str] = {}
            for run in all_runs(client, experiment, where_tag("plan", self.plan)):
                key = run.data.tags.get("key")
                if (
                    run.data.tags.get("plan") == self.plan
                    and key
                    and shown.setdefault(key, run.info.run_id) != (run.info.run_id)
                ):
                    client.delete_run(run.info.run_id)  # another machine showed it at the same moment
            client.set_terminated(parent)
            self._mark(ended=bool(artifacts))  # none: the report was killed, and the next command has them


def state_of(work: Work, records: Records) -> str:
    """What there is of a piece: complete, why it failed, or "" where there is nothing to show yet."""
    if records.complete(work.pretraining, work.results):
        return COMPLETE
    failure = records.failure(work.pretraining, work.results)
    return f"failed: {failure['reason']}"[:LONGEST] if failure else ""


def settings_of(work: Work) -> dict[str, str]:
    """A piece's settings that differ from the defaults, flat; one that is too long for MLflow says that it was cut."""
    found = {}
    for key, value in flat({k: v for k, v in differing(work.config, Config()).items() if k not in OF_THE_PLAN}).items():
        text = str(value)
        more = " ... (cut here; all of it is in config.yaml)"
        found[_named(key)] = text if len(text) <= LONGEST else text[: LONGEST - len(more)] + more
    return found


def _told(about: dict[str, Any]) -> dict[str, str]:
    return {"commit": str(about["commit"]), "dirty": str(about["dirty"])}


def _moment(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S"))


def _named(name: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^/\w.\- ]", "_", name)


def _batches(things: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(things), size):
        yield things[start : start + size]
