"""How sure a number is.

With at least three seeds: Student's t over seeds. With fewer: the bootstrap over test clips, which says how much the
choice of clips matters and nothing of the seed; it is labelled as such. Predictions are right or wrong, or right in a
share of a few draws, so the bootstrap's distribution is a multinomial and is drawn from directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LEVEL = 0.95
DRAWS = 20_000


@dataclass(frozen=True)
class Estimate:
    """A mean in percent with its 95 % interval; `how` is "seeds", "clips", or "none" where there is no interval."""

    mean: float
    low: float
    high: float
    how: str
    seeds: int

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    def excludes_zero(self) -> bool:
        """The interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def scores(result: dict) -> np.ndarray:
    """(test clip), the share of a result's draws in which its prediction is right (0 or 1 where there is one draw); or
    its one value, where it is no share of clips."""
    if "correct" not in result:
        return np.array([result["value"] / 100])
    draws = [np.frombuffer(draw.encode(), np.uint8) for draw in result["correct"]]
    return np.mean(draws, axis=0) - ord("0")


def estimate(values: Sequence[np.ndarray]) -> Estimate:
    """Mean of per-clip scores (in [-1, 1], of few values) and its interval.

    Args:
        values: one array (test clip) for each seed: right or wrong, or the difference of two such.
    """
    means = np.array([100 * v.mean() for v in values])
    mean, count = float(means.mean()), len(values)
    if count >= 3:
        from scipy.stats import t

        half = float(t.ppf((1 + LEVEL) / 2, count - 1) * means.std(ddof=1) / np.sqrt(count))
        return Estimate(mean, mean - half, mean + half, "seeds", count)
    if len(values[0]) == 1:
        return Estimate(mean, np.nan, np.nan, "none", count)
    levels, counts = np.unique(np.concatenate(list(values)), return_counts=True)
    low, high = _bootstrap(tuple(levels.tolist()), tuple(counts.tolist()), len(values[0]))
    return Estimate(mean, low, high, "clips", count)


@lru_cache(maxsize=10_000)
def _bootstrap(levels: tuple[float, ...], counts: tuple[int, ...], clips: int) -> tuple[float, float]:
    """The interval of a mean of `clips` scores; the same number stands in many tables of a report.

    Where all clips score alike, resampling them says nothing: then so many others may score otherwise as never showing
    up among these has a probability of 2.5 % (Clopper and Pearson, 1934).
    """
    if len(levels) == 1:
        reach, at = 100 * (1 - ((1 - LEVEL) / 2) ** (1 / clips)), 100 * levels[0]
        return max(-100.0, at - reach), min(100.0, at + reach)
    shares = np.array(counts) / sum(counts)
    drawn = np.random.default_rng(0).multinomial(clips, shares, DRAWS) @ np.array(levels) * 100 / clips
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def difference(these: dict[int, dict], those: dict[int, dict]) -> Estimate | None:
    """Paired difference of two cells' results, seed by seed and clip by clip; None where no seed is shared.

    Args:
        these, those: seed -> result.
    """
    shared = sorted(these.keys() & those.keys())
    return estimate([scores(these[s]) - scores(those[s]) for s in shared]) if shared else None
