"""What a picture is drawn from: one cell's results by one protocol, with the arrays kept beside them.

What is not there yet is one line that names the command which makes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reports.tables import FLOORS
from skeletons.errors import BadInput, unknown
from sweeps.records import Records

Arguments = dict[str, str]
"""Of the command line: key -> value."""


@dataclass(frozen=True)
class Found:
    """One cell, one split, one protocol.

    Attributes:
        protocol, heading: as the plan and as its tables name it.
        results, arrays: of each seed, in the seeds' order.
    """

    cell: str
    split: str
    protocol: str
    heading: str
    results: list[dict[str, Any]]
    arrays: list[dict[str, np.ndarray]]

    @property
    def name(self) -> str:
        """Of the cell, in words where it is a floor."""
        return FLOORS.get(self.cell, self.cell)

    @property
    def truth(self) -> np.ndarray:
        """int64 (test clip), classes."""
        return self.arrays[0]["truth"]

    @property
    def class_names(self) -> list[str]:
        """Names of the classes."""
        return [str(name) for name in self.arrays[0]["class_names"]]

    @property
    def predicted(self) -> np.ndarray:
        """int64 (draw, test clip): of all seeds, and of all draws of a seed."""
        return np.concatenate([np.atleast_2d(one["predicted"]) for one in self.arrays])

    def first(self) -> Found:
        """Of the first seed alone, for pictures that cannot be averaged."""
        return replace(self, results=self.results[:1], arrays=self.arrays[:1])

    def about(self) -> str:
        """What was judged, for titles."""
        one = self.results[0]
        seeds = f", {len(self.results)} seeds" if len(self.results) > 1 else ""
        return f"{one['data']} {self.split}, {one['train_clips']} training and {one['test_clips']} test clips{seeds}"


def split_in(plan: dict[str, Any], wanted: Arguments) -> str:
    """The split that was asked for, or the plan's first.

    Raises:
        BadInput: the plan has none of this name.
    """
    splits = list(dict.fromkeys(w["split"] for w in plan["works"]))
    if wanted.get("split", splits[0]) not in splits:
        raise unknown("split", wanted["split"], splits)
    return wanted.get("split", splits[0])


def cells_in(plan: dict[str, Any], given: str = "") -> list[str]:
    """The cells that were asked for (`a,b`), or all of the plan's, floors first.

    Raises:
        BadInput: the plan has none of this name.
    """
    cells = list(dict.fromkeys(w["cell"] for w in plan["works"]))
    asked = given.split(",") if given else cells
    for cell in asked:
        if cell not in cells:
            raise unknown("cell", cell, cells)
    return asked


def protocols_in(plan: dict[str, Any]) -> list[str]:
    """All protocols that the plan judges by."""
    return list(dict.fromkeys(p for w in plan["works"] for p in w["judgements"]))


def one_cell(plan: dict[str, Any], wanted: Arguments) -> str:
    """The one cell that was asked for; or the plan's reference, or its first that is no floor."""
    asked = cells_in(plan, wanted.get("cell", ""))
    if "cell" in wanted:
        if len(asked) > 1:
            raise BadInput(f"cell={wanted['cell']}: this picture shows one cell; name one")
        return asked[0]
    ranked = [c for c in asked if c == plan["reference"]] + [c for c in asked if c not in FLOORS] + asked
    return ranked[0]


def judged(
    plan: dict[str, Any], records: Records, cell: str, split: str, protocol: str, wanted: Arguments, needs: str
) -> Found:
    """Results of a protocol on a cell.

    Args:
        protocol: as the plan has it, e.g. "linear native".
        wanted: `seed` chooses one, where it is there.
        needs: an array that must be among those kept.

    Raises:
        BadInput: there are none, or they were kept without that array.
    """
    works = [w for w in plan["works"] if (w["cell"], w["split"]) == (cell, split)]
    if "seed" in wanted and cell != "raw":  # raw coordinates have no seed
        works = [w for w in works if str(w["seed"]) == wanted["seed"]]
        if not works:
            raise unknown("seed", wanted["seed"], {str(w["seed"]) for w in plan["works"]})
    if protocol in protocols_in(plan) and not any(protocol in w["judgements"] for w in works):
        raise BadInput(f"plan {plan['name']} does not judge {cell} on {split} by {protocol}")
    results, arrays = [], []
    for work in works:
        identity = work["judgements"].get(protocol)
        result = records.result(work["pretraining"], identity) if identity else None
        if identity is None or result is None:
            continue
        path = records.arrays_file(work["pretraining"], identity)
        kept = dict(np.load(path, allow_pickle=False)) if path.is_file() else {}
        if needs not in kept:
            raise BadInput(
                f"{path.parent}: kept without {needs!r}, which this picture needs; if an older version wrote it, "
                f"remove that folder and run: {command_for(plan, protocol)}"
            )
        results.append(result)
        arrays.append(kept)
    if not results:
        raise BadInput(f"no {protocol} of {cell} on {split} yet; run: {command_for(plan, protocol)}")
    heading = plan.get("labels", {}).get(protocol, protocol)  # plans of older versions have none
    return Found(cell, split, protocol, heading, results, arrays)


def predictions(plan: dict[str, Any], records: Records, cell: str, wanted: Arguments) -> Found:
    """Results with the class that each test clip was given: by `protocol=`, or by the cell's first that has them."""
    split = split_in(plan, wanted)
    works = [w for w in plan["works"] if (w["cell"], w["split"]) == (cell, split)]
    known = list(dict.fromkeys(p for w in works for p in w["judgements"]))
    if "protocol" in wanted:
        return judged(plan, records, cell, split, wanted["protocol"], wanted, "predicted")
    for protocol in known:
        there = [
            records.result(w["pretraining"], w["judgements"][protocol]) for w in works if protocol in w["judgements"]
        ]
        if any(one and "correct" in one for one in there):
            return judged(plan, records, cell, split, protocol, wanted, "predicted")
    return judged(plan, records, cell, split, known[0] if known else "linear_fast", wanted, "predicted")


def command_for(plan: dict[str, Any], protocol: str) -> str:
    """The command that makes a protocol's results of a plan."""
    if protocol in protocols_in(plan):
        return plan["command"]
    name = protocol.partition(" ")[0]
    other = [
        word for word in plan["command"].split(" ") if word.partition("=")[0] not in ("protocol", "protocol.names")
    ]
    wanted = f"protocol={name}" if ":" not in name else f"protocol.names=[{name}]"
    return " ".join([*other, wanted])
