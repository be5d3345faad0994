"""The queue of an ablation's pieces of work: enqueued trials of an Optuna study, each taken by one worker only.

The files in `runs/` are the truth: what is complete there is not enqueued, and a piece whose worker died is enqueued
again. How a dead worker is known: see `sweeps/storage.py`.
"""

from __future__ import annotations

import os
import platform
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.composing import from_plain
from sweeps.config import OF_THE_COMMAND, Config
from sweeps.identity import Judgement, digest
from sweeps.plan import Work
from sweeps.storage import BEATS, GRACE, JOURNAL, holding, is_held, open_storage, open_study

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Address:
    """Where a queue lies, for workers to open it.

    Attributes:
        storage: "journal" or the address of a PostgreSQL database.
        name: of the study.
        journal: its file, where it is one.
        grace: seconds without a heartbeat after which a worker is taken for dead; a journal needs none.
    """

    storage: str
    name: str
    journal: Path
    grace: int = GRACE


@dataclass(frozen=True)
class Claim:
    """A piece of work that this worker, and nobody else, has taken.

    Attributes:
        trial: its id in the storage.
    """

    trial: int
    work: Work


class Queue:
    """An open queue; not to be shared between processes.

    Args:
        address: where it lies; made if it is not there.
    """

    def __init__(self, address: Address):
        self.address = address
        self._stale: list[FrozenTrial] = []
        self._described: dict[str, Any] = {}
        self.storage = open_storage(
            address.storage, address.journal, address.grace, lambda _, trial: self._stale.append(trial)
        )
        self.study = open_study(self.storage, address.name)
        self.study_id = self.storage.get_study_id_from_name(address.name)

    def trials(self, *states: str) -> list[FrozenTrial]:
        """Trials in these states ("WAITING", "RUNNING", ...)."""
        from optuna.trial import TrialState

        wanted = tuple(TrialState[state] for state in states)
        found = self.storage.get_all_trials(self.study_id, deepcopy=False, states=wanted)
        return [trial for trial in found if "key" in trial.user_attrs]

    def enqueue(self, works: Sequence[Work]) -> None:
        """Put work in the queue that neither waits in it nor is being done.

        A piece is described with the study, not with its trial: so a list of the trials stays short to read.
        """
        there = set()
        for trial in self.trials("WAITING", "RUNNING"):
            if self._is_described(trial):
                there.add(trial.user_attrs["key"])
            elif trial.state.name == "WAITING":
                self._settle(self._id(trial), "FAIL")
        described = self.storage.get_study_user_attrs(self.study_id)
        for work in sorted(works, key=lambda w: bool(w.needs)):  # who needs others waits for them: last, all are there
            if work.key in there:
                continue
            if described.get(digest(work.key)) != (description := told(work)):
                self.storage.set_study_user_attr(self.study_id, digest(work.key), description)
            self._add(work, lost=0, progress=0)

    def _add(self, work: Work, lost: int, progress: int) -> None:
        params = {"cell": work.cell, "split": work.split, "seed": work.seed}
        self.study.enqueue_trial(params, user_attrs={"key": work.key, "lost": lost, "progress": progress})

    @contextmanager
    def next(self) -> Iterator[Claim | None]:
        """The next piece, this worker's until the block ends; None where none is left waiting."""
        while waiting := self.trials("WAITING"):
            for trial in waiting:
                with self._reserved(trial) as reserved:
                    if reserved and self._settle(self._id(trial), "RUNNING"):
                        with self._beating(self._id(trial)):
                            self.storage.set_trial_user_attr(self._id(trial), "worker", worker_name(os.getpid()))
                            yield Claim(self._id(trial), self._work(trial))
                        return
            time.sleep(0.05)  # each is just being taken by somebody
        yield None

    @contextmanager
    def _reserved(self, trial: FrozenTrial) -> Iterator[bool]:
        """Show that this process lives, before the trial is taken: there is no moment in which it looks dead."""
        if self.address.storage == JOURNAL:
            with holding(self.address.journal, trial.number) as mine:
                yield mine
        else:
            self._beat(self._id(trial))
            yield True

    @contextmanager
    def _beating(self, trial: int) -> Iterator[None]:
        """Heartbeats, where they decide, until the block ends."""
        if self.address.storage == JOURNAL:
            yield
            return
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(self.address.grace / BEATS):
                try:
                    self._beat(trial)
                except Exception:  # the server is away for a moment: the next beat may reach it
                    continue

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beat(self, trial: int) -> None:
        from optuna.storages import RDBStorage

        assert isinstance(self.storage, RDBStorage)
        self.storage.record_heartbeat(trial)

    def _is_described(self, trial: FrozenTrial) -> bool:
        """False for a piece that an earlier version of this program enqueued: whoever misses it enqueues it again."""
        name = digest(trial.user_attrs.get("key"))
        if name not in self._described:  # enqueued since this was last read
            self._described = dict(self.storage.get_study_user_attrs(self.study_id))
        return name in self._described

    def _work(self, trial: FrozenTrial) -> Work:
        assert self._is_described(trial)
        return work_of(self._described[digest(trial.user_attrs["key"])])

    def finish(self, claim: Claim, value: float) -> None:
        """The piece is done; its headline is kept with the trial."""
        self._settle(claim.trial, "COMPLETE", [value])

    def fail(self, claim: Claim) -> None:
        """The piece failed."""
        self._settle(claim.trial, "FAIL")

    def _settle(self, trial: int, state: str, values: Sequence[float] | None = None) -> bool:
        """Change a trial's state; False where somebody else did."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            return self.storage.set_trial_state_values(trial, TrialState[state], values)
        except UpdateFinishedTrialError:
            return False

    def give_back(
        self,
        limit: int,
        progress: Callable[[Work], int | None],
        ended: Collection[str] = (),
        forgiven: Collection[int] = (),
    ) -> list[tuple[Work, int]]:
        """Enqueue again what dead workers had taken.

        Args:
            limit: how often a piece may lose its worker without getting further; then it is not enqueued again.
            progress: a number that grows when a piece gets further; None where it is complete.
            ended: names of workers that are known to have ended.
            forgiven: numbers of trials whose worker's death says nothing against the piece: the sweep was killed.

        Returns:
            (piece, how often it has lost its worker without getting further) for each
        """
        found = []
        for trial in filter(self._is_described, self._dead(ended)):
            work = self._work(trial)
            before, now = trial.user_attrs.get("progress", 0), progress(work)
            if now is None:
                continue
            lost = 1 if now > before else trial.user_attrs.get("lost", 0) + 1
            if trial.number in forgiven:
                lost = 0
            if lost < limit:
                self._add(work, lost, now)
            found.append((work, lost))
        return found

    def _dead(self, ended: Collection[str]) -> list[FrozenTrial]:
        """Trials that were running and whose worker is dead; each is given to one caller only."""
        if self.address.storage == JOURNAL:
            gone = [t for t in self.trials("RUNNING") if not is_held(self.address.journal, t.number)]
        else:
            from optuna.storages import fail_stale_trials

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # experimental-feature notice
                fail_stale_trials(self.study)
            gone = [t for t in self.trials("RUNNING") if t.user_attrs.get("worker") in ended]
        stale, self._stale = self._stale, []
        return [*stale, *(t for t in gone if self._settle(self._id(t), "FAIL"))]

    def _id(self, trial: FrozenTrial) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self.study_id, trial.number)


def worker_name(pid: int) -> str:
    """The worker that is this machine's process `pid`."""
    return f"{platform.node()}:{pid}"


def _of_the_run(config: Config) -> Config:
    """A configuration without what only the command needs: pieces are the same however they are run."""
    plain = Config()
    return replace(config, **{name: getattr(plain, name) for name in OF_THE_COMMAND})


def told(work: Work) -> dict[str, Any]:
    """A piece of work as plain values."""
    found: dict[str, Any] = {"pretraining": work.pretraining, "config": asdict(_of_the_run(work.config))}
    found |= {"cell": work.cell, "split": work.split, "raw": work.raw, "needs": [told(need) for need in work.needs]}
    found["judgements"] = {name: asdict(judgement) for name, judgement in work.judgements.items()}
    return found


def work_of(a: dict[str, Any]) -> Work:
    """The piece of work that `told` wrote down."""
    config = from_plain(a["config"])
    judgements = {key: Judgement(**fields) for key, fields in a["judgements"].items()}
    needs = tuple(map(work_of, a["needs"]))
    return Work(a["cell"], a["split"], config.seeds[0], config, a["pretraining"], judgements, a["raw"], needs)
