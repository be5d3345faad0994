"""Your own recordings: a folder of CSV, Parquet or NumPy files, one a clip, and two files that say what they are.

`dataset.json`:

| key | meaning |
|---|---|
| `joints` | names, in the order of the data; anatomical ones (`elbow_left`) are matched with other sets |
| `parents` | each joint's parent, by name or number; the root names itself |
| `fps`, `units` | frames a second; `m`, `cm` or `mm` |
| `classes` | names |
| `persons` | most in a clip, default 1 |
| `up` | `y` (default), or `z`: then (x, y, z) becomes (x, z, -y) |
| `chiral` | pairs of classes that are each other's mirror image, optional |
| `splits` | name -> {column: [values that train]}, optional |
| `ignore` | columns of the clips' tables that are no joints, optional |

`clips.csv` has a line a clip: `file,label` and any columns of whole numbers (`subject`, `camera`, `repetition`, ...);
a label is a class's name, or its number from 0; a column `train_NAME` of 0 and 1 is a split. Files that it does not
name are listed as left out. What a clip's file holds: see folder_files.py.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from skeletons.errors import BadInput, check_choices, unknown
from skeletons.recordings import LeftOut, Recording, Source
from skeletons.sources.folder_files import SUFFIXES, Layout, read_clip
from skeletons.sources.reading import NUMBER, WHOLE, in_metres, shown, text_of
from skeletons.topology import topology_of

METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
UPS = ("y", "z")
DESCRIBING = ("dataset.json", "clips.csv")
REQUIRED = ("joints", "parents", "fps", "units", "classes")
OPTIONAL = ("persons", "up", "chiral", "splits", "ignore")


@dataclass(frozen=True)
class FolderOptions:
    """What dataset.json may say instead.

    Attributes:
        units: m, cm or mm, in place of dataset.json's.
        up: y or z, in place of dataset.json's.
    """

    units: str = ""
    up: str = ""


class Folder(Source):
    """A folder of your own recordings. Columns: those of clips.csv."""

    name = "folder"
    Options = FolderOptions

    def __init__(self, raw: Path, options: FolderOptions) -> None:
        about = self._about(raw / "dataset.json")
        options = replace(options, units=options.units or about["units"], up=options.up or about["up"])
        check_choices("folder", options, units=METRES, up=UPS)
        super().__init__(raw, options)
        self.class_names, self.fps = tuple(about["classes"]), float(about["fps"])
        self.chiral = tuple((a, b) for a, b in about["chiral"])
        self.rules: dict[str, dict[str, list[int]]] = about["splits"]
        try:
            self.topology = topology_of(about["joints"], about["parents"])
        except BadInput as error:
            raise BadInput(f"{raw / 'dataset.json'}: {error}; correct joints or parents") from error
        self.layout = Layout(tuple(about["joints"]), about["persons"], frozenset(about["ignore"]))
        self.columns: tuple[str, ...] = ()
        self.train: dict[str, dict[str, bool]] = {}  # split -> clip -> whether it trains
        self.rows = self._clips(raw / "clips.csv")

    def items(self) -> list[tuple[Path, int, str]]:
        """(file, its line of clips.csv, that line), then files that clips.csv does not name, with line 0. The two files
        that describe the others come first, as items that hold no clip, so that a change of theirs is noticed."""
        at = self.columns.index("file")
        listed = {self.raw / row[at]: (line, ",".join(row)) for line, row in self.rows.items()}
        others = sorted(p for p in self.raw.rglob("*") if p.suffix in SUFFIXES and p not in listed and p.is_file())
        own = [self.raw / name for name in DESCRIBING]
        found = [(path, 0, "") for path in own] + [(path, *row) for path, row in listed.items()]
        return found + [(path, 0, "") for path in others if path not in own]

    def read(self, item: tuple[Path, int, str]) -> Recording | list[Recording]:
        """Read one clip; none from the describing files.

        Raises:
            BadInput: its line in clips.csv or its file is damaged, or not what dataset.json says.
            LeftOut: clips.csv does not name it, or it shows nobody.
        """
        path, line, _ = item
        if path in [self.raw / name for name in DESCRIBING]:
            return []
        if not line:
            raise LeftOut("clips.csv does not name it")
        row = dict(zip(self.columns, self.rows[line]))
        place = f"{self.raw / 'clips.csv'}, line {line}"
        label = row["label"].strip()
        if label in self.class_names:
            number = self.class_names.index(label)
        elif WHOLE.fullmatch(label) and 0 <= int(label) < len(self.class_names):
            number = int(label)
        else:
            raise BadInput(f"{place}: {unknown('label', label, self.class_names)}")
        whole = [c for c in self.columns if c not in ("file", "label") and not c.startswith("train_")]
        for column in whole:
            if not WHOLE.fullmatch(row[column].strip()):
                raise BadInput(f"{place}: {column} is {shown(row[column])}; write a whole number")
        joints, notes = read_clip(path, self.layout)
        joints = joints * METRES[self.options.units]
        if self.options.up == "z":
            joints = np.stack([joints[..., 0], joints[..., 2], -joints[..., 1]], -1)
        if not joints.any():
            raise LeftOut("nobody is seen in it" if len(joints) else "it has no frames")
        columns = {column: int(row[column]) for column in whole}
        return Recording(self._clip(row["file"]), in_metres(joints, str(path)), number, columns, notes)

    def splits(self, table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        parts = {f"train_{s}": np.array([self.train[s][n] for n in table["clip"].tolist()]) for s in self.train}
        for name, rule in self.rules.items():
            column = next(iter(rule))
            if column not in table:
                raise BadInput(
                    f"{self.raw / 'dataset.json'}: split {name!r} goes by {column!r}, which is no column of clips.csv"
                )
            parts[f"train_{name}"] = found = np.isin(table[column], rule[column])
            if found.all() or not found.any():
                there = ", ".join(map(str, np.unique(table[column])[:20].tolist()))
                part = "test" if found.all() else "training"
                raise BadInput(
                    f"{self.raw / 'dataset.json'}: split {name!r} has no {part} clips; {column}: {there}; correct it"
                )
        return parts

    def _clip(self, file: str) -> str:
        return Path(file).with_suffix("").as_posix()

    def _about(self, path: Path) -> dict[str, Any]:
        """dataset.json, each key checked."""
        if not path.is_file():
            raise BadInput(f"{path}: no such file; write one, its format is in skeletons/sources/folder.py")
        try:
            given = json.loads(text_of(path))
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}, line {error.lineno}: is no JSON ({error.msg}); correct it") from error
        except (ValueError, RecursionError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"{path}: is no JSON; correct it") from error
        if not isinstance(given, dict):
            raise BadInput(f"{path}: is {shown(given)}, expected an object with joints, parents, ...; correct it")
        for key in given:
            if key not in (*REQUIRED, *OPTIONAL):
                raise BadInput(f"{path}: {unknown('key', key, (*REQUIRED, *OPTIONAL))}")
        lacking = [key for key in REQUIRED if key not in given]
        if lacking:
            raise BadInput(f"{path}: lacks {', '.join(lacking)}; its format is in skeletons/sources/folder.py")
        about: dict[str, Any] = {"persons": 1, "up": "y", "chiral": [], "splits": {}, "ignore": [], **given}

        def need(key: str, good: bool, what: str) -> None:
            if not good:
                raise BadInput(f"{path}: {key} is {shown(about[key])}, expected {what}; correct it")

        def names(value: Any) -> bool:
            return isinstance(value, list) and all(isinstance(v, str) and v.strip() for v in value)

        for key in ("joints", "classes"):
            need(key, names(about[key]) and 0 < len(about[key]) == len(set(about[key])), "distinct names")
        need("ignore", names(about["ignore"]), "names of columns")
        parents, joints = about["parents"], about["joints"]
        need("parents", isinstance(parents, list) and len(parents) == len(joints), f"{len(joints)} joints")
        for parent in parents:
            inside = parent in joints if isinstance(parent, str) else type(parent) is int and 0 <= parent < len(joints)
            if not inside:
                raise BadInput(f"{path}: parent {shown(parent)} is no joint's name or number; correct it")
        about["parents"] = [joints.index(p) if isinstance(p, str) else p for p in parents]
        need("fps", type(about["fps"]) in (int, float) and 0 < about["fps"] <= 10_000, "frames a second")
        need("persons", type(about["persons"]) is int and 1 <= about["persons"] <= 100, "a number from 1")
        need("units", about["units"] in [*METRES], "m, cm or mm")
        need("up", about["up"] in UPS, "y or z")
        pairs = about["chiral"]
        fits = isinstance(pairs, list) and all(names(p) and len(p) == 2 and {*p} <= {*about["classes"]} for p in pairs)
        need("chiral", fits, "pairs of classes")
        rules = about["splits"]
        fits = isinstance(rules, dict) and all(
            name.isidentifier()
            and isinstance(rule, dict)
            and len(rule) == 1
            and all(isinstance(v, list) and v and all(type(n) is int for n in v) for v in rule.values())
            for name, rule in rules.items()
        )
        need("splits", fits, 'rules like {"xsub": {"subject": [1, 2]}}')
        return about

    def _clips(self, path: Path) -> dict[int, list[str]]:
        """Line number -> fields of clips.csv; the header goes to `columns`, columns of splits to `train`."""
        if not path.is_file():
            raise BadInput(f"{path}: no such file; write a line a clip, like file,label,subject")
        reader = csv.reader(text_of(path).replace("\r\n", "\n").split("\n"), strict=True)
        rows: dict[int, list[str]] = {}
        try:
            for row in reader:
                if row:
                    rows[reader.line_num] = row
        except csv.Error as error:
            raise BadInput(f"{path}, line {reader.line_num}: is no CSV ({error}); correct it") from error
        if not rows:
            raise BadInput(f"{path}: is empty; write a line a clip, like file,label,subject")
        first = min(rows)
        self.columns = tuple(field.strip() for field in rows.pop(first))
        if not {"file", "label"} <= set(self.columns) or len(set(self.columns)) != len(self.columns):
            raise BadInput(
                f"{path}, line {first}: names the columns {shown(','.join(self.columns))}, expected file, label and "
                "others, each once; correct the header"
            )
        strange = [c for c in self.columns if not c.isidentifier() or c in ("clip", "observed")]
        if strange:
            raise BadInput(f"{path}, line {first}: column {shown(strange[0])} cannot be named so; choose another name")
        seen: dict[str, int] = {}
        for line, row in rows.items():
            if len(row) != len(self.columns):
                raise BadInput(
                    f"{path}, line {line}: has {len(row)} fields, the header {len(self.columns)}; correct it"
                )
            file = row[self.columns.index("file")] = row[self.columns.index("file")].strip()
            outside = Path(file).is_absolute() or ".." in Path(file).parts or not file.isprintable()
            if outside or Path(file).suffix not in SUFFIXES:
                raise BadInput(
                    f"{path}, line {line}: {shown(file)} is no file below this folder like a/b.csv; correct it"
                )
            name = self._clip(file)
            if name in seen:
                raise BadInput(f"{path}, line {line}: clip {name} is in line {seen[name]} already; remove one")
            seen[name] = line
            for column, value in zip(self.columns, row):
                if column.startswith("train_"):
                    if value.strip() not in ("0", "1") or not NUMBER.fullmatch(value.strip()):
                        raise BadInput(
                            f"{path}, line {line}: {column} is {shown(value)}; write 1 (trains) or 0 (tests)"
                        )
                    self.train.setdefault(column.removeprefix("train_"), {})[name] = value.strip() == "1"
        return rows
