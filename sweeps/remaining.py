"""When a sweep will be over, from what was seen of its pieces and what was expected of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean


@dataclass
class Seen:
    """What was seen of a piece of work: a training, perhaps, and then its encoder being judged.

    Attributes:
        began: when it started; times are in seconds.
        first, last: times and shares of the training when it was heard of first and last. What was trained before the
            first may have been an earlier command's.
        trains: it was heard of while it trained.
        took: seconds to its end, where it has ended.
        failed: it ended before its time.
    """

    began: float
    first: tuple[float, float] | None = None
    last: tuple[float, float] | None = None
    trains: bool = False
    took: float | None = None
    failed: bool = False

    def step(self, now: float, share: float | None) -> None:
        """Note that it trains, and how much of that is done (None: not known)."""
        self.trains = True
        if share is not None:
            self.last = now, share
            self.first = self.first or self.last

    @property
    def training(self) -> float | None:
        """Seconds of the whole training, by its speed; None where too little was seen."""
        if self.first is None or self.last is None or self.last[1] <= self.first[1]:
            return None
        return (self.last[0] - self.first[0]) / (self.last[1] - self.first[1])

    @property
    def judging(self) -> float | None:
        """Seconds that it was judged for; None where that is not over, or cannot be told apart."""
        if self.took is None or self.failed or (self.trains and self.last is None):
            return None
        return self.took - (self.last[0] - self.began if self.last else 0.0)

    def left(self, whole: float, judging: float, now: float) -> float:
        """Seconds that it still needs, of the `whole` and with so many for judging."""
        heard, share = self.last or (self.began, 0.0)
        training = self.training
        rest = training * (1 - share) + judging if training is not None else whole * (1 - share)
        return max(0.0, rest - (now - heard))


def remaining(
    seen: Mapping[str, Seen], expected: Mapping[str, float | None], total: int, workers: int, now: float
) -> float | None:
    """Seconds until all is done, None as long as there is nothing to tell it by.

    A running piece goes on at its own speed, and is judged as long as others were. One that has not begun takes what it
    is expected to, as much slower or faster as the others turned out; or, where nothing like it was ever run, as long
    as other trainings.

    Args:
        seen: by the keys of pieces.
        expected: key -> seconds, or None where nothing like it was ever run.
        total: pieces; some may be in neither.
    """
    judging = max((j for piece in seen.values() if (j := piece.judging) is not None), default=0.0)
    whole = {key: seconds for key, piece in seen.items() if (seconds := _whole(piece, judging)) is not None}
    foretold = {key: seconds for key in whole if (seconds := expected.get(key))}
    pace = sum(whole[key] for key in foretold) / sum(foretold.values()) if foretold else 1.0
    trainings = [seconds for key, seconds in whole.items() if seen[key].trains and expected.get(key) is None]
    keys = [*dict.fromkeys([*expected, *seen])]
    left = []
    for key in [*keys, *[""] * (total - len(keys))]:
        piece, seconds = seen.get(key), expected.get(key)
        if piece is not None and piece.took is not None:
            continue
        if key in whole:
            takes = whole[key]
        elif seconds is not None:
            takes = max(seconds * pace, judging)
        elif trainings:
            takes = mean(trainings)
        else:
            return None
        left.append(takes if piece is None else piece.left(takes, judging, now))
    return max([sum(left) / workers, *left], default=0.0)


def _whole(piece: Seen, judging: float) -> float | None:
    """Seconds of all of a piece's work, by what was seen of it."""
    if piece.failed:
        return None
    by_speed = piece.training + judging if piece.training is not None else 0.0
    return max(piece.took or 0.0, by_speed) or None
