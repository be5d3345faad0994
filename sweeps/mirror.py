"""MLflow as the window onto the records: a parent run for a plan, a nested run for each of its pieces, with parameters,
curves, artifacts and tags. It is written from the files, after them, and can be made again at any time."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.config import Config, differing
from sweeps.execute import metrics_of
from sweeps.plan import Work
from sweeps.records import Records, provenance, read_json, write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Mirror:
    """MLflow's database and artifacts under `runs/mlflow`, or the server that MLFLOW_TRACKING_URI names.

    Args:
        records: what to mirror.
        plan: name of the plan; one experiment for each ablation, one parent run for each plan.
    """

    def __init__(self, records: Records, plan: str, config: Config):
        self.records, self.plan, self.config = records, plan, config
        self.marks = records.root / "mlflow" / f"mirrored-{plan}.json"
        self.done: dict[str, Any] = read_json(self.marks) or {}
        self._client: MlflowClient | None = None
        self._parent = ""

    def missing(self, works: Sequence[Work]) -> list[Work]:
        """Complete works that MLflow does not show yet."""
        return [w for w in works if w.key not in self.done and self.records.complete(w.pretraining, w.results)]

    def _open(self) -> tuple[MlflowClient, str]:
        if self._client is None:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
            from mlflow import MlflowClient

            for chatty in ("mlflow", "alembic"):
                logging.getLogger(chatty).setLevel(logging.WARNING)
            folder = self.records.root / "mlflow"
            folder.mkdir(parents=True, exist_ok=True)
            uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
            self._client = client = MlflowClient(uri)
            name = self.config.ablation.name or "single runs"
            found = client.get_experiment_by_name(name)
            place = None if os.environ.get("MLFLOW_TRACKING_URI") else (folder / "artifacts").as_uri()
            experiment = found.experiment_id if found else client.create_experiment(name, artifact_location=place)
            parents = client.search_runs([experiment], f"tags.plan = '{self.plan}' and tags.kind = 'plan'")
            if parents:
                self._parent = parents[0].info.run_id
            else:
                tags = {
                    "mlflow.runName": self.plan,
                    "plan": self.plan,
                    "kind": "plan",
                    "commit": provenance()["commit"],
                }
                self._parent = client.create_run(experiment, tags=tags).info.run_id
            self._experiment = experiment
        return self._client, self._experiment

    def add(self, work: Work) -> None:
        """Mirror one complete piece of work."""
        from mlflow.entities import Metric, Param, RunTag

        client, experiment = self._open()
        about = self.records.about(work.pretraining)
        same = client.search_runs([experiment], f"tags.key = '{work.key}' and tags.plan = '{self.plan}'")
        tags = {
            "mlflow.runName": f"{work.cell} {work.split} seed {work.seed}",
            "mlflow.parentRunId": self._parent,
            "plan": self.plan,
            "key": work.key,
            "cell": work.cell,
            "data": work.config.data.name,
            "split": work.split,
            "seed": str(work.seed),
            "method": work.config.method.name,
            "identity": work.pretraining,
            "commit": str(about.get("commit", provenance()["commit"])),
            "dirty": str(about.get("dirty", provenance()["dirty"])),
        }
        run = same[0].info.run_id if same else client.create_run(experiment, tags=tags).info.run_id
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, int(line["step"]))
            for line in metrics_of(self.records.run(work.pretraining))
            for name, value in line.items()
            if name != "step"
        ]
        for protocol, judgement in work.judgements.items():
            result = self.records.result(work.pretraining, judgement.identity) or {}
            metrics += [
                Metric(f"{protocol}_{name}", float(result[name]), now, 0)
                for name in ("top1", "top1_without_twins", "validation")
                if name in result
            ]
        params = [Param(k, str(v)[:500]) for k, v in _flat(differing(work.config, Config())).items()]
        for start in range(0, max(len(metrics), 1), 900):  # a batch takes 1,000 entries
            first = start == 0
            client.log_batch(
                run,
                metrics[start : start + 900],
                params[:100] if first else [],
                [RunTag("mirrored", "yes")] if first else [],
            )
        folder = self.records.run(work.pretraining)
        kept = [folder / "config.yaml", folder / "run.json", folder / "encoder.safetensors"]
        kept += [self.records.result_file(work.pretraining, j) for j in work.results]
        for path in kept:
            if path.is_file():
                client.log_artifact(run, str(path), _place(path))
        client.set_terminated(run)
        self.done[work.key] = run
        write_json(self.marks, self.done)

    def close(self, table: Path | None = None) -> None:
        """End the parent run; keep the table with it."""
        if self._client is not None:
            if table is not None and table.is_file():
                self._client.log_artifact(self._parent, str(table))
            self._client.set_terminated(self._parent)


def _place(path: Path) -> str | None:
    return f"eval/{path.parent.name}" if path.name == "result.json" else None


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
