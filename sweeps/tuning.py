"""A search for settings: TPE proposes, training subjects that are withheld judge, the online kNN curve prunes.

A trial is an ordinary run in `runs/<identity>` (for each seed), so an equal configuration is trained once, by tables
too. Its score is a protocol's, with the withheld subjects in the place of the test split, which is not read. The study
is a journal: a trial enters it whole, with all its values, and a killed one is taken up again under its number, from
its checkpoint. What TPE proposes is a function of the trials before, so one worker ends where an undisturbed one does.

Median pruning, not Hyperband: a curve has 4 to 8 points, and Hyperband's brackets would share some 50 trials out
among samplers of their own, each with too few to model anything. The first trials and the first third of a curve are
left alone, where the learning rate still rises and curves cross.
"""

from __future__ import annotations

import fcntl
import math
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from methods.checkpoint import load_encoder
from methods.trainer import TrainingFailed, steps_in
from protocols.base import Subject, make_protocol
from skeletons.errors import BadInput
from skeletons.sampling import ClipTensors
from skeletons.splits import Split, withhold
from skeletons.whole import is_full
from sweeps.execute import metrics_of, pretrain
from sweeps.identity import data_of, device_of, digest, pretraining_identity
from sweeps.plan import Work, make_plan
from sweeps.records import Records, provenance, read_json, write_json
from sweeps.spaces import Space
from sweeps.storage import JOURNAL, open_storage, open_study
from sweeps.workers import Event

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

VERSION = 1  # of what is proposed and pruned; another one is another study
RANDOM = 10  # trials before TPE has enough to model
UNPRUNED = 5  # complete trials before any is pruned


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        name: of the study.
        given: the command line without what is tuning's own.
        space: fitted to the method.
        score: protocol that judges.
        trials: to have in the end.
        root: folder of all runs.
        again: trials that failed before and are to be done again.
    """

    name: str
    given: list[str]
    space: Space
    score: str
    trials: int
    root: Path
    again: tuple[int, ...] = ()

    @property
    def journal(self) -> Path:
        """Of the study."""
        return self.root / "studies" / f"{self.name}.log"

    def works(self, values: dict[str, Any]) -> list[Work]:
        """The trainings of a trial with these values, one for each seed."""
        return works_of([*self.given, *self.space.overrides(values)], self.score)


def works_of(overrides: list[str], score: str) -> list[Work]:
    """One method on one split, with each seed, judged by `score`."""
    return make_plan([*overrides, "ablation.floors=false", f"protocol.names=[{score}]"])[1]


def study_name(works: list[Work], space: Space) -> str:
    """Name of a study: what it tunes, and a hash of all that its scores depend on."""
    config = works[0].config
    content = {
        "version": VERSION,
        "start": [pretraining_identity(w.config, *data_of(w.config))[1] for w in works],
        "score": [w.results for w in works],
        "evaluations": config.train.evaluations,
        "space": {key: repr(distribution) for key, distribution in space.distributions.items()},
        "along": space.along,
    }
    return f"tune-{config.method.name}-{config.data.name}-{config.scale}-{space.name}-{digest(content)[:6]}"


def open_search(search: Search) -> Study:
    """The study, with the pruner that its curves' length asks for."""
    from optuna.pruners import MedianPruner

    study = open_study(open_storage(JOURNAL, search.journal), search.name)
    evaluations = search.works(search.space.start)[0].config.train.evaluations
    study.pruner = MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=math.ceil(evaluations / 3))
    return study


def propose(trials: list[FrozenTrial], space: Space) -> dict[str, Any]:
    """The next trial's values: the start, then what TPE draws from the trials so far.

    A study in memory is asked, with a sampler of this trial's own seed: the draw depends on nothing else.
    """
    import optuna

    if not trials:
        return dict(space.start)
    seed = int(digest(["tuning", len(trials)])[:8], 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental-feature notices
        sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM, multivariate=True, constant_liar=True, seed=seed)
        copy = optuna.create_study(direction="maximize", sampler=sampler)
        copy.add_trials(trials)
        return copy.ask(space.distributions).params


class Claims:
    """Who works on which trial: locks on single bytes of a file, which the system frees when their process dies.

    Args:
        file: open for writing, once in a process.
    """

    def __init__(self, file: BinaryIO):
        self.file = file

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else looks for work meanwhile."""
        fcntl.lockf(self.file, fcntl.LOCK_EX, 1, 0)
        try:
            yield
        finally:
            fcntl.lockf(self.file, fcntl.LOCK_UN, 1, 0)

    def take(self, number: int) -> bool:
        """Claim a trial; False where somebody alive has it."""
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1 + number)
        except OSError:
            return False
        return True

    def leave(self, number: int) -> None:
        """Give a trial back."""
        fcntl.lockf(self.file, fcntl.LOCK_UN, 1, 1 + number)


def next_trial(search: Search, study: Study, claims: Claims) -> FrozenTrial | None:
    """A trial to work on: one whose worker died, one that is done again, a new one; None where there are enough."""
    from optuna.trial import TrialState, create_trial

    with claims.alone():
        trials = study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.RUNNING and claims.take(trial.number):
                if not study.get_trials(deepcopy=False)[trial.number].state.is_finished():
                    return trial
                claims.leave(trial.number)  # its worker had just finished it
        again = _again(search, trials)
        if not again and _counted(trials) >= search.trials:
            return None
        values = trials[again[0]].params if again else propose(trials, search.space)
        told = {"overrides": search.space.overrides(values)} | ({"again": again[0]} if again else {})
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=values,
                distributions=search.space.distributions,
                user_attrs=told,
            )
        )
        claims.take(len(trials))
        return study.get_trials(deepcopy=False)[-1]


def _again(search: Search, trials: list[FrozenTrial]) -> list[int]:
    begun = {t.user_attrs.get("again") for t in trials}
    return [number for number in search.again if number not in begun]


def _counted(trials: list[FrozenTrial]) -> int:
    """Trials, one that was done again counted once."""
    return sum("again" not in t.user_attrs for t in trials)


def to_do(search: Search, study: Study) -> int:
    """Trials that are to be begun or finished."""
    trials = study.get_trials(deepcopy=False)
    unfinished = sum(not t.state.is_finished() for t in trials)
    return max(0, search.trials - _counted(trials)) + unfinished + len(_again(search, trials))


def work_through(search: Search, tell: Callable[[Event], None]) -> None:
    """Carry out trials until there are enough. One that fails is recorded with its reason, the others go on."""
    from optuna.trial import Trial

    study = open_search(search)
    with open(search.journal.with_suffix(".claims"), "ab") as file:
        claims = Claims(file)
        while (found := next_trial(search, study, claims)) is not None:
            try:
                _carry_out(search, study, Trial(study, found._trial_id), tell)
            finally:
                claims.leave(found.number)


def _carry_out(search: Search, study: Study, trial: Trial, tell: Callable[[Event], None]) -> None:
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
        raise BadInput("this process can use its GPU no more; the same command goes on with the other trials")


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
