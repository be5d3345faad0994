"""One clip of your own as a table. What a file may hold, for P persons of J joints:

- CSV or Parquet with named columns: `JOINT_x`, `JOINT_y`, `JOINT_z` of every joint; `person` (from 0) where there are
  several; `frame`, whole numbers that do not descend. Without `frame` a row is a frame. Frames that are passed over are
  frames without anybody. An empty cell (Parquet: null) is a coordinate that is not known, and then the joint's other
  two must be empty as well.
- CSV without a header: a row a frame, P * J * 3 numbers: all of the first person's joints (x, y, z of the first joint,
  then of the second, ...), then the second person's.
- NumPy `.npy`: numbers of shape (frames, P, J, 3), (frames, P * J * 3), or, of one person, (frames, J, 3).

What was not seen is zeros, everywhere. Not a number and infinity are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skeletons.errors import BadInput, unknown
from skeletons.sources.reading import NUMBER, lines_of, numbers, shown

SUFFIXES = (".csv", ".parquet", ".npy")
PASSED = 10  # most frames without rows for each that has some, else frame numbers are taken for damaged


@dataclass(frozen=True)
class Layout:
    """What the files of a folder hold.

    Attributes:
        joints: names, as columns have them.
        persons: most in a clip.
        ignore: columns that are no joints.
    """

    joints: tuple[str, ...]
    persons: int
    ignore: frozenset[str]

    @property
    def columns(self) -> list[str]:
        return [f"{joint}_{axis}" for joint in self.joints for axis in "xyz"]


def read_clip(path: Path, layout: Layout) -> tuple[np.ndarray, tuple[str, ...]]:
    """float64 (frame, person, joint, 3) in the file's units, and notes.

    Raises:
        BadInput: the file is not there, damaged, or not laid out as above.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file, though clips.csv names it; add it or remove the line")
    if path.suffix == ".npy":
        return _numpy(path, layout), ()
    if path.suffix == ".parquet":
        names, table = _parquet(path, layout.ignore)
        return _named(names, table, layout, path, "row", 0)
    lines = lines_of(path)
    if all(NUMBER.fullmatch(field.strip()) for field in lines[0].split(",")):
        wanted = layout.persons * len(layout.joints) * 3
        table = numbers(lines, wanted, path, separator=",")
        return table.reshape(-1, layout.persons, len(layout.joints), 3), ()
    names = [name.strip().strip('"') for name in lines[0].split(",")]
    cells = [line.split(",") for line in lines[1:]]
    wrong = next((i for i, row in enumerate(cells) if len(row) != len(names)), None)
    if wrong is not None:
        raise BadInput(
            f"{path}, line {wrong + 2}: has {len(cells[wrong])} fields, the header {len(names)}; "
            "the file is truncated or damaged"
        )
    kept = [i for i, name in enumerate(names) if name not in layout.ignore]
    cells = [[row[i].strip() for i in kept] for row in cells]
    filled = [",".join(cell or "0" for cell in row) for row in cells]
    table = numbers(filled, len(kept), path, first=2, separator=",")
    table[np.array([[not cell for cell in row] for row in cells], dtype=bool).reshape(table.shape)] = np.nan
    return _named([names[i] for i in kept], table, layout, path, "line", 2)


def _numpy(path: Path, layout: Layout) -> np.ndarray:
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        if path.stat().st_size != stored.offset + stored.nbytes:
            raise ValueError("another size than its header says")
    except Exception as error:  # NumPy raises whatever the header's parser trips over
        raise BadInput(f"{path}: is truncated, damaged or no .npy file of numbers; write it with numpy.save") from error
    count = len(layout.joints)
    shapes = [(layout.persons, count, 3), (layout.persons * count * 3,)] + [(count, 3)] * (layout.persons == 1)
    if stored.dtype.kind not in "fiu" or stored.shape[1:] not in shapes:
        raise BadInput(
            f"{path}: holds {stored.dtype} of shape {stored.shape}, expected numbers (frames, {layout.persons}, "
            f"{count}, 3), as persons and joints of dataset.json say"
        )
    return np.array(stored, dtype=np.float64).reshape(-1, layout.persons, count, 3)


