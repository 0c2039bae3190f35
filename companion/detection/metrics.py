"""How well scores tell anomalies (label 1) from normals (0), and when one model is better than another."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Metric = Callable[[np.ndarray, np.ndarray], float]  # from labels (N,) and scores (N,)


def check_scores(scores: Any, what: str = "scores", axes: int = 1) -> np.ndarray:
    """Scores as float64 (N,), or rows as floats (N, d): the one border that NaN cannot pass."""
    if np.ma.is_masked(scores):
        raise ValueError(f"some {what} are masked; leave them out, and say how many")
    array = np.asarray(scores)
    if array.size and array.dtype.kind not in "biuf":
        raise ValueError(f"{what} are real numbers, not {array.dtype}")
    if array.ndim != axes:
        raise ValueError(f"{what} have the shape {'(N,)' if axes == 1 else '(N, d)'}, not {array.shape}")
    if axes == 1 or array.dtype != np.float32:
        array = array.astype(np.float64)
    bad = int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).sum()) if array.size else 0
    if bad:
        raise ValueError(f"{bad} of {len(array)} {what} are NaN or infinite; leave them out")
    return array


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def with_ends(name: str, estimate: Estimate) -> dict[str, float]:
    """An estimate as the metric ``name``, and the ends of its interval with ``_low`` and ``_high``."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def wilson(successes: int, trials: int) -> Estimate:
    """A share with its 95 % Wilson score interval (Wilson 1927), which stays inside 0 and 1."""
    found = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    low = 0.0 if successes == 0 else float(found.low)  # SciPy leaves 1e-17 or so
    return Estimate(successes / trials, low, 1.0 if successes == trials else float(found.high))


class Confusion(NamedTuple):
    """What a threshold does, as shares with Wilson intervals."""

    tpr: Estimate  #: the share of anomalies that were flagged: recall
    tnr: Estimate  #: the share of normals that were not flagged


