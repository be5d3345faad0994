"""A trial of tuning, carried out: its trainings, its curve, and the judgement of subjects that are withheld."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch

from methods.checkpoint import load_encoder
from methods.trainer import TrainingFailed, steps_in
from protocols.base import Subject, make_protocol
from skeletons.sampling import ClipTensors
from skeletons.splits import Split, withhold
from skeletons.whole import is_full
from sweeps.execute import metrics_of, pretrain
from sweeps.identity import data_of, device_of
from sweeps.plan import Work
from sweeps.records import Records, provenance, read_json, write_json
from sweeps.tuning import Claims, Search, next_trial, open_search
from sweeps.workers import Tell

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial


def work_through(search: Search, tell: Tell) -> None:
    """Carry out trials until there are enough. One that fails is recorded with its reason, the others go on.

    Raises:
        SystemExit: this process can use its GPU no more.
    """
    from optuna.trial import Trial

    study = open_search(search)
    with open(search.journal.with_suffix(".claims"), "ab") as file:
        claims = Claims(file)
        while (found := next_trial(search, study, claims)) is not None:
            try:
                trial = Trial(study, found._trial_id)
                if not _gave_up(search, study, trial, tell):
                    _carry_out(search, study, trial, tell)
            finally:
                claims.leave(found.number)


def _gave_up(search: Search, study: Study, trial: Trial, tell: Tell) -> bool:
    """Whether a trial has failed because it keeps killing its workers; else it is noted that it is taken once more."""
    from optuna.trial import TrialState

    records, told = Records(search.root), trial.user_attrs
    progress = max(map(records.progress, told.get("runs", ())), default=0)
    taken = [*told.get("taken", ()), [search.command, progress]]
    if (lost := taken.count(taken[-1]) - 1) < search.limit:
        trial.set_user_attr("taken", taken)
        return False
    reason = f"lost its worker {lost} times"
    trial.set_user_attr("reason", reason)
    study.tell(trial.number, state=TrialState.FAIL)
    tell(("failed", f"{search.name}/{trial.number}", {"cell": f"trial {trial.number}", "reason": reason}))
    return True


def _carry_out(search: Search, study: Study, trial: Trial, tell: Tell) -> None:
    from optuna.exceptions import TrialPruned
    from optuna.trial import TrialState

    records, key, scores = Records(search.root), f"{search.name}/{trial.number}", []
    state, kind, folder, broken = TrialState.FAIL, "failed", None, False
    who = {"cell": f"trial {trial.number}"}
    try:
        works = search.works(trial.params)
        trial.set_user_attr("runs", [work.pretraining for work in works])
        for number, work in enumerate(works):
            tell(("started", key, {**who, "split": work.split, "seed": work.seed}))
            folder = records.run(work.pretraining)
            curve = Curve(work, trial) if number == 0 else None
            scores.append(_score(work, records, trial, curve, lambda kind, details: tell((kind, key, details))))
        study.tell(trial.number, mean(scores))
        tell(("judged", key, {"protocol": f"{search.score} on withheld subjects", "top1": mean(scores)}))
        tell(("finished", key, {}))
        return
    except TrialPruned:
        place, knn = max(_stored(study, trial).intermediate_values.items())
        state, kind, reason = TrialState.PRUNED, "finished", f"pruned at evaluation {place}, kNN {knn:.1f} %"
        tell(("judged", key, {"protocol": "pruned, kNN", "top1": knn}))
    except Exception as error:  # of any kind: this trial failed, and says why; the others go on
        reason = str(error) or type(error).__name__
        if isinstance(error, TrainingFailed):  # a pruned trial teaches TPE to keep away, a failed one nothing
            state, reason = TrialState.PRUNED, f"diverged: {reason}"
        if is_full(error):
            raise records.disk_full() from error  # no trial's failure: it stays as it is, and is taken up again
        if folder is not None and not records.encoder(folder.name).is_file():
            records.fail(folder.name, "", reason, traceback.format_exc())
        broken = isinstance(error, torch.AcceleratorError)
    if folder is not None and _stored(study, trial).user_attrs.get("began") == folder.name:
        (folder / "checkpoint.pt").unlink(missing_ok=True)  # nobody will want it, and there are many
    trial.set_user_attr("reason", reason)
    study.tell(trial.number, state=state)
    tell((kind, key, {**who, "reason": reason}))
    if broken:
        sys.exit(1)  # another worker takes its place


def _stored(study: Study, trial: Trial) -> FrozenTrial:
    return study.get_trials(deepcopy=False)[trial.number]


def _score(
    work: Work, records: Records, trial: Trial, curve: Curve | None, report: Callable[[str, dict[str, Any]], None]
) -> float:
    """Train what is not there, and judge it on withheld subjects; the first seed's curve may prune the trial."""
    torch.set_num_threads(work.config.threads)
    with records.owned(work.pretraining) as folder:
        if curve:  # of a run that was killed, or is there already
            for line in metrics_of(folder):
                curve(line)
        (folder / "failure.json").unlink(missing_ok=True)
        if not records.encoder(work.pretraining).is_file():
            if not (folder / "checkpoint.pt").is_file():
                trial.set_user_attr("began", work.pretraining)

            def told(kind: str, details: dict[str, Any]) -> None:
                report(kind, details)
                if curve:
                    curve(details)

            pretrain(work, folder, told)
        return validation(work, records)["value"]


