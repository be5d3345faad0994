"""Recordings become a clip archive: read in parallel, kept in order, appended block by block, reported.

While it is made, the archive lies beside its place in `.NAME.partial/`: `archive/` grows, and `journal.jsonl` has one
line for each block that stands on disk whole, with its checksum. A later call with the same recordings and options
takes up what agrees and ends with the same bytes; the finished folder is renamed into its place.
"""

from __future__ import annotations

import collections
import errno
import fcntl
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np

from skeletons.clips import FULL
from skeletons.errors import BadInput
from skeletons.recordings import LeftOut, Recording, Source
from skeletons.writing import UNKNOWN, VERSION, Block, StoreWriter

CHUNK = 32  # items read by a worker at once: some 7 MB of NTU's text
ABSENT = -1  # in a column that a recording does not have


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


# --- Reading in parallel ---

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


# --- What is known of the clips ---


@dataclass
class Known:
    """The table of what was appended, and what was not."""

    names: dict[str, str] = field(default_factory=dict)  # name -> file
    labels: list[int] = field(default_factory=list)
    columns: dict[str, list[int]] = field(default_factory=dict)
    notes: dict[str, list[int]] = field(default_factory=dict)  # note -> clips, sum of its first number
    left: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)

    def take(self, entry: dict[str, Any]) -> None:
        """Add a line of the journal."""
        for name, file, label, columns, notes in entry["clips"]:
            row = len(self.names)
            self.names[name] = file
            self.labels.append(label)
            for key in {*self.columns, *columns}:
                column = self.columns.setdefault(key, [ABSENT] * row)
                column.append(columns.get(key, ABSENT))
            for note in notes:
                number = re.search(r"\d+", note)
                count = self.notes.setdefault(generic(note), [0, 0])
                count[0] += 1
                count[1] += int(number[0]) if number else 0
        self.left += [(n, r) for n, r in entry["left"]]
        self.damaged += [(n, r) for n, r in entry["damaged"]]

    def without_repeats(self, chunk: Chunk, raw: Path) -> Chunk:
        """The chunk without clips whose name is taken; they count as damaged."""
        kept, damaged, taken = [], list(chunk.damaged), dict(self.names)
        for file, recording in chunk.kept:
            if recording.name in taken:
                reason = f"{raw / file}: a clip named {recording.name} came from {taken[recording.name]} already; "
                damaged.append((file, reason + "names must be distinct, remove or rename one"))
            else:
                taken[recording.name] = file
                kept.append((file, recording))
        return Chunk(kept, chunk.left, damaged)


def generic(text: str) -> str:
    """A note or reason with its numbers left open, for counting."""
    return re.sub(r"\d+", "N", text)


# --- The archive ---


@dataclass(frozen=True)
class Order:
    """What to prepare. What decides about the content is in `plan`; workers and on_error are not."""

    source: Source
    out: Path
    workers: int = 1
    on_error: str = "stop"
    say: Callable[[str], None] = lambda _: None
    advance: Callable[[int, int], None] = lambda _done, _total: None

    def plan(self) -> dict[str, Any]:
        s = self.source
        return {
            "version": VERSION,
            "source": [s.name, s.version],
            "options": asdict(s.options),
            "joints": list(s.topology.joints),
            "parents": list(s.topology.parents),
            "classes": list(s.class_names),
        }


def prepare(order: Order) -> dict[str, Any]:
    """Make the archive, or go on making it.

    Returns:
        the report, as it stands in the archive's report.json.

    Raises:
        BadInput: nothing to read, a damaged recording (`on_error="stop"`), a full disk, a place that is taken.
    """
    source, out, raw = order.source, order.out, Path(order.source.raw)
    items = source.items()
    if not items:
        raise BadInput(f"{raw}: no recordings of source={source.name} in there; give their folder with raw=DIR")
    parts = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
    keys = [_digest([[describe(i, raw), *_stat(path_of(i))] for i in part]) for part in parts]
    inputs = _digest([order.plan(), keys])
    if out.exists():
        return _finished(out, inputs)
    with _partial(out) as partial:
        _same_plan(partial, order)
        return _make(order, partial, parts, keys, inputs)