def _parquet(path: Path, ignore: frozenset[str]) -> tuple[list[str], np.ndarray]:
    """Names of the columns and float64 (row, column), NaN where null."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BadInput(f"{path}: Parquet needs pyarrow; install it, or write the clips as CSV or .npy") from error
    try:
        read = pyarrow.parquet.read_table(path)
    except Exception as error:  # pyarrow raises whatever its parser trips over
        reason = shown(" ".join(str(error).split()))
        raise BadInput(f"{path}: is truncated, damaged or no Parquet file ({reason}); write it again") from error
    names = [name for name in read.column_names if name not in ignore]
    columns = []
    for name, column in ((n, c) for n, c in zip(read.column_names, read.columns) if n not in ignore):
        if not (pyarrow.types.is_integer(column.type) or pyarrow.types.is_floating(column.type)):
            raise BadInput(f"{path}: column {shown(name)} is {column.type}, expected numbers; leave it out")
        values, null = column.to_numpy().astype(np.float64), column.is_null().to_numpy()
        bad = ~np.isfinite(values) & ~null
        if bad.any():
            said = f"{shown(name)} is {values[bad][0]}"
            raise BadInput(f"{path}, row {int(np.argmax(bad))}: {said}; write null for what is not known")
        columns.append(values)
    return names, np.stack(columns, 1) if columns else np.empty((0, 0))


def _named(
    names: list[str], table: np.ndarray, layout: Layout, path: Path, row: str, first: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Joints from named columns.

    Args:
        names: of the columns.
        table: float64 (row, column), NaN where a cell is empty.
        row, first: what a row is called in messages, and the first one's number.
    """
    wanted = layout.columns
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BadInput(f"{path}: has the column {shown(min(twice))} twice; remove one")
    for name in names:
        if name not in wanted and name not in ("frame", "person"):
            hint = unknown("column", name, [*wanted, "frame", "person"])
            raise BadInput(f"{path}: {str(hint)[:200]}; name it in dataset.json's ignore if it is no joint")
    lacking = [name for name in wanted if name not in names]
    if lacking:
        raise BadInput(f"{path}: lacks the column {lacking[0]} ({len(lacking)} in all); add it or correct the joints")
    if "person" in names and "frame" not in names:
        raise BadInput(f"{path}: has the column person but no frame, so it is not known who is seen together; add it")
    frame = _whole(names, table, "frame", f"{path}, {row}", first)
    person = _whole(names, table, "person", f"{path}, {row}", first)
    frame = np.arange(len(table)) if frame is None else frame
    person = np.zeros(len(table), np.int64) if person is None else person
    slot, span = _slots(frame, person, layout, f"{path}, {row}", first)
    points = table[:, [names.index(name) for name in wanted]].reshape(len(table), len(layout.joints), 3)
    unknown_ = np.isnan(points)
    half = unknown_.any(-1) & ~unknown_.all(-1)
    if half.any():
        at, joint = np.argwhere(half)[0]
        said = f"{layout.joints[joint]} has empty cells and numbers"
        raise BadInput(f"{path}, {row} {first + int(at)}: {said}; fill or empty all three")
    joints = np.zeros((span * layout.persons, len(layout.joints), 3))
    joints[slot] = np.where(unknown_, 0, points)
    passed = span - len(np.unique(frame))
    notes = (f"{passed} frames without rows",) if passed else ()
    return joints.reshape(span, layout.persons, len(layout.joints), 3), notes


def _whole(names: list[str], table: np.ndarray, name: str, place: str, first: int) -> np.ndarray | None:
    """int64 (row) of a column of whole numbers, where there is one."""
    if name not in names:
        return None
    column = table[:, names.index(name)]
    bad = ~((column % 1 == 0) & (np.abs(column) < 2**53))
    if bad.any():
        at = int(np.argmax(bad))
        raise BadInput(f"{place} {first + at}: {name} is {column[at]:g}; write a whole number")
    return column.astype(np.int64)


def _slots(frame: np.ndarray, person: np.ndarray, layout: Layout, place: str, first: int) -> tuple[np.ndarray, int]:
    """Where each row goes among (frame, person), frames counted from the first row's; and how many frames there are."""
    bad = (person < 0) | (person >= layout.persons)
    if bad.any():
        at = int(np.argmax(bad))
        raise BadInput(
            f"{place} {first + at}: person {person[at]} of {layout.persons}; number them from 0, or correct persons "
            "in dataset.json"
        )
    steps = np.diff(frame, prepend=frame[:1])
    if (steps < 0).any():
        at = int(np.argmax(steps < 0))
        raise BadInput(f"{place} {first + at}: frame {frame[at]} after {frame[at - 1]}; sort the rows by frame")
    span = int(steps.sum()) + 1 if len(frame) else 0
    if span > (PASSED + 1) * len(np.unique(frame)):
        at = int(np.argmax(steps))
        raise BadInput(
            f"{place} {first + at}: frame {frame[at]} after {frame[at - 1]}; frame numbers count frames, one by one"
        )
    slot = np.cumsum(steps) * layout.persons + person
    found, counts = np.unique(slot, return_counts=True)
    if (counts > 1).any():
        at = int(np.flatnonzero(slot == found[np.argmax(counts > 1)])[1])
        raise BadInput(f"{place} {first + at}: frame {frame[at]}, person {person[at]} is there already; remove one")
    return slot, span
