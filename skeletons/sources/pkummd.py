"""PKU-MMD, phases I and II: long recordings, cut into the actions that their label files name (Liu et al., 2017).

A skeleton file has a line a frame, 150 numbers: 2 persons x 25 joints of Kinect v2 x (x, y, z), metres in the camera's
frame, y up, 30 fps; an absent second person is zeros. Its label file of the same name has a line an action: class 1-51,
first frame, end, confidence. Actions are kept whole (MAMP's archives hold their first 300 frames). Files are named
`0002-L.txt` (phase I: video and view L, M, R) or `A01N01-L.txt` (phase II: session and actor). Both phases share 51
classes, of which phase II shows 41.

Splits. The authors' lists are read where they lie in the folder: `cross-subject.txt`, `cross-view.txt` (phase I, with
- or _) and `cross_subject_v2.txt`, `cross_view_v2.txt` (phase II); line 2 names the training videos and whatever is not
in it tests. Without a list, its rule is used: phase I X-Sub tests on videos 0291-0334 (944 and 132 videos), phase II on
actors 2, 3 and 7 (775 and 234), X-View on view L (phase II: 671 and 338; phase I's list was not available to us, that
it has the same rule is an assumption).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from skeletons.errors import BadInput, check_choices
from skeletons.recordings import LeftOut, Recording, Source
from skeletons.sources.reading import distinct, files_in, in_metres, lines_of, numbers, shown
from skeletons.topology import KINECT_V2

NAMES = {
    1: re.compile(r"(?P<video>\d{4})-(?P<view>[LMR])", re.ASCII),
    2: re.compile(r"A(?P<session>\d\d)N(?P<subject>\d\d)-(?P<view>[LMR])", re.ASCII),
}
LISTS = {
    (1, "xsub"): ("cross-subject.txt", "cross_subject.txt"),
    (1, "xview"): ("cross-view.txt", "cross_view.txt"),
    (2, "xsub"): ("cross_subject_v2.txt", "cross-subject-v2.txt"),
    (2, "xview"): ("cross_view_v2.txt", "cross-view-v2.txt"),
}
SPLITS = ("xsub", "xview")
TEST_VIDEOS = range(291, 335)
TEST_ACTORS = (2, 3, 7)
SLICES = {"mamp": 0, "aimclr": -1}  # where a clip begins, from the label's first frame


@dataclass(frozen=True)
class PkummdOptions:
    """How actions are cut out.

    Attributes:
        slicing: mamp takes rows first:end, counted from 0; aimclr first-1:end, as if frames were counted from 1.
        confidence: the least that a label must have (they are 1 or 2); 0 takes all, as papers do.
    """

    slicing: str = "mamp"
    confidence: int = 0


@lru_cache(maxsize=1)
def _frames(path: Path, changed: int) -> list[str]:
    """A recording's lines; the actions of one recording are read one after the other."""
    return lines_of(path)


