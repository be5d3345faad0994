"""Northwestern-UCLA Multiview Action 3D as commonly preprocessed: one JSON file a clip (Wang et al., CVPR 2014; the
files travel with CTR-GCN). `a01_s02_e03_v01.json` holds `file_name`, `skeletons` (frame, 20, 3) in metres, y up, in
Kinect v1's joint order, and `label` 1-10; actions are numbered 1-6, 8, 9, 11, 12.

Cross-view trains on cameras 1 and 2 and tests on 3: 1,020 and 464 clips. Beware: 95 of those test clips (every camera-3
clip of "pick up with two hands" and "drop trash") are byte-identical to a training clip. They are read as they are;
the audit finds them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from skeletons.errors import BadInput
from skeletons.recordings import LeftOut, Recording, Source
from skeletons.sources.reading import distinct, files_in, in_metres, shown, text_of
from skeletons.topology import KINECT_V1

NAME = re.compile(r"a(\d\d)_s(\d\d)_e(\d\d)_v(\d\d)", re.ASCII)
ACTIONS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)


@dataclass(frozen=True)
class NwuclaOptions:
    """NW-UCLA leaves nothing to choose."""


class NwuclaJson(Source):
    """A folder of NW-UCLA's JSON files. Columns: subject 1-10, camera 1-3, repetition (from 0)."""

    name = "nwucla_json"
    Options = NwuclaOptions
    topology = KINECT_V1
    class_names = (
        "pick up with one hand",
        "pick up with two hands",
        "drop trash",
        "walk around",
        "sit down",
        "stand up",
        "donning",
        "doffing",
        "throw",
        "carry",
    )
    fps = 30.0
    official: ClassVar = {"xview": (1020, 464)}

    def items(self) -> list[Path]:
        found = files_in(self.raw, "*.json", "NW-UCLA clips")
        distinct(found, (path.stem for path in found))
        return sorted(found, key=lambda path: path.stem)

    def read(self, item: Path) -> Recording:
        """Read one clip.

        Raises:
            BadInput: no JSON, not (frame, 20, 3) plain numbers, or name, file_name and label disagree.
            LeftOut: it has no frames, or shows nobody.
        """
        match = NAME.fullmatch(item.stem)
        if not match:
            raise BadInput(
                f"{item}: a clip's name is like a01_s02_e03_v01; rename the file or take it out of the folder"
            )
        action, subject, repetition, camera = map(int, match.groups())
        if action not in ACTIONS or not 1 <= subject <= 10 or not 1 <= camera <= 3:
            raise BadInput(
                f"{item}: NW-UCLA has actions {', '.join(map(str, ACTIONS))}, subjects 1-10 and cameras 1-3; "
                "correct the file's name"
            )
        clip = self._json(item)
        label = ACTIONS.index(action)
        if clip["file_name"] != item.stem or type(clip["label"]) is not int or clip["label"] != label + 1:
            raise BadInput(
                f"{item}: says file_name {shown(clip['file_name'])} and label {shown(clip['label'])}, its name says "
                f"{item.stem} and {label + 1}; fetch it again"
            )
        joints = self._joints(clip["skeletons"], item)
        if not len(joints):
            raise LeftOut("it has no frames")
        if not joints.any():
            raise LeftOut("nobody is seen in it")
        columns = {"subject": subject, "camera": camera, "repetition": repetition}
        return Recording(item.stem, in_metres(joints[:, None], str(item)), label, columns)

    def splits(self, table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"train_xview": np.isin(table["camera"], (1, 2))}

    def _json(self, path: Path) -> dict[str, Any]:
        """The file's object, with the three fields."""

        def no_number(text: str) -> None:
            raise BadInput(f"{path}: holds {text}, which is no coordinate; fetch it again")

        def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            if len(dict(pairs)) != len(pairs):
                raise BadInput(f"{path}: says {shown(sorted(k for k, _ in pairs))}, one of them twice; fetch it again")
            return dict(pairs)

        text = text_of(path)
        try:
            clip = json.loads(text, parse_constant=no_number, object_pairs_hook=once)
        except json.JSONDecodeError as error:
            raise BadInput(
                f"{path}, line {error.lineno}, column {error.colno}: is no JSON ({error.msg}); "
                "the file is truncated or damaged, fetch it again"
            ) from error
        except (ValueError, RecursionError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"{path}: is no clip ({shown(str(error))}); fetch it again") from error
        fields = {"file_name", "skeletons", "label"}
        if not isinstance(clip, dict) or set(clip) != fields:
            has = ", ".join(map(shown, sorted(clip))) if isinstance(clip, dict) else "no fields"
            raise BadInput(
                f"{path}: has {has[:80]}, expected file_name, skeletons and label; it is another kind of file"
            )
        return clip

    def _joints(self, frames: Any, path: Path) -> np.ndarray:
        """float64 (frame, 20, 3) of nested lists of numbers (JSON's true, null and strings are none)."""
        if not isinstance(frames, list):
            raise BadInput(f"{path}: skeletons are {shown(frames)}, expected a list of frames; fetch it again")
        for t, frame in enumerate(frames):
            if not isinstance(frame, list) or len(frame) != 20:
                count = f"{len(frame)} joints" if isinstance(frame, list) else shown(frame)
                raise BadInput(f"{path}: frame {t} has {count}, expected 20 joints; fetch it again")
            for j, joint in enumerate(frame):
                if not isinstance(joint, list) or len(joint) != 3 or not all(type(v) in (int, float) for v in joint):
                    raise BadInput(
                        f"{path}: frame {t}, joint {j} is {shown(joint)}, expected three numbers; fetch it again"
                    )
        try:
            return np.array(frames, dtype=np.float64).reshape(-1, 20, 3)
        except OverflowError as error:
            raise BadInput(f"{path}: a coordinate has hundreds of digits; fetch it again") from error
