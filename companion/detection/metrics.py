"""How well scores tell anomalies from normals, with intervals.

Labels are 1 (or true) for anomalies and 0 for normals. A score is flagged if it is *above* the threshold.

Whether two sets of vectors come from one distribution, asked of a classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from companion.detection.vectors import VectorError

Metric = Callable[[np.ndarray, np.ndarray], float]
"""From labels (N,) and scores (N,) to a number."""


@dataclass(frozen=True)
class Estimate:
    """A number with an interval.

    Attributes:
        value: the estimate.
        low: the lower end of the interval.
        high: the upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    """A share with its Wilson score interval (Wilson 1927), which stays inside 0 and 1.

    Raises:
        ValueError: if there are no trials, or more successes than trials.

    Example:
        >>> print(wilson(9, 10))
        0.900 [0.596, 0.982]
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"need 0 <= successes <= trials and a trial, not {successes} of {trials}")
    interval = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    # SciPy leaves 1e-17 or so where the end is exactly 0 or 1
    low = 0.0 if successes == 0 else float(interval.low)
    high = 1.0 if successes == trials else float(interval.high)
    return Estimate(successes / trials, low, high)


@dataclass(frozen=True)
class Confusion:
    """The four counts at one threshold.

    Attributes:
        tp: anomalies that were flagged.
        fp: normals that were flagged.
        tn: normals that were not.
        fn: anomalies that were not.
    """

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def tpr(self) -> Estimate:
        """The share of anomalies that were flagged (recall), with its Wilson interval."""
        return wilson(self.tp, self.tp + self.fn)

    @property
    def tnr(self) -> Estimate:
        """The share of normals that were not flagged, with its Wilson interval."""
        return wilson(self.tn, self.tn + self.fp)

    @property
    def fpr(self) -> Estimate:
        """The share of normals that were flagged, with its Wilson interval."""
        return wilson(self.fp, self.tn + self.fp)


def checked(labels: np.ndarray, scores: np.ndarray, both: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool (N,) and scores as float64 (N,).

    Raises:
        ValueError: if the shapes differ or have not one axis, a label is not 0 or 1, a score is NaN, or (if
            ``both``) one of the two labels does not occur.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"need labels and scores (N,), not {labels.shape} and {scores.shape}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels are 0 for normal and 1 for anomalous")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} scores are NaN; leave them out, and say how many")
    labels = labels.astype(bool)
    if both and (labels.all() or not labels.any()):
        raise ValueError("need normals and anomalies; with one of them alone nothing can be ranked")
    return labels, scores


def confusion(labels: np.ndarray, scores: np.ndarray, threshold: float) -> Confusion:
    """The four counts with ``scores > threshold`` flagged.

    Raises:
        ValueError: see :func:`checked`; one kind alone is fine here.
    """
    labels, scores = checked(labels, scores, both=False)
    flagged = scores > threshold
    return Confusion(
        tp=int((flagged & labels).sum()),
        fp=int((flagged & ~labels).sum()),
        tn=int((~flagged & ~labels).sum()),
        fn=int((~flagged & labels).sum()),
    )


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The probability that an anomaly scores above a normal, ties counting half.

    Raises:
        ValueError: see :func:`checked`.
    """
    return float(roc_auc_score(*checked(labels, scores)))


def pr_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average precision, the area under the precision-recall curve as steps.

    It depends on the share of anomalies, which is what a detector without skill would reach.

    Raises:
        ValueError: see :func:`checked`.
    """
    return float(average_precision_score(*checked(labels, scores)))


def recall_at_fpr(labels: np.ndarray, scores: np.ndarray, fpr: float) -> float:
    """The highest share of flagged anomalies among thresholds that flag at most ``fpr`` of the normals.

    The threshold is chosen on these very scores, so this tells what a score *can* do; what a threshold does
    that was chosen beforehand, :func:`confusion` tells.

    Raises:
        ValueError: see :func:`checked`; or ``fpr`` is not from 0 to 1.
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr is a share from 0 to 1, not {fpr}")
    rates, recalls, _ = roc_curve(*checked(labels, scores), drop_intermediate=False)
    return float(recalls[rates <= fpr + 1e-12].max())


def roc_points(labels: np.ndarray, scores: np.ndarray, fprs: Sequence[float] | np.ndarray) -> list[float]:
    """The highest recall at each of the false-positive rates: a short ROC curve, see :func:`recall_at_fpr`.

    Raises:
        ValueError: see :func:`recall_at_fpr`.
    """
    return [recall_at_fpr(labels, scores, float(fpr)) for fpr in fprs]


def _interval(values: list[float], value: float, confidence: float) -> Estimate:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high))