def _make(order: Order, partial: Path, parts: list[list[Any]], keys: list[str], inputs: str) -> dict[str, Any]:
    source, raw, archive = order.source, Path(order.source.raw), partial / "archive"
    journal = list(_journal(partial / "journal.jsonl", keys, order.on_error == "stop"))
    archive.mkdir(exist_ok=True)
    known = Known()
    total = sum(map(len, parts))
    blocks = [Block(**entry["block"]) for entry in journal if entry["block"]]
    with StoreWriter(archive, source.topology, 1, blocks) as writer:
        journal = list(_standing(journal, len(writer.blocks)))
        for entry in journal:
            known.take(entry)
        done = sum(len(part) for part in parts[: len(journal)])
        if done:
            order.say(f"going on after {done} of {total} items that an earlier call read")
        (partial / "journal.new").write_text("".join(json.dumps(entry) + "\n" for entry in journal))
        os.replace(partial / "journal.new", partial / "journal.jsonl")
        read = chunks_of(source, parts[len(journal) :], order.workers)
        with (partial / "journal.jsonl").open("a") as log, closing(read):
            for number, chunk in enumerate(read, len(journal)):
                chunk = known.without_repeats(chunk, raw)
                if chunk.damaged and order.on_error == "stop":
                    raise BadInput(chunk.damaged[0][1])
                entry = {"key": keys[number], **_append(writer, chunk)}
                log.write(json.dumps(entry) + "\n")
                log.flush()
                known.take(entry)
                done += len(parts[number])
                order.advance(done, total)
        if not known.names:
            raise BadInput(f"{raw}: nothing is left of {total} items; {_first_reason(known)}")
        return _finish(order, partial, writer, known, inputs)


def _append(writer: StoreWriter, chunk: Chunk) -> dict[str, Any]:
    """Append a chunk to the store; its line of the journal."""
    recordings = [r for _, r in chunk.kept]
    block = None
    if recordings:
        persons = max(r.joints.shape[1] for r in recordings)
        joints = np.zeros(
            (sum(len(r.joints) for r in recordings), persons, *recordings[0].joints.shape[2:]), np.float32
        )
        state = None
        if any(r.tracking is not None for r in recordings):
            state = np.zeros(joints.shape[:3], np.uint8)
        at = 0
        for r in recordings:
            rows = slice(at, at + len(r.joints))
            joints[rows, : r.joints.shape[1]] = r.joints
            if state is not None:
                state[rows, : r.joints.shape[1]] = UNKNOWN if r.tracking is None else r.tracking
            at = rows.stop
        block = asdict(writer.add(joints, [len(r.joints) for r in recordings], state))
    clips = [[r.name, file, r.label, r.columns, r.notes] for file, r in chunk.kept]
    return {"clips": clips, "left": chunk.left, "damaged": chunk.damaged, "block": block}


