"""Which numbers of a table were made by another commit than most of it: their encoder, or their result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sweeps.records import Records

MARK = "†"


class Commits:
    """The commits behind a plan's table.

    Args:
        plan: as `sweeps/run.py` left it.
        results: (cell, split, protocol) -> seed -> result.
        records: the runs.

    Attributes:
        usual: the one that most encoders and results were made by, "" where none is known.
        all: every one, in order.
    """

    def __init__(
        self, plan: dict[str, Any], results: Mapping[tuple[str, str, str], Mapping[int, dict]], records: Records
    ):
        encoders = {(w["cell"], w["split"], w["seed"]): records.about(w["pretraining"]) for w in plan["works"]}
        self._made: dict[tuple[str, str, str], set[str]] = {}
        counted: Counter[str] = Counter()
        for (cell, split, protocol), seeds in results.items():
            made = [one for seed, result in seeds.items() for one in (encoders.get((cell, split, seed), {}), result)]
            known = [f"{one['commit']}{'+changes' * bool(one.get('dirty'))}" for one in made if "commit" in one]
            counted.update(known)
            self._made[cell, split, protocol] = set(known)
        self.all = sorted(counted)
        self.usual = counted.most_common(1)[0][0] if counted else ""

    def mark(self, cell: str, split: str, protocol: str) -> str:
        """A dagger, where another commit than the usual one had a hand in this number (of folds: in any of them)."""
        folded = split.endswith(" folds")
        made = [v for (c, s, p), v in self._made.items() if (c, p) == (cell, protocol) and (folded or s == split)]
        return MARK if set().union(*made) - {self.usual} else ""

    def note(self) -> str:
        """What the table says of its commits."""
        if len(self.all) < 2:
            return f"commit {self.usual or 'unknown'}"
        others = ", ".join(commit for commit in self.all if commit != self.usual)
        return f"commit {self.usual}; {MARK} MIXED: the encoder or the result was made by another one ({others})"
