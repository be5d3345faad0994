"""UTD-MHAD: one MATLAB file a clip, `a1_s1_t1_skeleton.mat` (Chen, Jafari, Kehtarnavaz, ICIP 2015).

`d_skel` (20, 3, frame) is in metres, y up. Its joints are Kinect v1's, but begin at the head: head, shoulder centre,
spine, hip centre; here they are put into the order of the topology. Subjects 1, 3, 5, 7 train, 2, 4, 6, 8 test: 431 and
430 of 861 clips (27 actions x 8 subjects x 4 less a8_s1_t4, a23_s6_t4 and a27_s8_t4, which the authors removed).
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from skeletons.errors import BadInput
from skeletons.recordings import LeftOut, Recording, Source
from skeletons.sources import CHIRAL
from skeletons.sources.reading import distinct, files_in, in_metres, shown
from skeletons.topology import KINECT_V1

NAME = re.compile(r"a(\d{1,2})_s(\d)_t(\d)_skeleton", re.ASCII)
ORDER = (3, 2, 1, 0, *range(4, 20))  # the file's joint at each place of the topology


def _check_whole(data: bytes) -> None:
    """Refuse what SciPy believes: a compressed part without all of its checksum, tags at which it reads wild memory."""
    order, at = {b"IM": "<", b"MI": ">"}.get(data[126:128]), 128
    while order and at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        part, at = data[at + 8 : at + 8 + size], at + 8 + size
        if kind == 15:  # miCOMPRESSED
            part = zlib.decompress(part)
            kind, size = struct.unpack_from(f"{order}II", part)
            part = part[8 : 8 + size]
        if kind == 14 and b"d_skel" in part:  # miMATRIX
            _check_array(part, order)


def _check_array(part: bytes, order: str) -> None:
    """An array of numbers or characters: flags, dimensions, name, values, and imaginary ones where the flags say so."""
    kinds, sizes, at = [], [], 0
    while at < len(part):
        kind, size = struct.unpack_from(f"{order}II", part, at)
        if kind >> 16:  # a small element: its size and up to 4 bytes are in the tag
            kind, size, at = kind & 0xFFFF, kind >> 16, at + 8
        else:
            at += 8 + -(-size // 8) * 8
        kinds.append(kind)
        sizes.append(size)
    (flags,) = struct.unpack_from(f"{order}I", part, 8)
    if (
        at != len(part)
        or kinds[:3] != [6, 5, 1]
        or sizes[0] != 8
        or sizes[1] > 128
        or flags & 0xFF not in (4, *range(6, 16))
        or len(kinds) != (5 if flags & 0x800 else 4)
        or not {*kinds[3:]} <= {*range(1, 8), 9, 12, 13, 16, 17, 18}
    ):
        raise ValueError("d_skel is no well-formed array")


@dataclass(frozen=True)
class UtdmhadOptions:
    """UTD-MHAD leaves nothing to choose."""


class UtdmhadMat(Source):
    """A folder of UTD-MHAD's skeletons. Columns: subject 1-8, camera 1, repetition 1-4."""

    name = "utdmhad_mat"
    Options = UtdmhadOptions
    topology = KINECT_V1
    class_names = (
        *("swipe left", "swipe right", "wave", "clap", "throw", "arm cross", "basketball shoot", "draw X"),
        *("draw circle (clockwise)", "draw circle (counter clockwise)", "draw triangle", "bowling", "boxing"),
        *("baseball swing", "tennis swing", "arm curl", "tennis serve", "push", "knock", "catch", "pickup and throw"),
        *("jog", "walk", "sit to stand", "stand to sit", "lunge", "squat"),
    )
    fps = 30.0
    official: ClassVar = {"xsub": (431, 430)}
    chiral = CHIRAL["utdmhad"]

    def items(self) -> list[Path]:
        found = files_in(self.raw, "*_skeleton.mat", "UTD-MHAD skeletons")
        found.sort(key=self._about)
        distinct(found, (path.stem for path in found))
        return found

    def _about(self, path: Path) -> tuple[int, int, int]:
        """(action, subject, trial), from 1, by the file's name."""
        match = NAME.fullmatch(path.stem)
        numbers = tuple(map(int, match.groups())) if match else (0, 0, 0)
        action, subject, trial = numbers
        if not (1 <= action <= 27 and 1 <= subject <= 8 and 1 <= trial <= 4):
            raise BadInput(
                f"{path}: a clip's name is like a1_s1_t1_skeleton.mat, with actions 1-27, subjects 1-8 and trials 1-4; "
                "rename the file or take it out of the folder"
            )
        return action, subject, trial

    def read(self, item: Path) -> Recording:
        """Read one clip.

        Raises:
            BadInput: the file is damaged, or its d_skel is not (20, 3, frame) numbers.
            LeftOut: it has no frames, or shows nobody.
        """
        action, subject, trial = self._about(item)
        skeleton = self._d_skel(item)
        if skeleton.size == 0 or not skeleton.any():
            raise LeftOut("nobody is seen in it" if skeleton.size else "it has no frames")
        joints = skeleton.astype(np.float64).transpose(2, 0, 1)[:, None, ORDER]
        return Recording(
            name=f"a{action:02d}_s{subject:02d}_t{trial:02d}",
            joints=in_metres(joints, str(item)),
            label=action - 1,
            columns={"subject": subject, "camera": 1, "repetition": trial},
        )

    def splits(self, table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"train_xsub": table["subject"] % 2 == 1}

    def _d_skel(self, path: Path) -> Any:
        """The file's array (20, 3, frame)."""
        from scipy.io import loadmat

        try:
            _check_whole(path.read_bytes())
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # SciPy warns where it goes on with what it could not read
                content = loadmat(path, variable_names=["d_skel"])
        except NotImplementedError as error:  # SciPy's answer to version 7.3, which is HDF5
            raise BadInput(f"{path}: is of MATLAB's version 7.3; save it again with -v7") from error
        except Exception as error:  # SciPy raises whatever its parser trips over
            reason = shown(" ".join(str(error).split()))
            raise BadInput(
                f"{path}: is truncated, damaged or no MATLAB file ({type(error).__name__}: {reason}); fetch it again"
            ) from error
        skeleton = content.get("d_skel")
        if not isinstance(skeleton, np.ndarray):
            raise BadInput(f"{path}: has no d_skel; it is no skeleton of UTD-MHAD")
        if skeleton.dtype.kind not in "fiu" or skeleton.shape[:2] != (20, 3) or skeleton.ndim not in (2, 3):
            raise BadInput(
                f"{path}: d_skel is {skeleton.dtype} of shape {skeleton.shape}, expected numbers (20, 3, frames)"
            )
        return skeleton.reshape(20, 3, -1)  # MATLAB drops the last axis where it is 1