def check_labels(labels: Any, scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool (N,), of which there must be both, and scores as float64 (N,)."""
    labels, scores = np.asarray(labels), check_scores(scores)
    if labels.shape != scores.shape or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"need a label of 0 or 1 for each of {len(scores)} scores, not {labels.shape}")
    labels = labels.astype(bool)
    if labels.all() or not labels.any():
        raise ValueError("need normals and anomalies; with one of them alone nothing can be ranked")
    return labels, scores


def confusion(labels: np.ndarray, scores: np.ndarray, threshold: float) -> Confusion:
    """What flagging ``scores > threshold`` finds and spares; there must be both labels."""
    labels, scores = check_labels(labels, scores)
    check_scores([threshold], "thresholds")
    right = (scores > threshold) == labels
    return Confusion(*(wilson(int(right[kind].sum()), int(kind.sum())) for kind in (labels, ~labels)))


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The probability that an anomaly scores above a normal, ties counting half."""
    return float(roc_auc_score(*check_labels(labels, scores)))


def pr_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average precision; a detector without skill would reach the share of anomalies."""
    return float(average_precision_score(*check_labels(labels, scores)))


def vus_pr(labels: np.ndarray, scores: np.ndarray, window: int) -> float:
    """The volume under the precision-recall surface of a series (T,), for faults that last.

    Around each fault the label falls from 1 to the root of a half within w / 2 samples, so that an alarm a
    little too early or late counts; recall is multiplied by the share of faults of which anything was found;
    and the area is averaged over all w from 0 to ``window`` (Paparrizos et al. 2022, "Volume Under the
    Surface", section 4; 250 thresholds as in its library ``vus``).
    """
    labels, scores = check_labels(labels, scores)
    order = np.argsort(-scores, kind="stable")
    falling = scores[order][np.linspace(0, len(scores) - 1, 250).astype(int)]
    counts = np.searchsorted(-scores[order], -falling, side="right")  # how many reach each threshold
    edges = np.flatnonzero(np.diff(np.concatenate([[0], labels, [0]])))
    place, areas = np.arange(len(labels)), []
    for width in range(window + 1):
        soft = labels.astype(float)
        for start, end in edges.reshape(-1, 2):
            away = np.maximum(start - place, place - end + 1)
            near = (away > 0) & (away <= width // 2)
            soft[near] += np.sqrt(1 - away[near] / width)
        soft = np.minimum(soft, 1)
        begins = np.flatnonzero(np.diff(np.concatenate([[0], soft > 0])) == 1)
        highest = np.maximum.reduceat(np.where(soft > 0, scores, -np.inf), begins)
        found = (highest >= falling[:, None]).mean(axis=1)
        hits = np.cumsum(soft[order])[counts - 1]
        recall = np.minimum(2 * hits / (labels.sum() + soft.sum()), 1) * found
        areas.append(np.trapezoid(np.append(1, hits / counts), np.append(0, recall)))
    return float(np.mean(areas))


def recall_at_fpr(labels: np.ndarray, scores: np.ndarray, fpr: float) -> float:
    """The highest recall of a threshold that flags at most ``fpr`` of the normals: what a score *can* do."""
    return roc_points(labels, scores, [fpr])[0]


def roc_points(labels: np.ndarray, scores: np.ndarray, fprs: Sequence[float] | np.ndarray) -> list[float]:
    """The highest recall at each of the false-positive rates: a short ROC curve."""
    rates, recalls, _ = roc_curve(*check_labels(labels, scores), drop_intermediate=False)
    return [float(recalls[rates <= fpr + 1e-12].max()) for fpr in fprs]


def _samples(labels: np.ndarray, groups: Any, repeats: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of resampled normals and of resampled anomalies, as many of each, or of their groups."""
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(labels == kind) for kind in (False, True)]
    clusters = [
        np.split(rows[np.argsort(codes, kind="stable")], np.cumsum(np.bincount(codes))[:-1])
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
    metric: Metric, labels: np.ndarray, scores: np.ndarray, *, others: np.ndarray | None = None,
    groups: np.ndarray | None = None, repeats: int = 500, seed: int = 0,
) -> Estimate:  # fmt: skip
    """A metric with its 95 % percentile interval over resampled normals and resampled anomalies.

    Both kinds are resampled by themselves, as many of each as the original has (Efron and Tibshirani 1993,
    "An Introduction to the Bootstrap", chapter 13). With ``others`` (N,), scores of another detector, the
    estimate is of what the metric gains over them, on the same samples: what makes a sample hard for both
    cancels. With ``groups`` (N,), such as the incident of each row, whole groups are resampled: rows of one
    group resemble each other, and taken for independent they would make the interval too narrow.
    """
    labels, scores = check_labels(labels, scores)
    if others is not None:
        others = check_labels(labels, others)[1]

    def measure(rows: np.ndarray) -> float:
        value = metric(labels[rows], scores[rows])
        return value if others is None else value - metric(labels[rows], others[rows])

    values = [measure(rows) for rows in _samples(labels, groups, repeats, seed)]
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(measure(np.arange(len(labels))), float(low), float(high))


def two_sample(first: np.ndarray, second: np.ndarray) -> tuple[float, np.ndarray]:
    """Train a classifier to tell two sets (N, d) and (M, d) apart, judged on rows that it has not seen.

    The classifier is a logistic regression on principal components, cross-validated (Lopez-Paz and Oquab
    2017, "Revisiting Classifier Two-Sample Tests"). Gives the area under its ROC curve, 0.5 if the sets
    cannot be told apart and may come from one distribution, and float64 (M,), how unlike the first set each
    row of the second is.
    """
    rows = np.concatenate([check_scores(part, "rows", axes=2) for part in (first, second)]).astype(np.float64)
    if not np.ptp(rows, axis=0).any():
        return 0.5, np.zeros(len(second))  # all rows are equal
    labels = np.repeat([0, 1], [len(first), len(second)])
    least = len(rows) - -(-len(rows) // 5)  # rows in the smallest training fold
    pca = PCA(min(32, rows.shape[1], least), svd_solver="randomized", random_state=0)
    classifier = make_pipeline(pca, StandardScaler(), LogisticRegression(max_iter=1000))
    order = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = cross_val_predict(classifier, rows, labels, cv=order, method="decision_function")
    return roc_auc(labels, scores), np.asarray(scores[len(first) :], dtype=np.float64)


class Comparison(NamedTuple):
    """What paired differences over seeds say of two models."""

    gain: Estimate  #: their mean with its 95 % interval (Student's t)
    p: float  #: two-sided, of the paired t-test, after Holm's correction; 1 with fewer than five seeds

    def __str__(self) -> str:
        if self.p >= 0.05:
            return "not clearly different"
        return "better" if self.gain.value > 0 else "worse"


def compare(gains: Sequence[Any]) -> list[Comparison]:
    """The one rule of verdicts, for all comparisons of one table at once.

    "Better" needs at least five seeds and an interval of the mean difference on one side of zero. With more
    than five comparisons one of them would soon be "better" by chance, so the p-values are corrected (Holm
    1979, "A Simple Sequentially Rejective Multiple Test Procedure"). ``gains`` are for each comparison the
    differences (seeds,), positive where the first model is ahead.
    """
    means, p = [], np.ones(len(gains))
    for i, own in enumerate(check_scores(differences, "differences") for differences in gains):
        mean, interval = float(own.mean()), (-np.inf, np.inf)
        if len(own) > 1 and np.ptp(own) == 0:  # the t-test divides by 0
            interval, p[i] = (mean, mean), mean == 0
        elif len(own) > 1:
            test = stats.ttest_1samp(own, 0.0)
            interval, p[i] = test.confidence_interval(), test.pvalue
        p[i] = p[i] if len(own) >= 5 else 1
        means.append(Estimate(mean, *map(float, interval)))
    if len(p) > 5:
        order = np.argsort(p)
        p[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return [Comparison(each, float(value)) for each, value in zip(means, p, strict=True)]
