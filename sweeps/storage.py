"""Where the queue lies, and how to tell that whoever took a piece from it is dead.

`storage=journal`: a file under `runs/studies`. Who works on trial n holds a lock on a byte of that file; the system
frees it when its process ends, however it ends, so a dead worker's piece is free at once. The folder may lie on a
shared file system with POSIX locks (NFS has them unless it is mounted with `nolock` or `local_lock`).

`storage=postgresql://...`: a database that workers on several machines reach. No lock is seen across machines there,
so a worker's heartbeat decides: where it has stopped for `GRACE` seconds by the server's clock, the worker is dead.
"""

from __future__ import annotations

import fcntl
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from skeletons.errors import BadInput, optional

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

GRACE = 60  # seconds
BEATS = 6  # in that time
JOURNAL = "journal"
PLACES = 1 << 40  # locks lie beyond the end of any journal; place 0 is for writing, 1 + n for trial n


def check_storage(where: str) -> None:
    """Refuse what is no storage.

    Raises:
        BadInput: neither a journal nor PostgreSQL; or a password, which records of the command line would keep.
    """
    kind = where.partition("://")[0]
    if where == JOURNAL:
        return
    if kind in ("sqlite", "mysql"):
        raise BadInput(f"storage={kind}: two workers can take the same piece there; use journal or postgresql://...")
    if kind not in ("postgresql", "postgres"):
        raise BadInput(f"storage={where!r}: known are journal and postgresql://USER@HOST/DATABASE")
    parts = urlsplit(where)
    if parts.password or "password" in parse_qs(parts.query):
        raise BadInput("storage: records keep the command line, so leave the password in PGPASSWORD or ~/.pgpass")


def open_storage(
    where: str, journal: Path, grace: int = GRACE, stale: Callable[[Study, FrozenTrial], None] | None = None
) -> BaseStorage:
    """The storage that `where` names.

    Args:
        where: "journal" or the address of a PostgreSQL database.
        journal: the file, for a journal.
        grace: seconds without a heartbeat after which a worker is dead, for a database.
        stale: told of such a worker's trial by `optuna.storages.fail_stale_trials`.

    Raises:
        BadInput: the journal is damaged, the database does not answer, or its driver is missing.
    """
    import optuna

    check_storage(where)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental-feature notices
        return _postgres(where, grace, stale) if where != JOURNAL else _journal(journal)


def open_study(storage: BaseStorage, name: str) -> Study:
    """The study called `name`, made if it is not there."""
    import optuna

    return optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)


def _postgres(where: str, grace: int, stale: Callable[[Study, FrozenTrial], None] | None) -> BaseStorage:
    import sqlalchemy.exc
    from optuna.storages import RDBStorage

    optional("psycopg", "postgres", "storage=postgresql")  # SQLAlchemy's driver
    address = "postgresql+psycopg://" + where.partition("://")[2]
    # One time zone for all: Optuna compares heartbeats as the sessions' local times. Two connections: work and beat.
    connect = {"options": "-c timezone=utc", "connect_timeout": 10}
    engine = {"connect_args": connect, "pool_size": 2, "pool_pre_ping": True}
    for attempt in (1, 2):
        try:
            beat = max(1, grace // BEATS)
            return RDBStorage(
                address, engine, heartbeat_interval=beat, grace_period=grace, heartbeat_stale_trial_callback=stale
            )
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
            if attempt == 2:  # the first time, another process was just making the same tables
                raise
        except sqlalchemy.exc.OperationalError as error:
            reason = str(error.orig).strip().splitlines()[0]
            raise BadInput(f"storage={where}: {reason}") from error
    raise AssertionError


def _journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Lock(JournalFileOpenLock):
        """Optuna's own locks are files, which a killed process leaves behind for 30 s."""

        def acquire(self) -> bool:
            self.fd = take(path, 0, wait=True)
            _mend(path)
            return True

        def release(self) -> None:
            if self.fd is not None:
                os.close(self.fd)

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return JournalStorage(JournalFileBackend(str(path), Lock(str(path))))
    except ValueError as error:
        raise BadInput(f"{path}: damaged ({error}); remove it and run again, results are kept elsewhere") from error


def _mend(path: Path) -> None:
    """Cut off what a writer that was killed, or that found the disk full, left of a line."""
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if not end:
            return
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


@contextmanager
def holding(path: Path, trial: int) -> Iterator[bool]:
    """Hold the lock of a trial; yields False where somebody else has it."""
    fd = take(path, 1 + trial)
    try:
        yield fd is not None
    finally:
        if fd is not None:
            os.close(fd)


def is_held(path: Path, trial: int) -> bool:
    """A living process holds the lock of a trial."""
    with open(path, "rb+") as file:
        found = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _lock(1 + trial))
    return struct.unpack_from("h", found)[0] != fcntl.F_UNLCK


def take(path: Path, place: int, wait: bool = False) -> int | None:
    """Lock one byte by an open file of its own; None where it is taken. Closing the file frees it.

    These locks belong to the open file, not to the process: threads exclude each other, and opening and closing the
    journal elsewhere in the process frees nothing.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, _lock(place))
    except (BlockingIOError, PermissionError):
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _lock(place: int) -> bytes:
    """C's `struct flock` for one byte."""
    return struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, PLACES + place, 1, 0)
