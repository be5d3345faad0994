"""PYSKL's pickles of 3D skeletons, `ntu60_3danno.pkl` and `ntu120_3danno.pkl` (Duan et al., 2022; its tools/data).

`annotations` is a list of dictionaries: `frame_dir` (S001C001P001R001A001), `label` (from 0), `total_frames` and
`keypoint` (person, frame, 25, 3), metres in the camera's frame, y up, not centred, rounded to float16 (2 mm at 4 m).
`split` maps `xsub_train`, `xsub_val`, ... to lists of those names. They are made from the raw files by a denoising like
CTR-GCN's, frames without bodies removed.

Nothing in the pickle is executed (safe_pickle.py), and arrays are read from the file one by one. What grows with the
clips are their names: 1.7 kB a clip while the file is opened, 0.6 kB then (NTU-60: 95 and 32 MB), less in a worker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from skeletons.errors import BadInput
from skeletons.recordings import LeftOut, Recording, Source
from skeletons.sources.ntu_skeleton import Ntu60, Ntu120
from skeletons.sources.reading import in_metres, shown
from skeletons.sources.safe_pickle import Array, Values, open_pickle
from skeletons.topology import KINECT_V2

NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)
COLUMNS = ("setup", "camera", "subject", "repetition")


@dataclass(frozen=True)
class PysklOptions:
    """What the pickle does not say.

    Attributes:
        classes: how many classes there are; 0 takes 60 where labels and names allow, else 120.
    """

    classes: int = 0


@dataclass(frozen=True)
class Annotation:
    """One entry of the list: `keypoint` where it has a body, None where the list has None or an empty array."""

    name: str
    label: int
    keypoint: Values | None


class Pyskl(Source):
    """A pickle of PYSKL's 3D skeletons (raw=FILE). Columns: setup, camera, subject, repetition where names say them.

    Two persons a clip; the second is zeros where there is one.
    """

    name = "pyskl"
    Options = PysklOptions
    topology = KINECT_V2
    fps = 30.0

    def __init__(self, raw: Path, options: PysklOptions) -> None:
        super().__init__(raw, options)
        if raw.is_dir():
            found = sorted(raw.glob("*.pkl"))
            if len(found) != 1:
                raise BadInput(f"{raw}: holds {len(found)} files *.pkl; name the one to read with raw=FILE")
            self.raw = raw = found[0]
        content = open_pickle(raw)
        if not isinstance(content, dict) or not {"annotations", "split"} <= content.keys():
            raise BadInput(f"{raw}: has no annotations and split; it is no pickle of PYSKL's")
        if not isinstance(content["annotations"], list) or not content["annotations"]:
            raise BadInput(f"{raw}: its annotations are no list, or an empty one; fetch it again")
        self.annotations = [self._annotation(a, i) for i, a in enumerate(content["annotations"])]
        self.parts = self._parts(content["split"])
        if options.classes < 0:
            raise BadInput(f"classes={options.classes}: give a number of classes, or 0")
        highest = max(a.label for a in self.annotations)
        classes = options.classes or (highest + 1 if highest >= 120 else 120 if highest >= 60 else 60)
        self.class_names = tuple(f"A{i + 1:03d}" for i in range(classes))
        if all(NAME.fullmatch(a.name) for a in self.annotations if a.keypoint):
            # Of other sources the numbers are the class's own; here the file says which set it holds.
            self.official = {60: Ntu60, 120: Ntu120}[classes].official if classes in (60, 120) else {}  # type: ignore[misc]

    def items(self) -> list[tuple[Path, int, str]]:
        return [(Path(self.raw), i, a.name) for i, a in enumerate(self.annotations)]

    def read(self, item: tuple[Path, int, str]) -> Recording:
        """Read one clip.

        Raises:
            BadInput: its array is not (person, frame, 25, 3) numbers, or its name and label disagree.
            LeftOut: it has no body.
        """
        path, number, _ = item
        annotation = self.annotations[number]
        place = f"{path}: clip {annotation.name} (number {number})"
        match = NAME.fullmatch(annotation.name)
        if match and int(match[5]) != annotation.label + 1:
            raise BadInput(f"{place} has label {annotation.label}, its name says A{match[5]}; fetch the file again")
        values = annotation.keypoint
        if values is None:
            raise LeftOut("it has no body")
        if len(values.shape) != 4 or values.shape[2:] != (25, 3) or values.dtype.kind != "f" or values.shape[0] > 2:
            kind = "2D keypoints" if values.shape[3:] == (2,) else f"{values.dtype} of shape {values.shape}"
            raise BadInput(f"{place} has {kind}, expected floats (1 or 2 persons, frames, 25, 3)")
        try:
            with path.open("rb") as file:
                keypoint = values.read(file)
        except ValueError as error:
            raise BadInput(f"{place}: its array is not whole in the file; fetch the file again") from error
        if not keypoint.any():
            raise LeftOut("nobody is seen in it")
        joints = np.zeros((keypoint.shape[1], 2, 25, 3), np.float64)
        joints[:, : len(keypoint)] = keypoint.transpose(1, 0, 2, 3)
        columns = dict(zip(COLUMNS, map(int, match.groups()))) if match else {}
        return Recording(annotation.name, in_metres(joints, place), annotation.label, columns)

    def splits(self, table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [str(name) for name in table["clip"]]
        columns = {}
        for split, (train, test) in self.parts.items():
            lost = next((name for name in names if (name in train) == (name in test)), None)
            if lost is not None:
                where = "both parts" if lost in train else "no part"
                raise BadInput(f"{self.raw}: clip {lost} is in {where} of its split {split!r}; correct the file")
            columns[f"train_{split}"] = np.array([name in train for name in names])
        return columns

    @cached_property
    def _place(self) -> str:
        return str(self.raw)

    def _annotation(self, entry: Any, number: int) -> Annotation:
        """One entry of the list, checked as far as it can be without its array."""
        place = f"{self._place}: annotation {number}"
        if entry is None:  # what PYSKL's script leaves of a file without bodies
            return Annotation(f"number {number}", 0, None)
        if not isinstance(entry, dict):
            raise BadInput(f"{place} is {shown(entry)}, expected a dictionary; fetch the file again")
        missing = [k for k in ("frame_dir", "label", "keypoint") if k not in entry]
        if missing:
            raise BadInput(f"{place} lacks {', '.join(missing)}; it is no pickle of PYSKL's 3D skeletons")
        name, label, keypoint = entry["frame_dir"], entry["label"], entry["keypoint"]
        if not isinstance(name, str) or not name or not name.isprintable():
            raise BadInput(f"{place} is named {shown(name)}, expected text; fetch the file again")
        if type(label) is not int or not 0 <= label < 1000:
            raise BadInput(f"{place} ({name}) has label {shown(label)}, expected a number from 0; fetch the file again")
        values = keypoint.values if isinstance(keypoint, Array) and hasattr(keypoint, "values") else None
        if values is None and keypoint is not None:
            raise BadInput(f"{place} ({name}): keypoint is {shown(keypoint)}, expected an array; fetch the file again")
        frames = entry.get("total_frames")
        if values is not None and frames is not None and frames not in values.shape[1:2]:
            raise BadInput(
                f"{place} ({name}) says total_frames {shown(frames)}, its keypoint has shape {values.shape}; "
                "fetch the file again"
            )
        return Annotation(name, label, values if values is not None and 0 not in values.shape else None)

    def _parts(self, split: Any) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
        """Names of the training and of the test clips of each split: x of `x_train` and `x_val`."""
        if not isinstance(split, dict) or not all(isinstance(k, str) for k in split):
            raise BadInput(f"{self.raw}: its split is no dictionary of lists; fetch it again")
        parts = {}
        for key in split:
            name = key.removesuffix("_train")
            if key == name:
                continue
            other = next((f"{name}_{end}" for end in ("val", "test") if f"{name}_{end}" in split), None)
            if other is None or not name.isidentifier():
                raise BadInput(f"{self.raw}: its split has {shown(key)} but no {name}_val; fetch it again")
            parts[name] = (self._names(split[key], key), self._names(split[other], other))
        return parts

    def _names(self, names: Any, key: str) -> frozenset[str]:
        if isinstance(names, Array) and hasattr(names, "values"):
            with Path(self.raw).open("rb") as file:
                names = names.values.read(file).tolist()
        if not isinstance(names, (list, tuple, set)) or not all(isinstance(name, str) for name in names):
            raise BadInput(f"{self.raw}: split {key!r} is no list of names; fetch it again")
        return frozenset(names)
