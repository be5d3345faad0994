"""What was done, as files: `runs/<id>/{config.yaml, run.json, metrics.jsonl, encoder.safetensors}` and
`runs/<id>/eval/<protocol id>/{arrays.npz, result.json}`. Each appears whole or not at all; they are the truth."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from skeletons.errors import BadInput
from skeletons.whole import is_full, remove_unfinished, written_whole

CODE = ("methods", "protocols", "reports", "skeletons", "sweeps")  # what results depend on


class Records:
    """The folder of all runs.

    Args:
        root: e.g. `runs`.
    """

    def __init__(self, root: Path | str):
        self.root = Path(root).resolve()

    def run(self, identity: str) -> Path:
        """Folder of one encoder."""
        return self.root / identity

    def encoder(self, identity: str) -> Path:
        return self.run(identity) / "encoder.safetensors"

    def result_file(self, identity: str, judgement: str) -> Path:
        return self.run(identity) / "eval" / judgement / "result.json"

    def result(self, identity: str, judgement: str) -> dict[str, Any] | None:
        """A protocol's result on one encoder, None where it is not there."""
        return read_json(self.result_file(identity, judgement))

    def about(self, identity: str) -> dict[str, Any]:
        """What is known of the run that made an encoder."""
        return read_json(self.run(identity) / "run.json") or {}

    def progress(self, identity: str, judgements: Iterable[str] = ()) -> int:
        """A number that grows whenever a run gets further: by a checkpoint, its encoder, one of these judgements."""
        folder = self.run(identity)
        files = [folder / "checkpoint.pt", self.encoder(identity), *folder.glob("validation/*.json")]
        found = 0
        for path in (*files, *(self.result_file(identity, j) for j in judgements)):
            with suppress(FileNotFoundError):
                found = max(found, path.stat().st_mtime_ns)
        return found

    def failure(self, identity: str, judgements: Iterable[str] = ()) -> dict[str, Any] | None:
        """Why an encoder failed, or else the first of these results that is missing; None if nothing did."""
        missing = [j for j in judgements if not self.result_file(identity, j).is_file()]
        places = [self.failure_file(identity), *(self.failure_file(identity, j) for j in missing)]
        return next((found for found in map(read_json, places) if found is not None), None)

    def failure_file(self, identity: str, judgement: str = "") -> Path:
        """Where it says why an encoder, or a protocol's result on it, could not be made."""
        folder = self.run(identity)
        return (folder / "eval" / judgement if judgement else folder) / "failure.json"

    def disk_full(self) -> BadInput:
        """What to tell where nothing can be put on file."""
        return BadInput(f"{self.root}: the disk is full; free some space, then the same command goes on")

    def forget_failure(self, identity: str, judgements: Iterable[str]) -> None:
        """What failed is to be tried again."""
        for place in (self.failure_file(identity), *(self.failure_file(identity, j) for j in judgements)):
            place.unlink(missing_ok=True)

    @contextmanager
    def failing(self, identity: str, judgement: str = "") -> Iterator[None]:
        """Put on file why the block fails, and pass it on. A full disk is nobody's failure."""
        try:
            yield
        except Exception as error:  # of any kind: it is put on file and passed on
            if not is_full(error):
                self.fail(identity, judgement, str(error) or type(error).__name__, traceback.format_exc())
            raise
        self.failure_file(identity, judgement).unlink(missing_ok=True)

    def fail(self, identity: str, judgement: str, reason: str, trace: str = "") -> None:
        """Put on file why an encoder (or, with a judgement, its result) could not be made."""
        about = {"reason": reason, "traceback": trace, "failed": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_json(self.failure_file(identity, judgement), {**about, **provenance()})

    def arrays_file(self, identity: str, judgement: str) -> Path:
        """What a protocol found as arrays: its own, `predicted` where there is such, and `truth` of the test clips."""
        return self.run(identity) / "eval" / judgement / "arrays.npz"

    def complete(self, identity: str, judgements: Iterable[str]) -> bool:
        """Every protocol's result is there."""
        return all(self.result_file(identity, j).is_file() for j in judgements)

    def plan_file(self, name: str) -> Path:
        """Where a plan lies: which runs and results fill a table."""
        return self.root / "plans" / f"{name}.json"

    @contextmanager
    def owned(self, identity: str, wait: float = 1.0) -> Iterator[Path]:
        """The run's folder, owned by this process. A dead owner's lock is free at once; a living one is waited for."""
        folder = self.run(identity)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(wait)
            remove_unfinished(folder)
            yield folder

    @contextmanager
    def owned_now(self, identity: str) -> Iterator[bool]:
        """Whether this process owns the run's folder in the block: not if another one does, or it is not there."""
        path = self.run(identity) / ".lock"
        if not path.parent.is_dir():
            yield False
            return
        with open(path, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def is_owned(self, identity: str) -> bool:
        """Some living process works on this run."""
        path = self.run(identity) / ".lock"
        if not path.is_file():
            return False
        with open(path) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # two who ask at once do not see each other
            except BlockingIOError:
                return True
        return False

    def tidy(self, identities: Iterable[str]) -> None:
        """Remove what killed processes left: files half written, here and in these runs, and checkpoints of runs that
        have their encoder."""
        for folder in (self.root, *self.root.glob("[!.]*/")):
            remove_unfinished(folder)
        for identity in set(identities):
            folder = self.run(identity)
            for place in (*folder.glob("eval/*/"), folder / "validation"):
                remove_unfinished(place)
            if self.encoder(identity).is_file():
                (folder / "checkpoint.pt").unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The file's content; None if there is no such file.

    Raises:
        BadInput: it is damaged.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: damaged ({error}); remove it and run again") from error


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text)


def out_folder() -> Path:
    """Where tables and pictures go, if nothing else is said: $SKELBENCH_OUT, or reports/out."""
    return Path(os.environ.get("SKELBENCH_OUT") or Path(__file__).resolve().parents[1] / "reports" / "out")


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(content, indent=1, default=str) + "\n")


@cache
def provenance() -> dict[str, Any]:
    """Commit, whether the tree was dirty, versions and hardware."""
    import numpy
    import torch

    here = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10)
            return done.stdout.strip() if done.returncode == 0 else ""
        except (OSError, subprocess.TimeoutExpired):
            return ""

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "commit": git("rev-parse", "--short=12", "HEAD") or "unknown",
        "dirty": bool(git("status", "--porcelain", "--untracked-files=all", "--", *CODE)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "machine": gpu or f"{platform.machine()}, {os.cpu_count()} cores",
    }
