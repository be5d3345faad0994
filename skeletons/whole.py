"""Files and folders that appear whole or not at all, and what is left where their writer was killed."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skeletons.errors import BadInput

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")  # as `tempfile.mkdtemp` makes names


def is_full(error: BaseException | None) -> bool:
    """What was raised means that the disk is full, or comes from such an error."""
    if error is None:
        return False
    words = ("requested and", "inline_container", *(f"(os error {code})" for code in FULL))  # NumPy, torch, safetensors
    full = isinstance(error, OSError) and error.errno in FULL
    return full or any(word in str(error) for word in words) or is_full(error.__cause__)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary neighbour of `path` that takes its place when the block ends well, and is removed otherwise.

    Raises:
        BadInput: the folder cannot be written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, lock = _locked_folder(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    try:
        yield temporary / path.name
        if (temporary / path.name).is_file():
            (temporary / path.name).chmod(0o644)  # safetensors writes files that only their owner can read
        os.replace(temporary / path.name, path)
    except Exception as error:  # a full disk comes as many kinds; what is none is passed on
        if is_full(error):
            raise BadInput(f"{path}: the disk is full; free some space or choose another folder") from error
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return  # another process was faster: the same content is there
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


def _locked_folder(path: Path) -> tuple[Path, int]:
    """A new folder beside `path`, and the open file that holds its lock for as long as this process lives."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks: then nobody tidies up there either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, lock
            os.close(lock)  # somebody tidied up between the two lines above


def remove_unfinished(folder: Path) -> None:
    """Remove what writers that were killed left in a folder; those that live hold a lock on theirs."""
    for left in folder.glob(".*.*"):
        if not TEMPORARY.fullmatch(left.name) or not left.is_dir():
            continue
        with suppress(OSError):  # somebody is writing it, or has just finished
            lock = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)
