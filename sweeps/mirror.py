"""A sweep in MLflow: a parent run for its plan, and a nested run for each of its pieces, with parameters, curves, tags,
files, and the encoder as a registered model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.config import OF_THE_COMMAND, Config, differing, flat
from sweeps.execute import metrics_of
from sweeps.model import register, save_model
from sweeps.plan import UNTRAINED, Work, poolings_of
from sweeps.records import Records, provenance
from sweeps.window import LONGEST, Window, commit_of, log_metrics, log_params, named

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

    from sweeps.workers import Event

COMPLETE = "complete"
OF_THE_PLAN = (*OF_THE_COMMAND, "ablation", "runs", "records")  # settings that are no single piece's


class Mirror(Window):
    """What a sweep shows: one experiment for each ablation, one parent run for each plan.

    Args:
        records: what to mirror.
        plan: name of the plan.
        config: of the plan.
        works: all its pieces.
    """

    def __init__(self, records: Records, plan: str, config: Config, works: Sequence[Work]):
        tags = {"kind": "plan", "data": config.data.name, "scale": config.scale, "setting": config.setting}
        super().__init__(records.root, plan, config.ablation.name or "single runs", tags)
        self.pieces = {work.key: Piece(work, records) for work in works}

    def __enter__(self) -> Mirror:
        return self

    def watching(self, events: Iterable[Event]) -> Iterator[Event]:
        """The same events; what they say is finished or failed is mirrored meanwhile."""
        for event in events:
            if event[0] in ("finished", "failed") and event[1] in self.pieces:
                self.show([self.pieces[event[1]]])
            yield event

    def show_rest(self) -> None:
        """Mirror what is complete or failed and not shown yet, in the background."""
        self.show(self.pieces.values())


class Piece:
    """A piece of a plan's work, as a nested run."""

    def __init__(self, work: Work, records: Records):
        self.work, self.records = work, records
        self.key = work.key

    def state(self) -> str:
        return state_of(self.work, self.records)

    def fill(self, client: MlflowClient, run: Run, state: str) -> None:
        number, work = run.info.run_id, self.work
        log_params(client, run, settings_of(work))
        log_metrics(client, run, self._metrics() if state == COMPLETE else [])
        folder = self.records.run(work.pretraining)
        for name in ("config.yaml", "run.json", "metrics.jsonl", "failure.json"):
            if (folder / name).is_file() and not work.raw:
                client.log_artifact(number, str(folder / name))
        for result in work.results:
            for path in (self.records.result_file(work.pretraining, result), folder / "eval" / result / "arrays.npz"):
                if path.is_file():
                    client.log_artifact(number, str(path), f"eval/{result}")
        self._keep_model(client, number)
        client.set_terminated(number, "FINISHED" if state == COMPLETE else "FAILED", self.times()[1])

    def _keep_model(self, client: MlflowClient, run: str) -> None:
        """The encoder, as a model that MLflow loads; those that were trained here are registered, each once."""
        work, config = self.work, self.work.config
        encoder = self.records.encoder(work.pretraining)
        if work.raw or work.needs or not encoder.is_file():
            return
        with tempfile.TemporaryDirectory() as folder:
            save_model(encoder, Path(folder) / "model", poolings_of(config)[""], config.views.test_crop)
            client.log_artifacts(run, folder)
        if config.method.name != UNTRAINED and not config.encoder:
            alias = "-".join(filter(None, (config.ablation.name, work.cell, work.split, f"seed{work.seed}")))
            register(client, run, f"skelbench-{config.method.name}-{config.data.name}", alias, self.tags())

    def tags(self) -> dict[str, str]:
        work, about = self.work, self.records.about(self.work.pretraining)
        return {
            "mlflow.runName": f"{work.cell} {work.split} seed {work.seed}",
            "cell": work.cell,
            "method": "raw" if work.raw else work.config.method.name,
            "data": work.config.data.name,
            "split": work.split,
            "seed": str(work.seed),
            "identity": work.pretraining,
            **commit_of(about if "commit" in about else provenance()),
        }

    def _metrics(self) -> list[Metric]:
        """Curves with their own steps and times, and every number of the results."""
        from mlflow.entities import Metric

        work, (start, end) = self.work, self.times()
        lines = [] if work.raw else metrics_of(self.records.run(work.pretraining))
        last = lines[-1]["step"] if lines else 1
        found = []
        for line in lines:  # older records have no time: as if all steps had taken as long
            at = int(1000 * line["time"]) if "time" in line else int(start + (end - start) * line["step"] / last)
            values = {k: v for k, v in line.items() if k not in ("step", "time")}
            found += [Metric(named(k), float(v), at, int(line["step"])) for k, v in values.items()]
        for protocol, judgement in work.judgements.items():
            result = self.records.result(work.pretraining, judgement.identity) or {}
            numbers = {k: v for k, v in result.items() if isinstance(v, int | float) and not isinstance(v, bool)}
            kept = {k: v for k, v in numbers.items() if k not in ("value", "seed")}
            found += [Metric(named(f"{protocol}_{k}"), float(v), end, 0) for k, v in kept.items()]
        return found

    def times(self) -> tuple[int, int]:
        about = self.records.about(self.work.pretraining)
        results = [self.records.result(self.work.pretraining, result) or {} for result in self.work.results]
        ends = [_moment(one["finished"]) for one in (about, *results) if "finished" in one]
        began = _moment(about["finished"]) - about.get("seconds", 0) if "finished" in about else min(ends, default=0)
        return int(1000 * (began or time.time())), int(1000 * max(ends, default=time.time()))


def state_of(work: Work, records: Records) -> str:
    """What there is of a piece: complete, why it failed, or "" where there is nothing to show yet."""
    if records.complete(work.pretraining, work.results):
        return COMPLETE
    failure = records.failure(work.pretraining, work.results)
    return f"failed: {failure['reason']}"[:LONGEST] if failure else ""


def settings_of(work: Work) -> dict[str, str]:
    """A piece's settings that differ from the defaults, flat."""
    differs = {k: v for k, v in differing(work.config, Config()).items() if k not in OF_THE_PLAN}
    return {key: str(value) for key, value in flat(differs).items()}


def _moment(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S"))
