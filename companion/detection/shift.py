"""Whether two sets of vectors come from one distribution, asked of a classifier."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from companion.detection.metrics import roc_auc
from companion.detection.vectors import VectorError


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
