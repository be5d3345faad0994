"""A study in MLflow: a parent run in the experiment `tuning`, and a nested run for each trial that has ended, with what
was tried as parameters, its kNN curve and its score; trials can be sorted and compared there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.config import Config
from sweeps.window import LONGEST, Window, commit_of, log_metrics, log_params

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

STATUS = {"complete": "FINISHED", "pruned": "KILLED", "diverged": "KILLED", "failed": "FAILED"}  # MLflow's words


class StudyMirror(Window):
    """What a study shows.

    Args:
        root: folder of all runs.
        study: its name.
        config: that it starts from.
    """

    def __init__(self, root: Path, study: str, config: Config):
        tags = {"kind": "study", "method": config.method.name, "data": config.data.name}
        tags |= {"scale": config.scale, "setting": config.setting}
        super().__init__(root, study, "tuning", tags)

    def __enter__(self) -> StudyMirror:
        return self

    def show_study(self, found: dict[str, Any]) -> None:
        """Show trials that have ended and are not shown yet, in the background.

        Args:
            found: as `studies.conclude` returns it.
        """
        self.show([TrialRun(found, told) for told in found["trials"]])


class TrialRun:
    """A trial as a nested run.

    Args:
        found: of its study.
        told: of the trial.
    """

    def __init__(self, found: dict[str, Any], told: dict[str, Any]):
        self.found, self.told = found, told
        self.key = f"trial {told['number']}"

    def state(self) -> str:
        state, reason = self.told["state"], self.told["reason"]
        return f"{state}: {reason}".removesuffix(": ")[:LONGEST] if state in STATUS else ""

    def times(self) -> tuple[int, int]:
        began = self.told["began"] or time.time()
        return int(1000 * began), int(1000 * (began + (self.told["seconds"] or 0)))

    def tags(self) -> dict[str, str]:
        found = self.found
        return {
            "mlflow.runName": self.key,
            "method": found["method"],
            "data": found["data"],
            "split": found["split"],
            "identity": " ".join(self.told["runs"]),
            **commit_of(found),
        }

    def fill(self, client: MlflowClient, run: Run, state: str) -> None:
        from mlflow.entities import Metric

        _, end = self.times()
        log_params(client, run, self.told["params"])
        metrics = [Metric("knn", value, end, int(place)) for place, value in self.told["curve"].items()]
        if self.told["value"] is not None:
            metrics.append(Metric("score", self.told["value"], end, 0))
        log_metrics(client, run, metrics)
        client.set_terminated(run.info.run_id, STATUS[self.told["state"]], end)
