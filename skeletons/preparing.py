"""Recordings become a clip archive: read in parallel, kept in order, appended block by block, reported.

While it is made, the archive lies beside its place in `.NAME.partial/`: `archive/` grows, and `journal.jsonl` has one
line for each block that stands on disk whole, with its checksum. A later call with the same recordings and options
takes up what agrees and ends with the same bytes; the finished folder is renamed into its place.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skeletons.errors import BadInput
from skeletons.journal import Known, lines_of, standing
from skeletons.parallel import Chunk, chunks_of, describe, path_of
from skeletons.recordings import Source
from skeletons.whole import FULL
from skeletons.writing import UNKNOWN, VERSION, Block, StoreWriter

CHUNK = 32  # items read by a worker at once: some 7 MB of NTU's text


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
    rows = [[describe(item, raw), *_stat(path_of(item))] for item in items]
    inputs = _digest([order.plan(), rows])
    starts = range(0, len(items), CHUNK)
    parts, keys = [items[i : i + CHUNK] for i in starts], [_digest(rows[i : i + CHUNK]) for i in starts]
    if out.exists():
        return _finished(out, inputs)
    with _partial(out) as partial:
        _same_plan(partial, order)
        return _make(order, partial, parts, keys, inputs)


def _make(order: Order, partial: Path, parts: list[list[Any]], keys: list[str], inputs: str) -> dict[str, Any]:
    source, raw, archive = order.source, Path(order.source.raw), partial / "archive"
    journal = list(lines_of(partial / "journal.jsonl", keys, order.on_error == "stop"))
    archive.mkdir(exist_ok=True)
    known = Known()
    total = sum(map(len, parts))
    blocks = [Block(**entry["block"]) for entry in journal if entry["block"]]
    with StoreWriter(archive, source.topology, 1, blocks) as writer:
        journal = list(standing(journal, len(writer.blocks)))
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
        if not (partial / "lock").exists():
            raise BadInput(f"{out}: another process prepared it just now; give the command again to see its report")
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