class Curve:
    """The online kNN accuracy of a trial's first seed, as Optuna is told of it.

    Args:
        work: what is trained.
    """

    def __init__(self, work: Work, trial: Trial):
        train = work.config.train
        steps = max(1, steps_in(train.length, train.batch, len(data_of(work.config)[1].train)))
        self.places = {round(steps * (i + 1) / train.evaluations): i + 1 for i in range(train.evaluations)}
        stored = _stored(trial.study, trial)
        self.last, self.trial, self.known = train.evaluations, trial, set(stored.intermediate_values)
        self.start = not stored.user_attrs["overrides"]

    def __call__(self, line: dict[str, Any]) -> None:
        """Take note of a line of metrics.

        Raises:
            TrialPruned: the trial is worse than the median of the others; never the start.
        """
        from optuna.exceptions import TrialPruned

        place = self.places.get(line.get("step", 0))
        if place is None or "knn" not in line:
            return
        if place not in self.known:
            self.trial.report(line["knn"], place)
            self.known.add(place)
        if place < self.last and not self.start and self.trial.should_prune():
            raise TrialPruned


def validation(work: Work, records: Records) -> dict[str, Any]:
    """A protocol's judgement of an encoder with the withheld training subjects in the place of the test split.

    Returns:
        what lies on file beside the encoder: `value` in percent, the protocol, who was withheld, and where it was made.
    """
    (judgement,) = list(work.judgements.values())[:1]
    path = records.run(work.pretraining) / "validation" / f"{judgement.identity}.json"
    known = read_json(path)
    if known is not None:
        return known
    config, device = work.config, device_of(work.config)
    data, part = data_of(config)
    fit, held = withhold(data, part.train)
    inner = Split(f"{part.name}, withheld subjects", fit, held)
    encoder = load_encoder(records.encoder(work.pretraining), device)
    subject = Subject(encoder, data, inner, ClipTensors(data, device), config.views, judgement.pooling, work.seed)
    result = make_protocol(judgement.protocol, config.protocol)(subject)
    found = {
        "value": next(iter(result.metrics.values())),
        "protocol": judgement.protocol,
        "recipe": result.recipe,
        "metrics": result.metrics,
        "pooling": judgement.pooling,
        "split": inner.name,
        "fit_clips": len(fit),
        "withheld_clips": len(held),
        "seed": work.seed,
        **provenance(),
    }
    write_json(path, found)
    return found
