"""Recordings become a clip archive, once, for every later run.

    python -m skeletons.prepare source=NAME raw=DIR out=PATH [workers=N] [on_error=stop|report] [OPTION=VALUE ...]

The archive is a folder that `data=archive data.file=PATH` opens where it lies. What was kept, repaired and left out is
printed and stands in its report.json. `on_error=stop` ends at the first damaged file, `report` lists it and goes on.
The same command goes on where one stopped. `source=NAME help=true` lists a source's options.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import inspect
import os
import re
import sys
import time
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skeletons.errors import BadInput, command, unknown
from skeletons.journal import generic
from skeletons.preparing import Order, prepare
from skeletons.recordings import Source, all_sources

OURS = ("source", "raw", "out", "workers", "on_error", "help")
SHOWN = 5  # names of each reason that are printed; report.json has them all
EVERY = 10.0  # seconds between lines where there is no terminal


class Progress:
    """A bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None
        self.began = self.last = time.monotonic()
        self.first = 0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if sys.stdout.isatty():
            from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

            if self.bar is None:
                self.bar = Progress(*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
                self.bar.start()
                self.task = self.bar.add_task("reading", total=total)
            self.bar.update(self.task, completed=done)
        elif now - self.last >= EVERY or done == total:
            self.last = now
            print(f"[{now - self.began:6.0f} s] {done} of {total} items read", flush=True)

    def end(self) -> None:
        if self.bar is not None:
            self.bar.stop()


def main(arguments: Sequence[str]) -> int:
    """Prepare what the arguments say and print the report."""
    sources = all_sources()
    if any(a in ("-h", "--help") for a in arguments):
        print(f"{__doc__}\nsources: {', '.join(sorted(sources))}")
        return 0
    given = _pairs(arguments)
    if "source" not in given:
        raise BadInput(f"say what to read with source=NAME; known: {', '.join(sorted(sources))}")
    if given["source"] not in sources:
        raise unknown("source", given["source"], sources)
    kind = sources[given["source"]]
    if given.get("help") == "true":
        print(help_of(kind))
        return 0
    for key, what in (("raw", "where the recordings lie with raw=DIR"), ("out", "where to put the archive, out=PATH")):
        if not given.get(key):
            raise BadInput(f"source={kind.name}: say {what}")
    if given.get("on_error", "stop") not in ("stop", "report"):
        raise unknown("on_error", given["on_error"], ("stop", "report"))
    raw = Path(given["raw"])
    if not raw.exists():
        raise BadInput(f"{raw}: no such folder; give the recordings' with raw=DIR")
    workers = given.get("workers", str(len(os.sched_getaffinity(0))))
    if not workers.isdecimal() or int(workers) < 1:
        raise BadInput(f"workers={workers}: give a number of processes, from 1")
    source = kind(raw, options_of(kind, {k: v for k, v in given.items() if k not in OURS}))
    progress = Progress()
    began = time.monotonic()
    try:
        out = Path(given["out"])
        on_error = given.get("on_error", "stop")
        say = functools.partial(print, flush=True)
        report = prepare(Order(source, out, int(workers), on_error, say, progress))
    finally:
        progress.end()
    print(summary(report, out))
    if not report.get("there_already"):
        print(f"{time.monotonic() - began:.1f} s with {workers} worker(s)")
    return 0


def _pairs(arguments: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise BadInput(f"{argument!r}: write arguments as NAME=VALUE; see python -m skeletons.prepare's file")
        if key in given:
            raise BadInput(f"{key} is given twice; give it once")
        given[key] = value
    return given


def options_of(kind: type[Source], given: dict[str, str]) -> Any:
    """The source's options from NAME=VALUE.

    Raises:
        BadInput: an option that does not exist, or a value of another type.
    """
    types = typing.get_type_hints(kind.Options)
    values: dict[str, Any] = {}
    names = [field.name for field in dataclasses.fields(kind.Options)]
    for key, text in given.items():
        if key not in names:
            raise unknown(f"option of source={kind.name}", key, [*names, *OURS])
        expected = types[key]
        try:
            if expected is bool:
                values[key] = {"true": True, "false": False}[text.lower()]
            elif expected in (int, float):
                values[key] = expected(text)
            else:
                values[key] = text
        except (KeyError, ValueError):
            name = "true or false" if expected is bool else f"a number ({expected.__name__})"
            raise BadInput(f"{key}={text}: give {name}") from None
    return kind.Options(**values)


def help_of(kind: type[Source]) -> str:
    """The options of a source, with defaults and meaning."""
    lines = [f"source={kind.name}", inspect.cleandoc(kind.Options.__doc__ or "")]
    lines += [f"  {field.name}={field.default}" for field in dataclasses.fields(kind.Options)]
    return "\n".join(lines)


def summary(report: dict[str, Any], out: Path) -> str:
    """The report as some lines of text."""
    lines = [f"{out}: is there already, from the same recordings and options"] if report.get("there_already") else []
    lines.append(f"kept       {report['kept']:,} clips, {report['frames']:,} frames")
    for note, count in report["repaired"].items():
        total = f" (N: {count['sum']:,} in all)" if "N" in note else ""
        lines.append(f"repaired   {count['clips']:,} clips: {note}{total}")
    for title, rows, name in (("left out", report["left_out"], "name"), ("damaged", report["damaged"], "file")):
        if not rows:
            lines.append(f"{title:10} none")
        by_reason = collections.defaultdict(list)
        for row in rows:
            short = re.sub(r"^.*?: ", "", row["reason"]) if name == "file" else row["reason"]
            by_reason[generic(short)].append(row[name])
        for reason, names in by_reason.items():
            more = f", ... ({len(names) - SHOWN} more in report.json)" if len(names) > SHOWN else ""
            lines.append(f"{title:10} {len(names):,}: {reason}: {', '.join(names[:SHOWN])}{more}")
    for split, size in report["sizes"].items():
        published = size.get("published")
        beside = ""
        if published:
            same = published == [size["train"], size["test"]]
            beside = ", as published" if same else f"; published: {published[0]:,} and {published[1]:,}: NOT THE SAME"
        lines.append(f"split      {split}: {size['train']:,} training and {size['test']:,} test clips{beside}")
    options = " ".join(f"{k}={v}" for k, v in report["options"].items())
    lines += [f"options    {options or 'none'}", f"fingerprint {report['fingerprint']}"]
    return "\n".join([*lines, f"open it    data=archive data.file={out}"])


if __name__ == "__main__":
    command(main)