def _samples(
    labels: np.ndarray, groups: np.ndarray | None, repeats: int, confidence: float, seed: int
) -> Iterator[np.ndarray]:
    """Rows of resampled normals and of resampled anomalies, as many of each, or of their groups."""
    if repeats < 1 or not 0 < confidence < 1:
        raise ValueError(f"need at least one repeat and 0 < confidence < 1, not {repeats}, {confidence}")
    if groups is not None and len(groups) != len(labels):
        raise ValueError(f"{len(labels)} labels need as many groups, not {len(groups)}")
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(labels == kind) for kind in (False, True)]
    clusters = [
        [rows[codes == code] for code in range(codes.max() + 1)]
        for rows in (kinds if groups is not None else ())
        for codes in [np.unique(np.asarray(groups)[rows], return_inverse=True)[1]]
    ]
    for _ in range(repeats):
        if groups is None:
            yield np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])
        else:
            drawn = [[parts[i] for i in rng.integers(0, len(parts), len(parts))] for parts in clusters]
            yield np.concatenate([rows for parts in drawn for rows in parts])


def bootstrap(
    metric: Metric,
    labels: np.ndarray,
    scores: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    repeats: int = 500,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A metric with its percentile interval over resampled normals and resampled anomalies.

    Both kinds are resampled by themselves, so that each sample has as many of each as the original (Efron and
    Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13).

    Args:
        metric: such as :func:`roc_auc`.
        labels: (N,).
        scores: (N,).
        groups: (N,), such as the session or the incident of each row. Rows of one group resemble each other,
            so whole groups are resampled; rows taken for independent would make the interval too narrow.
        repeats: how many samples.
        confidence: the share of samples that the interval holds.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: see :func:`checked`; or ``repeats`` or ``confidence`` is out of range.
    """
    labels, scores = checked(labels, scores)
    samples = _samples(labels, groups, repeats, confidence, seed)
    values = [metric(labels[rows], scores[rows]) for rows in samples]
    return _interval(values, metric(labels, scores), confidence)


def bootstrap_difference(
    metric: Metric,
    labels: np.ndarray,
    scores: np.ndarray,
    others: np.ndarray,
    *,
    repeats: int = 500,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """By how much one detector's metric exceeds another's on the same windows, with its interval.

    Both are measured on the same samples. What makes a sample hard for both cancels, so this interval may
    exclude 0 where the two intervals of :func:`bootstrap` overlap.

    Args:
        metric: such as :func:`roc_auc`.
        labels: (N,).
        scores: (N,), of the one detector.
        others: (N,), of the other.
        repeats: see :func:`bootstrap`.
        confidence: likewise.
        seed: likewise.

    Raises:
        ValueError: see :func:`bootstrap`.
    """
    labels, scores = checked(labels, scores)
    _, others = checked(labels, others)

    def difference(rows: np.ndarray) -> float:
        return metric(labels[rows], scores[rows]) - metric(labels[rows], others[rows])

    values = [difference(rows) for rows in _samples(labels, None, repeats, confidence, seed)]
    return _interval(values, difference(np.arange(len(labels))), confidence)


def two_sample(
    first: np.ndarray, second: np.ndarray, *, components: int = 32, folds: int = 5, seed: int = 0
) -> tuple[float, np.ndarray]:
    """Train a classifier to tell two sets apart, and judge it on rows that it has not seen.

    If it cannot, the sets may come from one distribution; if it can, they do not. The classifier is a
    logistic regression on principal components, cross-validated.

    Source: Lopez-Paz and Oquab 2017, "Revisiting Classifier Two-Sample Tests", with the area under the ROC
    curve in the place of the accuracy.

    Args:
        first: (N, d), such as training data.
        second: (M, d), such as data from later.
        components: principal components of both sets together; fewer if there are fewer rows or columns.
        folds: of the cross-validation.
        seed: of the folds and of the components.

    Returns:
        The area, 0.5 if the sets cannot be told apart and 1 if they can at every threshold, and float64
        (M,), how unlike the first set each row of the second is.

    Raises:
        VectorError: if the sets have not the same columns, hold NaN or infinity, or have fewer rows than
            there are folds.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> area, _ = two_sample(rng.normal(size=(60, 3)), rng.normal(2, size=(60, 3)))
        >>> area > 0.95
        True
    """
    first, second = (np.asarray(rows, dtype=np.float64) for rows in (first, second))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or not first.shape[1]:
        raise VectorError(f"need rows (N, d) and (M, d), not {first.shape} and {second.shape}")
    if min(len(first), len(second)) < folds:
        raise VectorError(
            f"{folds} folds need as many rows of either set, here are {len(first)} and {len(second)}"
        )
    rows = np.concatenate([first, second])
    if not np.isfinite(rows).all():
        raise VectorError("some rows hold NaN or infinity; leave them out")
    if not np.ptp(rows, axis=0).any():
        return 0.5, np.zeros(len(second))  # all rows are equal
    labels = np.repeat([0, 1], [len(first), len(second)])
    least = len(rows) - -(-len(rows) // folds)  # rows in the smallest training fold
    pca = PCA(min(components, rows.shape[1], least), svd_solver="randomized", random_state=seed)
    classifier = make_pipeline(pca, StandardScaler(), LogisticRegression(max_iter=1000))
    order = StratifiedKFold(folds, shuffle=True, random_state=seed)
    scores = cross_val_predict(classifier, rows, labels, cv=order, method="decision_function")
    return roc_auc(labels, scores), np.asarray(scores[len(first) :], dtype=np.float64)
