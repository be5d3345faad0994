"""SBU Kinect Interaction, clean version 2.0: `s01s02/01/001/skeleton_pos.txt` (Yun et al., CVPRW 2012; its README).

A line is a frame: its number, then x, y, z of 15 joints of the person on the left and of the one on the right,
separated by commas. x and y are normalised to about 0-1, z to 0-7.8125; the README's formula gives millimetres:
X = 1280 - 2560 x, Y = 960 - 1920 y, Z = 10000 z / 7.8125, with y up. Folders name the pair (acting, reacting person),
the action 01-08 and the sequence. There are 282 sequences of 21 pairs, cut into 5 folds by pair: a person may stand on
both sides of a fold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skeletons.errors import BadInput
from skeletons.recordings import LeftOut, Recording, Source
from skeletons.sources.reading import distinct, files_in, in_metres, lines_of, numbers
from skeletons.topology import OPENNI

PLACE = re.compile(r"s(\d\d)s(\d\d)/(\d\d)/(\d{3})/skeleton_pos\.txt$", re.ASCII)
# The sets in the README's order; a set's place in it, from 1, is the ordered pair's number.
PAIRS = (12, 13, 17, 21, 23, 26, 27, 32, 34, 35, 36, 42, 43, 46, 52, 53, 62, 63, 64, 71, 73)  # s01s02 is 12
FOLDS = ((1, 9, 15, 19), (5, 7, 10, 16), (2, 3, 20, 21), (4, 6, 8, 11), (12, 13, 14, 17, 18))


@dataclass(frozen=True)
class SbuOptions:
    """SBU leaves nothing to choose."""


class SbuText(Source):
    """Folders of SBU's clean version. Columns: subject (ordered pair, 1-21), active_subject, passive_subject (1-7),
    camera, repetition, fold (0-4)."""

    name = "sbu_text"
    Options = SbuOptions
    topology = OPENNI
    class_names = (
        "approaching",
        "departing",
        "kicking",
        "pushing",
        "shaking hands",
        "hugging",
        "exchanging object",
        "punching",
    )
    fps = 15.0

    def items(self) -> list[Path]:
        found = files_in(self.raw, "skeleton_pos.txt", "SBU skeletons")
        for path in found:
            self._about(path)
        found.sort(key=lambda path: self._about(path)[0])
        distinct(found, (self._about(path)[0] for path in found))
        return found

    def _about(self, path: Path) -> tuple[str, tuple[int, ...]]:
        """Name, and (active, passive, action, sequence), from the folders."""
        match = PLACE.search(path.resolve().as_posix())
        if not match:
            raise BadInput(f"{path}: is not in a folder like s01s02/01/001, which says pair, action and sequence")
        first, second, action, sequence = map(int, match.groups())
        if 10 * first + second not in PAIRS:
            raise BadInput(f"{path}: s{first:02d}s{second:02d} is none of SBU's 21 pairs; correct the folder's name")
        if not 1 <= action <= 8:
            raise BadInput(f"{path}: action {action:02d} is unknown, SBU has 01-08; correct the folder's name")
        return f"s{first:02d}s{second:02d}_a{action:02d}_{sequence:03d}", (first, second, action, sequence)

    def read(self, item: Path) -> Recording:
        """Read one sequence.

        Raises:
            BadInput: a line that is no frame of two persons, frame numbers that do not ascend, an unknown action.
            LeftOut: nobody is seen.
        """
        name, (first, second, action, sequence) = self._about(item)
        table = numbers(lines_of(item), 91, item, separator=",")
        frames = table[:, 0]
        steps = np.diff(frames)
        wrong = np.flatnonzero(np.r_[frames[0] < 0, steps <= 0] | (frames % 1 != 0))
        if len(wrong):
            raise BadInput(
                f"{item}, line {wrong[0] + 1}: frame number {frames[wrong[0]]:g} does not ascend from the one before; "
                "the lines are out of order or damaged"
            )
        normalised = table[:, 1:].reshape(-1, 2, 15, 3)
        joints = np.array([1.280, 0.960, 0.0]) + normalised * np.array([-2.560, -1.920, 1.280])
        joints[(normalised == 0).all(-1)] = 0  # not seen, rather than at the image's corner
        if not joints.any():
            raise LeftOut("nobody is seen in it")
        skipped = int((steps - 1).sum())
        pair = PAIRS.index(10 * first + second) + 1
        return Recording(
            name=name,
            joints=in_metres(joints, str(item)),
            label=action - 1,
            columns={
                "subject": pair,
                "active_subject": first,
                "passive_subject": second,
                "camera": 1,
                "repetition": sequence,
                "fold": next(i for i, fold in enumerate(FOLDS) if pair in fold),
            },
            notes=(f"{skipped} frame numbers skipped",) if skipped else (),
        )
