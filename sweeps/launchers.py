"""Workers on other machines: jobs of Slurm (through submitit), tasks of a Ray cluster. Each is the same pull worker.

They tell nothing themselves; what happens is read off the queue and the records. `runs` lies on a file system that all
of them share. Slurm's jobs go on when the command is interrupted or its terminal closes, and the same command watches
them again (`scancel` ends them); Ray's tasks end with the command. What a worker was doing when it ended, by a time
limit, say, is given back and goes on from its last checkpoint.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from skeletons.errors import BadInput, optional, unknown
from sweeps.config import Config, LaunchConfig, select
from sweeps.execute import failure_of, metrics_of
from sweeps.plan import Work
from sweeps.records import Records
from sweeps.storage import check_storage
from sweeps.supervise import return_lost
from sweeps.work_queue import Address, Queue
from sweeps.workers import Event, Launcher, Processes, ThisProcess, pull, take_gpu

ROOT = Path(__file__).resolve().parents[1]
LAUNCHERS = ("local", "slurm", "ray")
PASSED, SECRET = re.compile("PG|SKELBENCH_|MLFLOW_"), re.compile("PASSWORD|TOKEN|KEY|SECRET")
POLL = 10.0  # seconds between two questions to Slurm


def check_launch(config: Config) -> None:
    """Refuse what no launcher could do, before anything runs."""
    for name, known in (("launcher", LAUNCHERS), ("launch.executor", ("slurm", "local")), ("retry", ("", "failed"))):
        if (given := select(config, name)) not in known:
            raise unknown(name, given, filter(None, known))
    if 0 < config.launch.gpus < config.ranks:
        raise BadInput(f"launch.gpus={config.launch.gpus} must be at least ranks={config.ranks}: each has its own GPU")
    check_storage(config.storage)


def make_launcher(config: Config, address: Address, works: Sequence[Work], records: Records, workers: int) -> Launcher:
    """What `launcher=` asks for.

    Raises:
        BadInput: the package for it is missing, or the cluster does not answer.
    """
    if config.launcher == "slurm":
        return Slurm(config, address, works, records)
    if config.launcher == "ray":
        return Ray(config, address, works, records)
    if workers == 1:
        return ThisProcess(address, records.root)
    return Processes(partial(pull, address, records.root), config.device, config.ranks)


def pull_elsewhere(address: Address, root: Path, slot: int, device: str, ranks: int, limit: int) -> None:
    """A worker on another machine: it also gives back what others there lost, in case no command is watching."""
    take_gpu(slot, device, ranks)
    pieces, records = Queue(address), Records(root)
    while True:
        pull(address, root, lambda event: None)
        if not list(return_lost(pieces, records, limit, {})):
            return


class Watch:
    """Events of workers that cannot tell them: read off the queue and the records."""

    def __init__(self, address: Address, works: Sequence[Work], records: Records):
        self.pieces, self.records = Queue(address), records
        self.works = {work.key: work for work in works}
        self.seen = {t.number: t.state.name for t in self.pieces.trials("COMPLETE", "FAIL")}
        self.steps: dict[str, int] = {}

    def __call__(self) -> Iterator[Event]:
        for trial in self.pieces.trials("RUNNING", "COMPLETE", "FAIL"):
            key, state = trial.user_attrs["key"], trial.state.name
            if key not in self.works:
                continue
            before, self.seen[trial.number] = self.seen.get(trial.number), state
            work = self.works[key]
            if before is None:
                yield "started", key, {"cell": work.cell, "split": work.split, "seed": work.seed}
            if state == "RUNNING":
                yield from self._training(work)
            elif state != before:
                yield from self._ended(work, state)

    def _training(self, work: Work) -> Iterator[Event]:
        lines = metrics_of(self.records.run(work.pretraining))
        if lines and lines[-1]["step"] != self.steps.get(work.key):
            self.steps[work.key] = int(lines[-1]["step"])
            yield "training", work.key, {"steps": "?", **lines[-1]}

    def _ended(self, work: Work, state: str) -> Iterator[Event]:
        for protocol, judgement in work.judgements.items():
            if result := self.records.result(work.pretraining, judgement.identity):
                yield "judged", work.key, {"protocol": protocol, "top1": result["value"]}
        if state == "COMPLETE":
            yield "finished", work.key, {}
        elif reason := failure_of(work, self.records):  # else it was given back
            yield "failed", work.key, {"reason": reason}


class Elsewhere:
    """What the two clusters share: what happens is read off."""

    def __init__(self, config: Config, address: Address, works: Sequence[Work], records: Records):
        self.launch: LaunchConfig = config.launch
        self.cpus = self.launch.cpus or config.threads * config.ranks
        self.address, self.root, self.device, self.ranks = address, records.root, config.device, config.ranks
        self.watch = Watch(address, works, records)

    def arguments(self, slot: int) -> tuple[Any, ...]:
        """Of `pull_elsewhere`."""
        return self.address, self.root, slot, self.device, self.ranks, self.launch.lost

    def events(self, timeout: float) -> Iterator[Event]:
        time.sleep(max(timeout, 0.1))
        yield from self.watch()


class Slurm(Elsewhere):
    """Job arrays of Slurm, through submitit. Jobs of an earlier command that still wait or run count as this one's."""

    def __init__(self, config: Config, address: Address, works: Sequence[Work], records: Records):
        super().__init__(config, address, works, records)
        submitit = optional("submitit", "slurm", "launcher=slurm")
        logging.getLogger("submitit").setLevel(logging.WARNING)
        self.here = self.launch.executor == "local"
        if not self.here and shutil.which("squeue") is None:
            raise BadInput("launcher=slurm: there is no Slurm here; launch.executor=local tries it on this machine")
        folder = records.root / "studies" / f"{address.name}.jobs"
        self.executor = submitit.AutoExecutor(folder / "%j", cluster="local" if self.here else "slurm")
        self.name = f"skelbench-{address.name}"
        self.executor.update_parameters(name=self.name, **self._asked())
        self.looked, self.alive = 0.0, set[str]()
        earlier: list[Any] = [] if self.here else [submitit.SlurmJob(folder / "%j", job) for job in self._listed()]
        self.jobs: dict[int, Any] = dict(enumerate(earlier))

    def _asked(self) -> dict[str, Any]:
        """Parameters of submitit."""
        asked: dict[str, Any] = {"timeout_min": max(1, round(self.launch.hours * 60))}
        asked["cpus_per_task"] = self.cpus
        asked |= {"gpus_per_node": self.launch.gpus} if self.launch.gpus else {}
        asked |= {"mem_gb": self.launch.memory} if self.launch.memory else {}
        if not self.here:
            named = {"slurm_partition": self.launch.partition, "slurm_account": self.launch.account}
            asked |= {key: value for key, value in named.items() if value}
            asked["slurm_additional_parameters"] = dict(self.launch.options)
            asked["slurm_setup"] = [f"export PYTHONPATH={ROOT}${{PYTHONPATH:+:$PYTHONPATH}}"]
        return asked

    def start(self, slots: Sequence[int]) -> None:
        slots = [slot for slot in slots if slot not in self.jobs]
        if not slots:
            return
        with self.executor.batch():
            jobs = [self.executor.submit(pull_elsewhere, *self.arguments(slot)) for slot in slots]
        self.jobs |= dict(zip(slots, jobs))
        self.looked, self.alive = time.monotonic(), self.alive | {job.job_id for job in jobs}

    def ended(self) -> dict[int, tuple[str, str]]:
        if not self.here and time.monotonic() - self.looked > POLL:
            self.looked, self.alive = time.monotonic(), self._listed()
        found = {}
        for slot, job in list(self.jobs.items()):
            if job.paths.result_pickle.is_file() or (job.done() if self.here else job.job_id not in self.alive):
                found[slot] = f"job {job.job_id}", _why(job)
                del self.jobs[slot]
        return found

    def _listed(self) -> set[str]:
        """Our jobs that wait or run. Slurm's accounting, which submitit asks, is not on every cluster."""
        asked = ["squeue", "--me", "--noheader", "--array", "--format=%i", f"--name={self.name}"]
        done = subprocess.run(asked, capture_output=True, text=True)
        return set(done.stdout.split()) if done.returncode == 0 else self.alive

    def enough(self) -> None:
        for job in self.jobs.values():
            job.cancel(check=False)

    def close(self) -> None:
        if self.jobs:
            ids = " ".join(job.job_id for job in self.jobs.values())
            print(f"jobs that go on: {ids}; the same command watches them again, scancel ends them", flush=True)


