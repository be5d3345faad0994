"""What a study found: a file that pictures are drawn from, the best configuration, and a summary in words."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skeletons.splits import withhold
from sweeps.config import OF_THE_COMMAND
from sweeps.identity import data_of
from sweeps.plan import Work
from sweeps.records import provenance, write_json
from sweeps.spaces import text
from sweeps.tuned import KEY, write_tuned
from sweeps.tuning import Search

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

ENOUGH = 8  # complete trials before importance is more than noise
NOT_KEPT = (*OF_THE_COMMAND, "runs", "seeds", "device", "protocol", KEY)  # of the command line, in the best's file


def conclude(search: Search, works: list[Work], study: Study, command: str) -> dict[str, Any]:
    """Write `studies/NAME.json` and, once a trial is complete, `studies/NAME.yaml`; returns the former's content.

    Args:
        works: the start's.
        command: that made it.
    """
    config = works[0].config
    data, part = data_of(config)
    _, held = withhold(data, part.train)
    trials = [_told(trial) for trial in study.get_trials(deepcopy=False)]
    complete = [t for t in trials if t["state"] == "complete"]
    first = next((t for t in complete if not t["overrides"]), trials[0])
    best = max(complete, key=lambda t: (t["value"], -t["number"]), default=None)
    judgement = next(iter(works[0].judgements.values()))
    found = {
        "name": search.name,
        "command": command,
        "method": config.method.name,
        "data": data.name,
        "stream": data.stream,
        "split": part.name,
        "scale": config.scale,
        "setting": config.setting,
        "seeds": [work.seed for work in works],
        "score": search.score,
        "heading": judgement.heading,
        "pooling": judgement.pooling,
        "withheld": {"clips": len(held), "subjects": _subjects(data.table, held), "of": len(part.train)},
        "evaluations": config.train.evaluations,
        "space": [asdict(p) | {"choices": [text(c) for c in p.choices]} for p in search.space.parameters],
        "start": search.space.start,
        "first": first["number"],
        "dropped": search.space.dropped,
        "trials": trials,
        "importance": importance(study) if len(complete) >= ENOUGH else {},
        "best": best["number"] if best else None,
        **provenance(),
    }
    write_json(search.journal.with_suffix(".json"), found)
    if best is not None:
        about = {k: found[k] for k in ("name", "command", "score", "split", "seeds", "withheld", "commit", "dirty")}
        about |= {"trials": len(trials), "complete": len(complete), "trial": best["number"], "value": best["value"]}
        about |= {"start": first["value"], "fingerprint": data.fingerprint}
        given = {o.partition("=")[0]: o for o in search.given if o.partition("=")[0] not in NOT_KEPT}
        given = {k: o for k, o in given.items() if k != "protocol.names"}
        named = {"method": config.method.name, "setting": config.setting, "scale": config.scale}
        said = [f"{k}={v}" for k, v in named.items() if k not in given]
        write_tuned(best_file(search), [*said, *given.values(), *best["overrides"]], about)
    return found


def best_file(search: Search) -> Path:
    """Where the best configuration lies."""
    return search.journal.with_suffix(".yaml")


def _subjects(table: dict[str, np.ndarray], held: np.ndarray) -> list[int]:
    return sorted(set(table["subject"][held].tolist())) if "subject" in table else []


def _told(trial: FrozenTrial) -> dict[str, Any]:
    """A trial as plain values."""
    done = trial.datetime_complete
    reason = trial.user_attrs.get("reason", "")
    state = {"fail": "failed"}.get(trial.state.name.lower(), trial.state.name.lower())
    return {
        "number": trial.number,
        "state": "diverged" if reason.startswith("diverged") else state,
        "value": trial.value if state == "complete" else None,
        "params": trial.params,
        "overrides": trial.user_attrs.get("overrides", []),
        "curve": {str(place): value for place, value in sorted(trial.intermediate_values.items())},
        "reason": reason,
        "runs": trial.user_attrs.get("runs", []),
        "began": trial.datetime_start.timestamp() if trial.datetime_start else None,
        "seconds": (done - trial.datetime_start).total_seconds() if done and trial.datetime_start else None,
    }


def importance(study: Study) -> dict[str, float]:
    """Share of the score's variance that each setting explains, over complete trials (fANOVA), largest first."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dict(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0)))
        except (ValueError, RuntimeError):  # all scores are equal: nothing to explain
            return {}


def half_width(percent: float, clips: int) -> float:
    """Half of Wilson's 95 % interval of a share of clips, in points."""
    share, n, z = percent / 100, max(1, clips), 1.96
    return 100 * z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))


def summary(found: dict[str, Any], best: Path) -> str:
    """A study in words, ending with the command to run."""
    trials = found["trials"]
    states = [t["state"] for t in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
    held = found["withheld"]
    who = f"subjects {', '.join(map(str, held['subjects']))}, " if held["subjects"] else ""
    lines = [
        f"{found['name']}: {len(trials)} trials ({counts})",
        f"score: {found['heading']}, top-1 %, of withheld training subjects ({who}{held['clips']} of {held['of']} "
        f"training clips of split {found['split']}), mean over seeds {found['seeds']}; the test split was not read",
    ]
    if found["best"] is None:
        reasons = dict.fromkeys(t["reason"] for t in trials if t["reason"])
        return "\n".join([*lines, "no trial is complete, so there is nothing to choose: " + "; ".join(reasons)])
    top, start = trials[found["best"]], trials[found["first"]]
    lines.append(
        f"best:  trial {top['number']:>3}  {top['value']:5.1f}  {' '.join(top['overrides']) or 'as it starts'}"
    )
    if start["value"] is None:
        lines.append(f"start: trial {start['number']:>3}  {start['state']}: {start['reason']}")
    else:
        lines.append(f"start: trial {start['number']:>3}  {start['value']:5.1f}")
        noise = half_width(top["value"], held["clips"])
        lines.append(
            f"difference {top['value'] - start['value']:+.1f} points; one score is sure to ±{noise:.1f} (95 %, "
            f"{held['clips']} clips), and the best of many flatters: judge it by the command below"
        )
    if found["importance"]:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in found["importance"].items())
        lines.append(f"importance (fANOVA, {states.count('complete')} complete trials): {shares}")
    else:
        lines.append(f"importance: not with fewer than {ENOUGH} complete trials of different scores")
    return "\n".join([*lines, f"best configuration: {best}", f"now: python sweeps/run.py {KEY}={best}"])
