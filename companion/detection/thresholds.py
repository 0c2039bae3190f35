"""Thresholds on scores, chosen without a look at the test set; how rare a score is.

What is flagged is *above* the threshold, which is therefore always a score that is itself not flagged.
"""

import math
from typing import Any

import numpy as np

from companion.detection.metrics import check_scores


def _check(scores: Any, what: str, share: float | None = None) -> np.ndarray:
    array = check_scores(scores, f"scores of {what}")
    if len(array) == 0:
        raise ValueError(f"there are no {what}, and at least one is needed")
    if share is not None and not 0 < share < 1:
        raise ValueError(f"need a share between 0 and 1, not {share}")
    return array


def fixed_fpr(normal_scores: np.ndarray, fpr: float) -> float:
    """The lowest threshold that flags a share of at most ``fpr`` of new normals, on average.

    With n scores of normals the j-th largest is taken, j = floor(``fpr`` (n + 1)): if a new normal is
    drawn as these were, its score is above that one with a probability of at most j / (n + 1). (Vovk,
    Gammerman and Shafer 2005, "Algorithmic Learning in a Random World", section 2.2; the plain
    quantile promises too much when n is small.) The scores (n,) are of normals that the detector was not
    fitted on; with fewer than 1 / ``fpr`` - 1 of them no threshold can promise so few false alarms.
    """
    scores = _check(normal_scores, "normals", fpr)
    allowed = math.floor(fpr * (len(scores) + 1) + 1e-9)
    if allowed < 1:
        least = math.ceil(1 / fpr - 1e-9) - 1
        raise ValueError(f"a rate of {fpr:g} needs at least {least} normals, here are {len(scores)}")
    return float(np.sort(scores)[-allowed])


def tnr_target(normal_scores: np.ndarray, anomaly_scores: np.ndarray, target: float = 0.95) -> float:
    """Among thresholds with a TNR of at least ``target``, the one with the highest TPR.

    Where several have that TPR, the one among them with the highest TNR, and of these the lowest. The scores
    are those of normals (n,) that the detector was not fitted on, and of known anomalies (m,).

    Example:
        >>> tnr_target(np.array([1.0, 2.0, 3.0, 9.0]), np.array([2.5, 5.0, 8.0]), target=0.75)
        3.0
    """
    normals = np.sort(_check(normal_scores, "normals", target))
    anomalies = _check(anomaly_scores, "anomalies")
    if np.ptp(np.concatenate([normals, anomalies])) == 0:
        raise ValueError("all scores are equal, so no threshold tells anything apart; mend the detector")
    lowest = normals[math.ceil(target * len(normals) - 1e-9) - 1]  # the first with enough normals up to it
    caught = anomalies[anomalies > lowest]
    below = normals if len(caught) == 0 else normals[normals < caught.min()]
    return float(below[-1])  # as high as possible without losing one that is caught


class EmpiricalTail:
    """Scores as ``-log10(p)`` of their empirical p-values: 3 is reached by one normal in a thousand.

    p is the share of normals with a score of x or more, ``(1 + k) / (n + 1)`` if k of n reach it. Beyond the
    highest percent there are too few to count; there the tail is taken to be exponential, with the mean
    excess of that percent. So levels go on rising, but are a guess: 8 need not mean one in a hundred million.
    The normals (n,) are others than those that the detector was fitted on.
    """

    def __init__(self, normal_scores: np.ndarray) -> None:
        self.scores = np.sort(_check(normal_scores, "normals"))
        n = len(self.scores)
        above = min(max(10, round(0.01 * n)), n // 2)
        self.start = float(self.scores[n - 1 - above])
        excess = self.scores[n - above :] - self.start
        scale = float(excess.mean()) if above else 0.0
        self.scale = scale or float(np.ptp(self.scores)) / 10 or 1.0

    def level(self, scores: np.ndarray) -> np.ndarray:
        """float64 (N,), at least 0, rising with the score."""
        scores, n = check_scores(scores), len(self.scores)
        reach = n - np.searchsorted(self.scores, np.minimum(scores, self.start), side="left")
        levels = math.log10(n + 1) - np.log10(1 + reach)
        beyond = np.maximum(scores - self.start, 0) / (self.scale * math.log(10))
        return np.asarray(levels + beyond)

    def supported(self, scores: np.ndarray) -> np.ndarray:
        """The level as far as n normals support it: at most ``log10(n + 1) + 0.01``, in the same order."""
        levels, most = self.level(scores), math.log10(len(self.scores) + 1)
        excess = np.maximum(levels - most, 0)
        return np.asarray(np.minimum(levels, most) + 0.01 * excess / (1 + excess))


class FisherTail:
    """Several scores as one level of rarity.

    The levels of the scores (n, scores) are added, as R. A. Fisher adds the logarithms of p-values
    ("Statistical Methods for Research Workers", 4th edition, 1932, section 21.1). They need not be
    independent, for the sum is turned into a level once more. One score adds no more than n normals can
    support, or one with a heavy tail, such as a rate, would outvote all others. With ``rows`` (k,) the scales
    of the single scores are taken from these rows alone, such as all but the most unusual.
    """

    def __init__(self, normal_scores: np.ndarray, rows: np.ndarray | None = None) -> None:
        scores = np.asarray(normal_scores, dtype=np.float64)
        self._parts = [EmpiricalTail(column) for column in (scores if rows is None else scores[rows]).T]
        self._whole = EmpiricalTail(self._sum(scores))

    def _sum(self, scores: np.ndarray) -> np.ndarray:
        levels = [tail.supported(column) for tail, column in zip(self._parts, scores.T, strict=True)]
        return np.asarray(np.sum(levels, axis=0))

    def level(self, scores: np.ndarray) -> np.ndarray:
        """Levels float64 (N,) of scores (N, scores); 3 is reached by one normal in a thousand."""
        return self._whole.level(self._sum(np.asarray(scores)))
