"""A search for settings: TPE proposes, training subjects that are withheld judge, the online kNN curve prunes.

A trial is an ordinary run in `runs/<identity>` (for each seed), so an equal configuration is trained once, by tables
too. Its score is a protocol's, with the withheld subjects in the place of the test split, which is not read. The study
is a journal: a trial enters it whole, with all its values, and a killed one is taken up again under its number, from
its checkpoint. What TPE proposes is a function of the trials before, so one worker ends where an undisturbed one does.
How a trial is carried out: `sweeps/trial.py`.

Median pruning, not Hyperband: a curve has 4 to 8 points, and Hyperband's brackets would share some 50 trials out
among samplers of their own, each with too few to model anything. The first trials and the first third of a curve are
left alone, where the learning rate still rises and curves cross.
"""

from __future__ import annotations

import fcntl
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sweeps.identity import data_of, digest, pretraining_identity
from sweeps.plan import Work, make_plan
from sweeps.spaces import Space
from sweeps.storage import JOURNAL, open_storage, open_study

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

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
        command: tells the one that runs from those before it; they may have been killed, with their workers.
        limit: how often that command's workers may die of a trial that gets no further; then it has failed.
    """

    name: str
    given: list[str]
    space: Space
    score: str
    trials: int
    root: Path
    again: tuple[int, ...] = ()
    command: str = ""
    limit: int = 3

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
