"""What pictures across cells are drawn from: every cell's results by one protocol on one split, seeds together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reports.chosen import Arguments, cells_in, command_for, split_in
from reports.intervals import Estimate, difference, estimate, scores
from reports.tables import FLOORS, Results, cell_of, folds_together, results_of
from skeletons.errors import BadInput, unknown
from sweeps.records import Records

BY_SEED = dict[int, dict[str, Any]]


@dataclass(frozen=True)
class Compared:
    """One protocol on one split.

    Attributes:
        protocol, heading: as the plan and as its tables name it.
        cells: cell -> seed -> result, in the plan's order; those that have results.
    """

    plan: dict[str, Any]
    protocol: str
    heading: str
    split: str
    cells: dict[str, BY_SEED]

    def estimate(self, cell: str) -> Estimate:
        """Accuracy in percent, and how sure it is."""
        return estimate([scores(result) for result in self.cells[cell].values()])

    def difference(self, cell: str, other: str) -> Estimate | None:
        """Paired difference to another cell; raw coordinates, which have no seed, to each of the other's."""
        these, those = self.cells[cell], self.cells[other]
        if cell_of(cell) == "raw":
            these = dict.fromkeys(those, these[min(these)])
        return difference(these, those)

    def about(self) -> str:
        """What was judged, for titles."""
        some = next(
            r for c, by in self.cells.items() if cell_of(c) != "raw" or len(self.cells) == 1 for r in by.values()
        )
        seeds = max(len(by) for by in self.cells.values())
        clips = f"{some['test_clips']} test clips"
        how = f"{seeds} seeds, t-intervals over them" if seeds >= 3 else f"{clips}, bootstrap over them"
        if 1 < seeds < 3:
            how = f"{seeds} seeds, {how}"
        if "correct" not in some:
            how = clips
        where, source = f"{some['data']} {some['split']}", some.get("trained_on", some["data"])
        where += f", trained on {source}" if source != some["data"] else ""
        return f"measured on {where}, scale {self.plan['scale']}: {self.heading}; {how} (95 %)"


def span(one: Estimate) -> tuple[float, float]:
    """Ends of an interval; the mean twice, where there is none."""
    return (one.mean, one.mean) if one.how == "none" else (one.low, one.high)


def is_floor(cell: str) -> bool:
    """It is one of the floors, or a stream of one."""
    return cell_of(cell) in FLOORS


def name_of(cell: str) -> str:
    """Of a cell, in words where it is a floor."""
    return cell.replace(cell_of(cell), FLOORS[cell_of(cell)]) if is_floor(cell) else cell


def all_results(plan: dict[str, Any], records: Records, wanted: Arguments) -> tuple[Results, str]:
    """Every result of the split that was asked for, or of the plan's first one (all folds, where they are folds).

    Raises:
        BadInput: an unknown split or seed.
    """
    found = results_of(plan, records)
    if "seed" in wanted:
        if wanted["seed"] not in (known := {str(w["seed"]) for w in plan["works"]}):
            raise unknown("seed", wanted["seed"], known)
        found = {
            k: {s: r for s, r in by.items() if str(s) == wanted["seed"] or cell_of(k[0]) == "raw"}
            for k, by in found.items()
        }
    if "split" not in wanted:
        found, splits = folds_together(found, list(dict.fromkeys(w["split"] for w in plan["works"])))
        return found, splits[0]
    return found, split_in(plan, wanted)


def compared(plan: dict[str, Any], records: Records, wanted: Arguments) -> Compared:
    """Results of `protocol=`, or of the plan's first protocol that has any.

    Args:
        wanted: `cell` (several: `a,b`; all by default), `protocol`, `split`, `seed`, where the command line has them.

    Raises:
        BadInput: there are none.
    """
    cells, (found, split) = cells_in(plan, wanted.get("cell", "")), all_results(plan, records, wanted)
    fullest = sorted(plan["works"], key=lambda w: -len(w["judgements"]))
    asked = (
        [wanted["protocol"]]
        if "protocol" in wanted
        else list(dict.fromkeys(p for w in fullest for p in w["judgements"]))
    )
    for protocol in asked:
        there = {c: found[c, split, protocol] for c in cells if found.get((c, split, protocol))}
        if there:
            return Compared(plan, protocol, plan.get("labels", {}).get(protocol, protocol), split, there)
    protocol = asked[0] if asked else "linear_fast"
    which = f" of {wanted['cell']}" if "cell" in wanted else ""
    raise BadInput(f"no {protocol}{which} on {split} yet; run: {command_for(plan, protocol)}")


def left_out(plan: dict[str, Any], there: Compared, wanted: Arguments) -> None:
    """Say which cells have no result.

    Raises:
        BadInput: one of them was asked for.
    """
    judged = {w["cell"] for w in plan["works"] if there.protocol in w["judgements"]}
    for cell in cells_in(plan, wanted.get("cell", "")):
        if cell in there.cells:
            continue
        line = f"no {there.protocol} of {cell} on {there.split} yet; run: {command_for(plan, there.protocol)}"
        if "cell" in wanted:
            raise BadInput(line)
        if cell in judged:
            print(f"left out: {line}")