def _finish(order: Order, partial: Path, writer: StoreWriter, known: Known, inputs: str) -> dict[str, Any]:
    """Complete the archive, with its report, and put it in its place."""
    source = order.source
    table: dict[str, np.ndarray] = {"clip": np.array(list(known.names)), "label": np.array(known.labels, np.int64)}
    table |= {key: np.array(column, np.int64) for key, column in sorted(known.columns.items())}
    splits = source.splits(table)
    table |= {key: np.asarray(column, bool) for key, column in splits.items()}
    meta = {
        "name": source.name,
        "source": str(source.raw),
        "chiral": [list(pair) for pair in source.chiral],
        "notes": {"prepared": f"skeletons.prepare source={source.name}"},
        "fps": float(source.fps),
        "class_names": list(source.class_names),
    }
    fingerprint = writer.finish(table, meta)
    sizes: dict[str, Any] = {}
    for key, column in splits.items():
        name = key.removeprefix("train_")
        sizes[name] = {"train": int(column.sum()), "test": int((~column).sum())}
        if name in source.official:
            sizes[name]["published"] = list(source.official[name])
    report = {
        "source": source.name,
        "raw": str(source.raw),
        "options": asdict(source.options),
        "fingerprint": fingerprint,
        "inputs": inputs,
        "kept": len(known.names),
        "frames": writer.frames,
        "repaired": {note: {"clips": c, "sum": s} for note, (c, s) in sorted(known.notes.items())},
        "left_out": [{"name": name, "reason": reason} for name, reason in known.left],
        "damaged": [{"file": file, "reason": reason} for file, reason in known.damaged],
        "sizes": sizes,
    }
    archive = partial / "archive"
    (archive / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    _sync(archive)
    os.replace(archive, order.out)
    return report


# --- What an earlier call left ---


def _journal(path: Path, keys: Sequence[str], sound: bool) -> Iterator[dict[str, Any]]:
    """Lines of the journal as far as they are whole and about the items of this call (and name nothing damaged)."""
    if not path.is_file():
        return
    for line, key in zip(path.read_text().splitlines(), keys):
        try:
            entry = json.loads(line)
        except ValueError:  # the last line, cut short
            return
        if entry["key"] != key or (sound and entry["damaged"]):
            return
        yield entry


def _standing(journal: Sequence[dict[str, Any]], blocks: int) -> Iterator[dict[str, Any]]:
    """Lines whose blocks, and all before them, are on disk."""
    for entry in journal:
        blocks -= entry["block"] is not None
        if blocks < 0:
            return
        yield entry


def _same_plan(partial: Path, order: Order) -> None:
    """Throw away what an earlier call made by another plan."""
    plan = json.dumps(order.plan(), indent=1)
    if (partial / "plan.json").is_file() and (partial / "plan.json").read_text() == plan:
        return
    if (partial / "plan.json").is_file():
        order.say("an earlier call had other options: beginning anew")
    for name in ("plan.json", "journal.jsonl"):
        (partial / name).unlink(missing_ok=True)
    shutil.rmtree(partial / "archive", ignore_errors=True)
    (partial / "plan.json").write_text(plan)


def _finished(out: Path, inputs: str) -> dict[str, Any]:
    try:
        report = json.loads((out / "report.json").read_text())
        same = report["inputs"] == inputs
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"{out}: is there already and is no prepared archive; choose another out=PATH") from None
    if not same:
        raise BadInput(
            f"{out}: is there already, from other recordings or options; remove it or choose another out=PATH"
        )
    return report | {"there_already": True}


@contextmanager
def _partial(out: Path) -> Iterator[Path]:
    """The folder in which the archive is made, for one process at a time; gone when the archive is in its place.

    Raises:
        BadInput: it cannot be written to, another process is at work, or the disk is full.
    """
    partial = out.parent / f".{out.name}.partial"
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = (partial / "lock").open("w")
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error.strerror}); choose another out=PATH") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadInput(f"{out}: another process is preparing it; wait for it or choose another out=PATH") from error
        try:
            yield partial
        except OSError as error:
            if error.errno in FULL or "requested and" in str(error):
                raise BadInput(f"{out}: the disk is full; free some space, then the same command goes on") from error
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise BadInput(f"{out}: was made by someone else meanwhile; choose another out=PATH") from error
            raise
        if out.is_dir():
            shutil.rmtree(partial, ignore_errors=True)


def _stat(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (-1, -1)  # reading it says what is wrong
    return stat.st_size, stat.st_mtime_ns


def _sync(folder: Path) -> None:
    """Wait until the files of a folder are on the disk, before a name says that they are whole."""
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _first_reason(known: Known) -> str:
    name, reason = (known.damaged + known.left)[0]
    return f"the first, {name}: {reason}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