def _why(job: Any) -> str:
    """Why a job died; "" where it did not."""
    if not job.paths.result_pickle.is_file():
        return f"job {job.job_id} ended without a word: time, memory, or cancelled"
    error = job.exception()
    return str(error).strip().splitlines()[-1] if error else ""


class Ray(Elsewhere):
    """Tasks of a Ray cluster, which gives them their GPUs. They get this machine's settings of PostgreSQL and MLflow,
    but no secrets, which Ray would show: those are in ~/.pgpass, or in the environment of each node's `ray start`."""

    def __init__(self, config: Config, address: Address, works: Sequence[Work], records: Records):
        super().__init__(config, address, works, records)
        ray = optional("ray", "ray", "launcher=ray")
        self.ray, self.tasks = ray, dict[int, Any]()
        passed = {k: v for k, v in os.environ.items() if PASSED.match(k) and not SECRET.search(k)}
        passed["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        about: dict[str, Any] = {
            "runtime_env": {"env_vars": passed},
            "log_to_driver": False,
            "logging_level": logging.ERROR,
        }
        at = self.launch.address
        try:
            if at.rpartition(":")[2].isdigit() and "//" not in at:  # Ray itself would ask for minutes
                host, _, port = at.rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(at, **about)
        except OSError as error:
            raise BadInput(f"launcher=ray: no cluster at launch.address={at}; `ray start --head` makes one") from error

    def start(self, slots: Sequence[int]) -> None:
        asked: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.launch.gpus, "max_retries": 0}
        asked |= {"memory": self.launch.memory * 1e9} if self.launch.memory else {}
        task = self.ray.remote(pull_elsewhere).options(scheduling_strategy="SPREAD", **asked)
        self.tasks |= {slot: task.remote(*self.arguments(slot)) for slot in slots}

    def ended(self) -> dict[int, tuple[str, str]]:
        found = {}
        for slot, task in list(self.tasks.items()):
            if self.ray.wait([task], timeout=0)[0]:
                try:
                    self.ray.get(task)
                    reason = ""
                except self.ray.exceptions.TaskCancelledError:
                    reason = ""
                except Exception as error:  # whatever ended the worker on its node; it is told as the reason
                    reason = str(error).strip().splitlines()[-1]
                found[slot] = f"task {task.hex()[:8]}", reason
                del self.tasks[slot]
        return found

    def enough(self) -> None:
        for task in self.tasks.values():
            self.ray.cancel(task)

    def close(self) -> None:
        self.ray.shutdown()
