"""Thresholds on scores, chosen without a look at the test set.

A score is flagged if it is *above* the threshold: ``score > threshold``. A threshold is therefore always a
score that is itself not flagged.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binomtest


class ThresholdError(ValueError):
    """Scores from which the threshold that was asked for cannot be chosen; the message says what to do."""


def checked_scores(scores: np.ndarray, what: str) -> np.ndarray:
    """Scores as float64 (N,).

    Raises:
        ThresholdError: if there are none, they have more than one axis, or one is NaN or infinite.
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise ThresholdError(f"need the scores of {what}, at least one, as (N,), not {array.shape}")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise ThresholdError(f"{bad} of {len(array)} scores of {what} are NaN or infinite; leave them out")
    return array


def _check_share(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ThresholdError(f"{name} is a share between 0 and 1, not {value}")


def fixed_fpr(normal_scores: np.ndarray, fpr: float) -> float:
    """The lowest threshold that flags a share of at most ``fpr`` of new normals, on average.

    With n scores of normals the j-th largest is taken, j = floor(``fpr`` (n + 1)): if a new normal is
    drawn as these were, its score is above that one with a probability of at most j / (n + 1). (Vovk,
    Gammerman and Shafer 2005, "Algorithmic Learning in a Random World", section 2.2; the plain
    quantile promises too much when n is small.)

    Args:
        normal_scores: (n,) of normals that the detector was not fitted on, in any order.
        fpr: the share, such as 0.01.

    Returns:
        One of the scores.

    Raises:
        ThresholdError: if ``fpr`` is no share, a score is not finite, or there are fewer than
            1 / ``fpr`` - 1 scores: then no threshold can promise so few false alarms.

    Example:
        >>> fixed_fpr(np.arange(99.0), 0.05)  # five of a hundred normals would be above
        94.0
    """
    _check_share(fpr, "fpr")
    scores = checked_scores(normal_scores, "normals")
    allowed = math.floor(fpr * (len(scores) + 1) + 1e-9)
    if allowed < 1:
        raise ThresholdError(
            f"a false-positive rate of {fpr:g} needs at least {math.ceil(1 / fpr - 1e-9) - 1} normals, "
            f"here are {len(scores)}; the lowest rate they can promise is {1 / (len(scores) + 1):.3g}"
        )
    return float(np.sort(scores)[-allowed])


def normal_quantile(normal_scores: np.ndarray, quantile: float = 0.99) -> float:
    """The lowest score that at least a share ``quantile`` of the normals do not exceed.

    The inverse of the empirical distribution (Hyndman and Fan 1996, definition 1), one of the scores. Few
    normals promise little about new ones; :func:`fixed_fpr` takes their number into account.

    Args:
        normal_scores: (n,) of normals that the detector was not fitted on, in any order.
        quantile: a share between 0 and 1.

    Raises:
        ThresholdError: if ``quantile`` is no share, or a score is not finite.
    """
    _check_share(quantile, "quantile")
    return float(np.quantile(checked_scores(normal_scores, "normals"), quantile, method="inverted_cdf"))


def tnr_target(normal_scores: np.ndarray, anomaly_scores: np.ndarray, target: float = 0.95) -> float:
    """Among thresholds with a TNR of at least ``target``, the one with the highest TPR.

    Where several have that TPR, the one among them with the highest TNR, and of these the lowest.

    Args:
        normal_scores: (n,) of normals for choices, in any order.
        anomaly_scores: (m,) of known anomalies.
        target: the least share of the normals that must not be flagged.

    Returns:
        One of the scores.

    Raises:
        ThresholdError: if ``target`` is no share; a score is not finite; there are no normals, or no
            anomalies; or all scores are equal, so that no threshold tells anything apart.

    Example:
        >>> tnr_target(np.array([1.0, 2.0, 3.0, 9.0]), np.array([2.5, 5.0, 8.0]), target=0.75)
        3.0
    """
    _check_share(target, "target")
    if np.size(normal_scores) and not np.size(anomaly_scores):
        raise ThresholdError(
            "there are no anomalies, so every threshold has the same TPR; take fixed_fpr or normal_quantile"
        )
    if np.size(anomaly_scores) and not np.size(normal_scores):
        raise ThresholdError("there are no normals, so the TNR cannot be known; add some")
    normals = np.sort(checked_scores(normal_scores, "normals"))
    anomalies = checked_scores(anomaly_scores, "anomalies")
    if np.ptp(np.concatenate([normals, anomalies])) == 0:
        raise ThresholdError("all scores are equal, so no threshold tells anything apart; mend the detector")
    lowest = normals[math.ceil(target * len(normals) - 1e-9) - 1]  # the first with enough normals up to it
    caught = anomalies[anomalies > lowest]
    below = normals if len(caught) == 0 else normals[normals < caught.min()]
    return float(below[-1])  # as high as possible without losing one that is caught


def flags_too_many(flagged: int, total: int, fpr: float) -> bool:
    """Whether more is flagged than a threshold's false-positive rate explains.

    That is: at least twice the rate, and improbable (below 0.001, one-sided binomial test) if all were normal
    and the rate were exact. Then there are many anomalies, or the data are no longer like those the threshold
    was chosen on, or those were few: of thresholds that 99 normals set for a rate of 0.01, about one in seven
    flags more than 0.02 of all normals.

    Args:
        flagged: how many have a score above the threshold.
        total: of how many.
        fpr: the share of normals that may be flagged.

    Example:
        >>> flags_too_many(5, 200, 0.01), flags_too_many(56, 200, 0.05)
        (False, True)
    """
    if total == 0 or flagged < 2 * fpr * total:
        return False
    return bool(binomtest(flagged, total, fpr, alternative="greater").pvalue < 0.001)
