"""NTU RGB+D 60 and 120 from their raw `.skeleton` files.

Shahroudy et al., CVPR 2016, and Liu et al., TPAMI 2020; files from rose1.ntu.edu.sg. A name SsssCcccPpppRrrrAaaa gives
setup, camera, subject, repetition and action, from 1. The archive holds the official splits as train_xsub and
train_xview (60) or train_xset (120), and the joints' tracking states. See ntu_text.py for the files and ntu_bodies.py
for the steps from bodies to actors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from skeletons.errors import BadInput
from skeletons.recordings import LeftOut, Recording, Source
from skeletons.sources.ntu_bodies import Selection, actors
from skeletons.sources.ntu_text import parse
from skeletons.splits import OFFICIAL
from skeletons.topology import KINECT_V2

NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")
PARTS = ("setup", "camera", "subject", "repetition", "action")
LIST = Path(__file__).with_name("ntu_missing.txt")


@dataclass
class Options(Selection):
    __doc__ = f"""{Selection.__doc__}
    missing: recordings to leave out: official (the authors' list of missing or incomplete skeletons, 302 of NTU-60
        and 535 of NTU-120), none, or the path of a text file with their names.
    """

    missing: str = "official"


class _Ntu(Source):
    """What both have in common."""

    Options = Options
    topology = KINECT_V2
    fps = 30.0
    most: ClassVar[dict[str, int]]  # the highest number of each part of a name

    def __init__(self, raw: Path, options: Any = None):
        super().__init__(Path(raw), options or Options())
        self.class_names = tuple(f"A{n + 1:03d}" for n in range(self.most["action"]))
        self.missing = missing_names(self.options.missing)

    def items(self) -> list[Any]:
        if self.raw.is_file():
            return [self.raw]
        return sorted(self.raw.rglob("*.skeleton"), key=lambda path: (path.name, str(path)))

    def read(self, item: Any) -> Recording:
        path = Path(item)
        columns = self._columns(path)
        if path.stem in self.missing:
            raise LeftOut("on the list of missing or incomplete skeletons")
        frames, bodies = parse(path.read_bytes(), str(path))
        if not bodies:
            raise LeftOut("no body in any frame" if frames else "no frames")
        joints, tracking, notes = actors(frames, bodies, self.options)
        if not joints.any():
            raise LeftOut("no joint of an actor was seen")
        label = columns.pop("action") - 1
        return Recording(path.stem, joints, label, columns, tuple(notes), tracking)

    def _columns(self, path: Path) -> dict[str, int]:
        """The parts of a file's name."""
        match = NAME.fullmatch(path.stem)
        if not match:
            raise BadInput(f"{path}: is not named SsssCcccPpppRrrrAaaa.skeleton; rename it or take it out of raw")
        columns = dict(zip(PARTS, map(int, match.groups())))
        second = columns["setup"] > 17
        if second and self.most["setup"] == 17 and columns["setup"] <= 32 and 60 < columns["action"] <= 120:
            raise LeftOut("belongs to NTU RGB+D 120")
        first, last = (61, 120) if second else (1, 60)  # the first 60 actions were recorded in the first 17 setups
        if not first <= columns["action"] <= min(last, self.most["action"]):
            raise BadInput(
                f"{path}: there is no action {columns['action']} in setup {columns['setup']} of {self.name}, which has "
                f"{first}-{last}; the file is named wrongly, or give source=ntu120"
            )
        for part, highest in self.most.items():
            if not 1 <= columns[part] <= highest:
                raise BadInput(
                    f"{path}: there is no {part} {columns[part]} in {self.name}, only 1-{highest}; correct the name, "
                    "or give source=ntu120"
                )
        return columns

    def splits(self, table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rules = {split: rule for (data, split), rule in OFFICIAL.items() if data == self.name}
        return {f"train_{split}": np.isin(table[column], members) for split, (column, members) in rules.items()}


class Ntu60(_Ntu):
    """56,880 recordings, of which 56,578 are usable."""

    name = "ntu60"
    most: ClassVar = {"setup": 17, "camera": 3, "subject": 40, "repetition": 2, "action": 60}
    official: ClassVar = {"xsub": (40_091, 16_487), "xview": (37_646, 18_932)}


class Ntu120(_Ntu):
    """114,480 recordings, of which 113,945 are usable."""

    name = "ntu120"
    most: ClassVar = {"setup": 32, "camera": 3, "subject": 106, "repetition": 2, "action": 120}
    official: ClassVar = {"xsub": (63_026, 50_919), "xset": (54_468, 59_477)}


def missing_names(which: str) -> frozenset[str]:
    """Names of the recordings that a list leaves out.

    Args:
        which: official, none, or the path of a file that has their names in it, one a line (other lines are text).

    Raises:
        BadInput: no such file, or it names nothing.
    """
    if which == "none":
        return frozenset()
    if which == "official":
        return frozenset(_official())
    path = Path(which)
    if not path.is_file():
        raise BadInput(f"missing={which}: no such file; give official, none or a list of names")
    names = frozenset(line.strip() for line in path.read_text(errors="replace").splitlines() if NAME.match(line))
    if not names:
        raise BadInput(f"{path}: has no names like S001C001P001R001A001 in it; give official, none or another list")
    return frozenset(name.removesuffix(".skeleton") for name in names)


def _official() -> list[str]:
    names = []
    for line in LIST.read_text().splitlines():
        take, *actions = line.split() if not line.startswith("#") else [""]
        for action in actions:
            first, _, last = action.partition("-")
            names += [f"{take}A{number:03d}" for number in range(int(first), int(last or first) + 1)]
    return names
