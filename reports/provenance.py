"""Where a measured number comes from: its runs with their seeds, settings, commit, machine and date, and the command
that makes it again. The page shows it when one clicks the number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from reports.formats import Source
from reports.intervals import Estimate, scores
from sweeps.config import flat
from sweeps.records import Records

HOW = {"seeds": "Student's t over seeds", "clips": "bootstrap over test clips, which says nothing of seeds"}
TOLD = ("data", "split", "trained_on", "pooling", "recipe", "selection", "rate", "validation", "audit")
UNTOLD = ("versions", "topology", "method", "fields")  # of a run's identity: not settings, or flattened below


def source_of(
    what: str, found: Estimate, by_seed: Mapping[int, dict[str, Any]], records: Records, command: str
) -> Source:
    """Of one cell by one protocol.

    Args:
        by_seed: seed -> result.
        command: what makes all of the table.
    """
    some = by_seed[min(by_seed)]
    facts = {"mean": f"{found.mean:.2f} %"}
    if found.how != "none":
        facts["95 % interval"] = f"{found.low:.2f} to {found.high:.2f} ({HOW[found.how]})"
    facts |= {key.replace("_", " "): _told(some[key]) for key in TOLD if key in some}
    facts |= {"clips": f"{some['train_clips']} training, {some['test_clips']} test"} if "test_clips" in some else {}
    facts |= {"data fingerprint": some["fingerprint"]} if "fingerprint" in some else {}
    return Source(what, tuple(_runs(by_seed, sorted(by_seed))), settings_of(some, records), facts, command)


def difference_source(
    what: str, gap: Estimate, these: Mapping[int, dict], those: Mapping[int, dict], command: str
) -> Source:
    """Of a paired difference: the runs of both sides, and the difference of each seed."""
    shared = sorted(these.keys() & those.keys())
    facts = {"mean difference": f"{gap.mean:+.2f} points"}
    if gap.how != "none":
        facts["95 % interval"] = f"{gap.low:+.2f} to {gap.high:+.2f} ({HOW[gap.how]})"
    for seed in shared:
        facts[f"seed {seed}"] = f"{_percent(these[seed]) - _percent(those[seed]):+.2f}"
    runs = tuple(run for side in (these, those) for run in _runs(side, shared))
    return Source(what, runs, facts=facts, command=command)


def _runs(by_seed: Mapping[int, dict[str, Any]], seeds: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Every run of these seeds; several of a seed where folds were put together."""
    for seed in seeds:
        for result in by_seed[seed].get("parts", [by_seed[seed]]):
            yield run_of(result)


def run_of(result: dict[str, Any]) -> dict[str, Any]:
    """A result as the panel lists it."""
    named = {"seed": "seed", "run": "pretraining", "result": "identity", "commit": "commit"}
    named |= {"machine": "machine", "date": "finished"}
    told = {key: result[there] for key, there in named.items() if there in result}
    if result.get("dirty") and "commit" in told:
        told["commit"] += "+changes"
    return {"value": round(_percent(result), 2), **told}


def settings_of(result: dict[str, Any], records: Records) -> dict[str, Any]:
    """What made the encoder of a result, where it is not at its neutral default, flat: `train.batch` -> 32."""
    about = records.about(result["pretraining"]) if "pretraining" in result else {}
    hashed = about.get("hashed", {})
    told = {"method.name": hashed["method"]} if "method" in hashed else {}
    told |= flat(hashed.get("fields", {}))
    return told | flat({key: value for key, value in hashed.items() if key not in UNTOLD})


def _told(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _percent(result: dict[str, Any]) -> float:
    return 100 * float(scores(result).mean())
