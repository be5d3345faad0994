"""Reading the items of a source, several at once: given back in order, each either kept, left out or damaged."""

from __future__ import annotations

import collections
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np

from skeletons.errors import BadInput
from skeletons.recordings import LeftOut, Recording, Source


@dataclass
class Chunk:
    """What reading some items gave, in their order."""

    kept: list[tuple[str, Recording]] = field(default_factory=list)  # with the file, for messages
    left: list[tuple[str, str]] = field(default_factory=list)  # name, reason
    damaged: list[tuple[str, str]] = field(default_factory=list)  # file, reason


def path_of(item: Any) -> Path:
    """The file of an item: a path, or (path, ...)."""
    return Path(item[0] if isinstance(item, tuple) else item)


def describe(item: Any, raw: Path) -> str:
    """An item as it is called in reports."""
    path, rest = path_of(item), item[1:] if isinstance(item, tuple) else ()
    inside = path.relative_to(raw) if path.is_relative_to(raw) and path != raw else path.name
    return " ".join([str(inside), *map(str, rest)])


def read_chunk(source: Source, items: Sequence[Any]) -> Chunk:
    """Read items; what is damaged or left out is noted, and the rest goes on."""
    chunk = Chunk()
    for item in items:
        where = describe(item, Path(source.raw))
        try:
            found = source.read(item)
            found = [found] if isinstance(found, Recording) else found
            chunk.kept += [(where, checked(r, source, path_of(item))) for r in found]
        except LeftOut as reason:
            chunk.left.append((where, str(reason)))
        except BadInput as error:
            chunk.damaged.append((where, str(error)))
        except OSError as error:
            chunk.damaged.append((where, f"{path_of(item)}: cannot be read ({error.strerror}); make it readable"))
    return chunk


def checked(recording: Recording, source: Source, file: Path) -> Recording:
    """The recording, if it can be stored.

    Raises:
        BadInput: it cannot.
    """
    r, joints, place = recording, recording.joints, f"{file}: clip {recording.name}"
    if joints.ndim != 4 or joints.shape[2:] != (len(source.topology), 3) or not joints.shape[1]:
        raise BadInput(
            f"{place}: joints of shape {joints.shape}, expected (frames, persons, {len(source.topology)}, 3)"
        )
    if not len(joints):
        raise BadInput(f"{place} has no frames; leave it out")
    if not np.isfinite(joints).all():
        frame = int(np.argmin(np.isfinite(joints).all((1, 2, 3))))
        raise BadInput(f"{place} has a coordinate that is not a number in frame {frame}; write what was not seen as 0")
    if not joints.any():
        raise BadInput(f"{place} shows nobody, all zeros; leave it out")
    if not 0 <= r.label < len(source.class_names):
        classes = len(source.class_names)
        raise BadInput(f"{place} has label {r.label}, outside the {classes} classes 0-{classes - 1}; correct it")
    if r.tracking is not None and r.tracking.shape != joints.shape[:3]:
        raise BadInput(f"{place}: tracking of shape {r.tracking.shape} for joints {joints.shape}")
    joints = np.asarray(joints, np.float32) + np.float32(0)  # no negative zeros: 0 has one meaning and one bit pattern
    return Recording(r.name, joints, int(r.label), dict(r.columns), tuple(r.notes), r.tracking)


_SOURCE: Source | None = None  # a worker's


def _start(source: Source) -> None:
    """Begin a worker: it leaves Ctrl-C to its parent and ends when that is gone, however it went."""
    global _SOURCE
    _SOURCE = source
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _work(items: Sequence[Any]) -> Chunk:
    assert _SOURCE is not None
    return read_chunk(_SOURCE, items)


def chunks_of(source: Source, parts: Sequence[Sequence[Any]], workers: int) -> Generator[Chunk, None, None]:
    """Read parts of the items, several at once, and give them back in order; few are in memory at any time."""
    if workers < 2 or len(parts) < 2:
        yield from (read_chunk(source, part) for part in parts)
        return
    context = multiprocessing.get_context("spawn")  # forking a process that has threads can hang
    pool = ProcessPoolExecutor(min(workers, len(parts)), context, _start, (source,))
    try:
        ahead: collections.deque[Future[Chunk]] = collections.deque()
        waiting = iter(parts)
        for part in waiting:
            ahead.append(pool.submit(_work, part))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except BrokenProcessPool as error:
        raise BadInput(
            "a worker was killed, perhaps for lack of memory; the same command goes on, with workers=1 in less"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