class Pkummd(Source):
    """A folder with PKU-MMD's skeleton and label files, in any sub-folders whose names tell them apart.

    Columns: camera (1 L, 2 M, 3 R), repetition (the label's line), video; phase II also subject and session. Phase I
    does not say who is seen. A clip's name is its recording's and its label's line: `0002-L_003`.
    """

    name = "pkummd"
    Options = PkummdOptions
    topology = KINECT_V2
    class_names = (
        *("bow", "brushing hair", "brushing teeth", "check time (from watch)", "cheer up", "clapping"),
        *("cross hands in front (say stop)", "drink water", "drop", "eat meal/snack", "falling"),
        *("giving something to other person", "hand waving", "handshaking", "hopping (one foot jumping)"),
        *("hugging other person", "jump up", "kicking other person", "kicking something"),
        *("make a phone call/answer phone", "pat on back of other person", "pickup", "playing with phone/tablet"),
        *("point finger at the other person", "pointing to something with finger", "punching/slapping other person"),
        *("pushing other person", "put on a hat/cap", "put something inside pocket", "reading"),
        *("rub two hands together", "salute", "sitting down", "standing up", "take off a hat/cap"),
        *("take off glasses", "take off jacket", "take out something from pocket", "taking a selfie"),
        *("tear up paper", "throw", "touch back (backache)", "touch chest (stomachache/heart pain)"),
        *("touch head (headache)", "touch neck (neckache)", "typing on a keyboard"),
        *("use a fan (with hand or paper)/feeling warm", "wear jacket", "wear on glasses", "wipe face", "writing"),
    )
    fps = 30.0

    def __init__(self, raw: Path, options: PkummdOptions) -> None:
        super().__init__(raw, options)
        check_choices("pkummd", options, slicing=SLICES)
        texts = files_in(self.raw, "*.txt", "PKU-MMD texts")
        self.phase = 2 if any(NAMES[2].fullmatch(path.stem) for path in texts) else 1
        named = [path for path in texts if NAMES[self.phase].fullmatch(path.stem)]
        self.labels = self._by_name([p for p in named if self._is_label(p)])
        self.skeletons = self._by_name([p for p in named if not self._is_label(p)])
        if not self.skeletons:
            raise BadInput(
                f"{self.raw}: there are no PKU-MMD skeletons like 0002-L.txt or A01N01-L.txt, outside folders of "
                "labels; give the folder that holds both with raw=DIR"
            )
        other = next((p for p in texts if NAMES[3 - self.phase].fullmatch(p.stem)), None)
        if other:
            raise BadInput(
                f"{other}: is of phase {3 - self.phase} among phase {self.phase}; prepare one phase at a time"
            )
        self.list_files = [p for p in texts if any(p.name in LISTS[self.phase, split] for split in SPLITS)]
        self.lists = {split: self._training(split) for split in SPLITS}

    def _is_label(self, path: Path) -> bool:
        return any("label" in part.lower() for part in path.relative_to(self.raw).parts[:-1])

    def _by_name(self, paths: list[Path]) -> dict[str, Path]:
        distinct(paths, (path.stem for path in paths))
        return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}

    def items(self) -> list[tuple[Path, int, str]]:
        """(skeleton file, line of its label file, that line) of every action; line 0 where a recording has no labels,
        and the label file instead where there is no skeleton. Split lists come last, as items that hold no action, so
        that a change of theirs is noticed."""
        found: list[tuple[Path, int, str]] = []
        for name, path in self.skeletons.items():
            if name in self.labels:
                found += [(path, line, text) for line, text in enumerate(lines_of(self.labels[name]), 1)]
            else:
                found.append((path, 0, ""))
        found += [(path, 0, "") for name, path in self.labels.items() if name not in self.skeletons]
        return found + [(path, 0, "") for path in self.list_files]

    def read(self, item: tuple[Path, int, str]) -> Recording | list[Recording]:
        """Read one action; none from a split list.

        Raises:
            BadInput: skeletons or labels are missing, a line of theirs is damaged, the class is unknown, the action
                lies outside the recording.
            LeftOut: nobody is seen (MAMP drops such actions too), or the label's confidence is too low.
        """
        skeleton, line, text = item
        name = skeleton.stem
        if skeleton in self.list_files:
            return []
        if not line:
            has, lacks = ("labels", "skeletons") if name not in self.skeletons else ("skeletons", "labels")
            raise BadInput(f"{skeleton}: has {has}, but there are no {lacks} in another {name}.txt; add or remove one")
        labels = self.labels[name]
        label, first, end = self._label(labels, line, text)
        rows = _frames(skeleton, skeleton.stat().st_mtime_ns)
        notes: tuple[str, ...] = ()
        if end > len(rows):
            notes = (f"the label ends {end - len(rows)} frames after the recording",)
            end = len(rows)
        first += SLICES[self.options.slicing]
        if not 0 <= first < end:
            raise BadInput(
                f"{labels}, line {line}: frames {first} to {end} are none of {skeleton.name}'s {len(rows)} frames; "
                "the skeleton file is truncated or the label wrong"
            )
        joints = numbers(rows[first:end], 150, skeleton, first=first + 1).reshape(-1, 2, 25, 3)
        if not joints.any():
            raise LeftOut("nobody is seen in it")
        match = NAMES[self.phase].fullmatch(name)
        assert match
        columns = {key: int(value) for key, value in match.groupdict().items() if key != "view"}
        columns |= {"camera": "LMR".index(match["view"]) + 1, "repetition": line}
        place = f"{skeleton}, from line {first + 1} on"
        return Recording(f"{name}_{line:03d}", in_metres(joints, place), label, columns, notes)

    def _label(self, path: Path, line: int, text: str) -> tuple[int, int, int]:
        """(class from 0, first frame, end) of one line of a label file."""
        row = numbers([text], 4, path, first=line, separator=",")[0]
        if (row % 1 != 0).any() or (row < 0).any():
            raise BadInput(f"{path}, line {line}: {shown(text)} are no whole numbers; fetch the labels again")
        label, first, end, confidence = (int(v) for v in row)
        if not 1 <= label <= 51:
            raise BadInput(f"{path}, line {line}: action {label} is unknown, PKU-MMD has 1-51; fetch the labels again")
        if first >= end:
            raise BadInput(f"{path}, line {line}: begins at {first} and ends at {end}; fetch the labels again")
        if confidence < self.options.confidence:
            raise LeftOut(f"its label's confidence is {confidence}")
        return label - 1, first, end

    def splits(self, table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        recordings = [str(name).rpartition("_")[0] for name in table["clip"]]
        return {f"train_{split}": np.array([self._trains(name, split) for name in recordings]) for split in self.lists}

    def _trains(self, name: str, split: str) -> bool:
        listed, match = self.lists[split], NAMES[self.phase].fullmatch(name)
        assert match
        if listed is not None:
            return name in listed
        if split == "xview":
            return match["view"] != "L"
        return int(match["video"]) not in TEST_VIDEOS if self.phase == 1 else int(match["subject"]) not in TEST_ACTORS

    def _training(self, split: str) -> frozenset[str] | None:
        """The official training videos, where the list is there."""
        path = next((p for p in self.list_files if p.name in LISTS[self.phase, split]), None)
        if path is None:
            return None
        lines = lines_of(path)
        names = [name.strip() for name in lines[1].split(",")] if len(lines) >= 4 else []
        names = [name for name in names if name]  # the lists end in a comma
        strange = [name for name in names if not NAMES[self.phase].fullmatch(name)]
        if not names or strange:
            what = f"{shown(strange[0])} is no recording of phase {self.phase}" if strange else "it lists none"
            raise BadInput(
                f"{path}, line 2: should list the training videos, separated by commas, but {what}; "
                "fetch the list of this phase again"
            )
        return frozenset(names)
