"""Strict reading of other people's files: every refusal is one line with file, line and remedy.

Python and NumPy read more than a recording may hold (`1_000`, `nan`, digits of other scripts, rows that are skipped);
what is read here is plain decimal numbers, as many as there must be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from skeletons.errors import BadInput

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
WHOLE = re.compile(r"[+-]?\d{1,15}", re.ASCII)
FARTHEST = 100.0  # metres; no skeleton sensor sees that far, so it is another unit or a damaged number


def files_in(raw: Path, pattern: str, what: str) -> list[Path]:
    """All files below `raw` whose name fits the glob `pattern`, by path.

    Raises:
        BadInput: no such folder, or none such in it; `what` names them in the message.
    """
    if not raw.is_dir():
        raise BadInput(f"{raw}: no such folder; give the folder of the {what} with raw=DIR")
    found = sorted(path for path in raw.rglob(pattern) if path.is_file() and not path.name.startswith("."))
    if not found:
        raise BadInput(f"{raw}: there are no {what} ({pattern}) in this folder; give another with raw=DIR")
    return found


def distinct(paths: Sequence[Path], names: Iterable[str]) -> None:
    """Refuse two files for one name."""
    seen: dict[str, Path] = {}
    for path, name in zip(paths, names):
        if name in seen:
            raise BadInput(f"{path}: clip {name} is in {seen[name]} too; remove one of the two")
        seen[name] = path


def text_of(path: Path) -> str:
    """A file's text, which must be ASCII or UTF-8.

    Raises:
        BadInput: it cannot be read, or has bytes that are no text (with their line).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {line}: is no text; the file is damaged, fetch it again") from error


def lines_of(path: Path) -> list[str]:
    """A text file's lines without their ends (LF or CRLF); empty lines at its end are dropped.

    Raises:
        BadInput: there is none, or as for `text_of`.
    """
    lines = [line.removesuffix("\r") for line in text_of(path).split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise BadInput(f"{path}: the file is empty; fetch it again")
    return lines


def numbers(lines: Sequence[str], columns: int, path: Path, first: int = 1, separator: str | None = None) -> np.ndarray:
    """float64 (row, column) of lines that each hold `columns` plain numbers.

    Args:
        first: the number of the first of these lines in `path`, for messages.
        separator: between numbers; None is any white space.

    Raises:
        BadInput: a line that does not, by its number.
    """
    plain = ("0123456789+-.eE \t" + (separator or "")).encode()
    if not lines:
        return np.empty((0, columns))
    if all(map(str.strip, lines)) and not "".join(lines).encode().translate(None, plain):
        try:
            table = np.loadtxt(lines, delimiter=separator, ndmin=2, comments=None)
            if table.shape == (len(lines), columns) and np.isfinite(table).all():
                return table
        except ValueError:
            pass  # which line it is, is found below
    rows = []
    for number, line in enumerate(lines, first):
        fields = line.split(separator)
        if len(fields) != columns:
            raise BadInput(
                f"{path}, line {number}: has {len(fields) if line.strip() else 0} numbers, expected {columns}; "
                "the file is truncated or of another kind"
            )
        for field in fields:
            if not NUMBER.fullmatch(field.strip(" \t")) or not np.isfinite(float(field)):
                raise BadInput(
                    f"{path}, line {number}: {shown(field)} is no number; the file is damaged, fetch it again"
                )
        rows.append([float(field) for field in fields])
    return np.array(rows, dtype=np.float64).reshape(len(rows), columns)


def shown(text: object) -> str:
    """What stood there, short enough for a message of one line."""
    said = repr(text)
    return said if len(said) <= 40 else said[:36] + "..." + said[-1]


def in_metres(joints: np.ndarray, place: str) -> np.ndarray:
    """Coordinates as float32, which must be finite and within `FARTHEST` of the sensor.

    Args:
        joints: (frame, person, joint, 3), metres.
        place: file (and line) for the message.
    """
    bad = ~(np.abs(joints) <= FARTHEST).all((1, 2, 3))  # not a number compares as False
    if bad.any():
        frame = int(np.argmax(bad))
        worst = joints[frame].ravel()[np.argmax(~(np.abs(joints[frame].ravel()) <= FARTHEST))]
        raise BadInput(
            f"{place}: frame {frame} has the coordinate {worst:g} m; a sensor sees at most {FARTHEST:g} m, "
            "so the unit or the file is wrong"
        )
    return joints.astype(np.float32)
