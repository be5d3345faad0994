"""When a sweep will be over, from what was seen of its pieces and what was expected of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean

TRAINING = 0.95
"""Share of a piece's time that is training: what follows is short."""


@dataclass
class Seen:
    """What was seen of a piece of work.

    Attributes:
        began: when it started; times are in seconds.
        first, last: times and shares of the work done when it was heard of first and last. What it did before the first
            may have been done by an earlier command.
        took: seconds to its end, where it has ended.
        failed: it ended before its time.
    """

    began: float
    first: tuple[float, float] | None = None
    last: tuple[float, float] | None = None
    took: float | None = None
    failed: bool = False

    def step(self, now: float, share: float) -> None:
        """Note that this share of the training is done."""
        self.last = now, TRAINING * share
        self.first = self.first or self.last

    @property
    def whole(self) -> float | None:
        """Seconds of all its work; None where too little was seen."""
        speed = 0.0
        if self.first and self.last and self.last[1] > self.first[1]:
            speed = (self.last[0] - self.first[0]) / (self.last[1] - self.first[1])
        return None if self.failed else max(self.took or 0.0, speed) or None

    def left(self, whole: float, now: float) -> float:
        """Seconds of the `whole` that it still needs."""
        heard, share = self.last or (self.began, 0.0)
        return max(0.0, whole * (1 - share) - (now - heard))


def remaining(
    seen: Mapping[str, Seen], expected: Mapping[str, float | None], total: int, workers: int, now: float
) -> float | None:
    """Seconds until all is done, None as long as there is nothing to tell it by.

    A running piece goes on at its own speed. One that has not begun takes what it is expected to, as much slower or
    faster as the others turned out; or, where nothing like it was ever run, as long as others of that kind.

    Args:
        seen: by the keys of pieces.
        expected: key -> seconds, or None where nothing like it was ever run.
        total: pieces; some may be in neither.
    """
    whole = {key: seconds for key, piece in seen.items() if (seconds := piece.whole) is not None}
    foretold = {key: seconds for key in whole if (seconds := expected.get(key))}
    pace = sum(whole[key] for key in foretold) / sum(foretold.values()) if foretold else 1.0
    new = [seconds for key, seconds in whole.items() if expected.get(key) is None]
    keys = [*dict.fromkeys([*expected, *seen])]
    left = []
    for key in [*keys, *[""] * (total - len(keys))]:
        piece, seconds = seen.get(key), expected.get(key)
        if piece is not None and piece.took is not None:
            continue
        takes = whole.get(key, mean(new) if new and seconds is None else seconds and seconds * pace)
        if takes is None:
            return None
        left.append(takes if piece is None else piece.left(takes, now))
    return max([sum(left) / workers, *left], default=0.0)
