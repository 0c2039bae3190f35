"""How rare a score is among normal ones, on one scale for scores of any kind."""

from __future__ import annotations

import math

import numpy as np

from companion.detection.thresholds import checked_scores

_TAIL = 0.01
_LEAST = 10


class UpperTail:
    """Scores as levels of rarity: level 3 is reached by one normal in a thousand.

    The level of x is ``-log10(p)``, p the share of normals with a score of x or more, ``(1 + k) / (n + 1)``
    if k of n reach it. Beyond the highest percent there are too few to count, and beyond the highest score
    none; there the tail is taken to be exponential, with the mean excess of that percent. So levels go on
    rising, and the most unusual can still be put in order. What lies beyond is a guess of the shape: 8 need
    not mean one in a hundred million.

    Args:
        normal_scores: (n,) of normals that the detector was not fitted on, in any order.

    Raises:
        ThresholdError: if there are none, or one is not finite.

    Example:
        >>> tail = UpperTail(np.arange(999.0))
        >>> tail.level(np.array([0.0, 900.0])).round(2).tolist()
        [0.0, 1.0]
    """

    def __init__(self, normal_scores: np.ndarray) -> None:
        self.scores = np.sort(checked_scores(normal_scores, "normals"))
        n = len(self.scores)
        above = min(max(_LEAST, round(_TAIL * n)), n // 2)
        self.start = float(self.scores[n - 1 - above])
        excess = self.scores[n - above :] - self.start
        scale = float(excess.mean()) if above else 0.0
        self.scale = scale or float(np.ptp(self.scores)) / 10 or 1.0

    def level(self, scores: np.ndarray) -> np.ndarray:
        """float64 (N,), at least 0, rising with the score."""
        scores = np.asarray(scores, dtype=np.float64)
        n = len(self.scores)
        reach = n - np.searchsorted(self.scores, np.minimum(scores, self.start), side="left")
        levels = math.log10(n + 1) - np.log10(1 + reach)
        beyond = np.maximum(scores - self.start, 0) / (self.scale * math.log(10))
        return np.asarray(levels + beyond)
