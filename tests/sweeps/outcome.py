"""All that a finished sweep leaves behind, without times and places, so that two sweeps can be compared."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

TIMES = ("seconds", "clips_per_second", "finished", "written", "time", "commit", "dirty")
NAMED = (  # every file that a finished sweep may have, besides MLflow's own artifacts
    r"[0-9a-f]{12}/(\.lock|config\.yaml|run\.json|metrics\.jsonl|encoder\.safetensors)",
    r"[0-9a-f]{12}/eval/[0-9a-f]{12}/(arrays\.npz|result\.json)",
    r"plans/[^./][^/]*\.json",
    r"studies/[^./][^/]*\.log(\.lock)?",
    r"mlflow/(mlflow\.db|[^/]*\.lock|mirrored-[^/]*\.json)",
    r"mlflow/artifacts/[0-9a-f]{32}/artifacts/.*",
)


def strangers(runs: Path) -> list[str]:
    """Files and empty folders that belong to no layout: what a kill left behind."""
    names = [str(p.relative_to(runs)) for p in runs.rglob("*") if not p.is_dir() or not any(p.iterdir())]
    return sorted(name for name in names if not any(re.fullmatch(pattern, name) for pattern in NAMED))


def results(runs: Path) -> dict[str, str]:
    """Each file of each run -> a digest of what it says."""
    found = {}
    for path in sorted(runs.glob("*/**/*")):
        name = str(path.relative_to(runs))
        if path.is_file() and re.fullmatch(NAMED[0] + "|" + NAMED[1], name) and path.name != ".lock":
            found[name] = hashlib.sha256(_content(path, runs)).hexdigest()[:12]
    return found


def _content(path: Path, runs: Path) -> bytes:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return b"".join(f"{k}{arrays[k].dtype}{arrays[k].shape}".encode() + arrays[k].tobytes() for k in arrays)
    if path.suffix in (".json", ".jsonl"):
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        return json.dumps([_timeless(json.loads(line)) for line in lines], sort_keys=True).encode()
    return path.read_bytes().replace(str(runs).encode(), b"RUNS")


def _timeless(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _timeless(value) for key, value in tree.items() if key not in TIMES}
    return tree


def queue(runs: Path) -> Counter[tuple[str, str]]:
    """(key of a piece, state of its trial) -> trials."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    found: Counter[tuple[str, str]] = Counter()
    for log in sorted((runs / "studies").glob("*.log")):
        with warnings.catch_warnings(action="ignore"):  # experimental-feature notices
            storage = JournalStorage(JournalFileBackend(str(log)))
        for trial in optuna.load_study(study_name=log.stem, storage=storage).get_trials(deepcopy=False):
            found[trial.user_attrs.get("key", ""), trial.state.name] += 1
    return found


def window(runs: Path) -> list[str]:
    """What MLflow shows: a line for each run, with all that it holds but times, places and its number."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{runs / 'mlflow' / 'mlflow.db'}")
    lines, known = [], set()
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id], max_results=1000):
            known.add(run.info.run_id)
            tags = {k: v for k, v in run.data.tags.items() if k in ("plan", "kind", "key", "cell", "seed", "identity")}
            parent = "mlflow.parentRunId" in run.data.tags
            params = {k: v.replace(str(runs), "RUNS") for k, v in run.data.params.items()}
            curves = {
                name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
                for name in sorted(run.data.metrics)
                if not name.endswith(TIMES)
            }
            files = sorted(_files(client, run.info.run_id))
            lines.append(json.dumps([tags, parent, run.info.status, params, curves, files], sort_keys=True))
    folders = {p.name for p in (runs / "mlflow" / "artifacts").glob("*")}
    return sorted(lines) + [f"artifacts of no run: {name}" for name in sorted(folders - known)]


def _files(client: Any, run: str, folder: str | None = None) -> list[str]:
    found = []
    for entry in client.list_artifacts(run, folder):
        found += _files(client, run, entry.path) if entry.is_dir else [entry.path]
    return found


def table(out: Path) -> dict[str, str]:
    """The tables that were written, without the time that training took, and the command."""
    texts = {path.name: path.read_text() for path in sorted(out.iterdir()) if path.is_file()} if out.is_dir() else {}
    return {name: re.sub(r"training \S+ s in all|runs=\S+", "", text) for name, text in texts.items()}


def difference(expected: Any, found: Any) -> list[str]:
    """Where two of these differ, in words."""
    if isinstance(expected, dict):
        keys = sorted({*expected, *found})
        return [f"{k}: {expected.get(k)} is now {found.get(k)}" for k in keys if expected.get(k) != found.get(k)]
    lost, gained = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
    return [f"lost: {x}" for x in lost.elements()] + [f"gained: {x}" for x in gained.elements()]
