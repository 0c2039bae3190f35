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


class CombinedTails:
    """Several scores as one level of rarity.

    Each score is turned into its level, and the levels are added, as R. A. Fisher adds the logarithms of
    p-values ("Statistical Methods for Research Workers", 4th edition, 1932, section 21.1): a row that is rare
    in two ways counts for more than one that is rare in one way. The scores need not be independent, for the
    sum is turned into a level once more.

    Args:
        normal_scores: float (n, scores) of normals that the detector was not fitted on.

    Raises:
        ThresholdError: if there are none, or one is not finite.
    """

    def __init__(self, normal_scores: np.ndarray) -> None:
        self.normal_scores = np.asarray(normal_scores, dtype=np.float64)
        self._parts = [UpperTail(column) for column in self.normal_scores.T]
        self._whole = UpperTail(self._sum(self.normal_scores))

    def _sum(self, scores: np.ndarray) -> np.ndarray:
        levels = [tail.level(column) for tail, column in zip(self._parts, scores.T, strict=True)]
        return np.asarray(np.sum(levels, axis=0))

    def level(self, scores: np.ndarray) -> np.ndarray:
        """Levels float64 (N,) of scores (N, scores); 3 is reached by one normal in a thousand."""
        return self._whole.level(self._sum(np.asarray(scores, dtype=np.float64)))
