"""What an embedding space is like: where rows lie in it, what lies near what, and what can be read off it."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from companion.compute import Compute
from companion.models.selfsupervised import SelfSupervisedResNet


@torch.inference_mode()
def embed(
    model: SelfSupervisedResNet,
    numerical: Tensor,
    categorical: Tensor,
    *,
    compute: Compute | None = None,
    batch_size: int = 4096,
) -> np.ndarray:
    """The embeddings of rows of which nothing is hidden.

    Args:
        model: a trained net; left in the mode in which it came.
        numerical: float (N, numbers).
        categorical: int64 (N, columns).
        compute: device and precision; ``None`` for where the model is, in its own precision.
        batch_size: rows in one pass; it bounds the memory beside the result.

    Returns:
        float32 (N, ``d_model``); N may be 0.

    Raises:
        ValueError: if the rows do not fit the model.
    """
    compute = compute or Compute(model.ignorance.device, None)
    was_training = model.training
    model.eval()
    parts = []
    try:
        for start in range(0, max(1, len(numerical)), batch_size):
            rows = slice(start, start + batch_size)
            with compute.autocast():
                found = model.embed(numerical[rows].to(compute.device), categorical[rows].to(compute.device))
            parts.append(found.float().cpu().numpy())
    finally:
        model.train(was_training)
    return np.concatenate(parts)


def linear_probe(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, seed: int = 0
) -> float:
    """How well a linear classifier on frozen embeddings tells classes that the net was never told.

    Args:
        train: float (N, d), embeddings.
        train_labels: (N,), any values that can be compared.
        test: float (M, d), of other rows.
        test_labels: (M,).
        seed: of the solver.

    Returns:
        Balanced accuracy, the mean recall of the tested classes; one over their number is chance.

    Raises:
        ValueError: if there is only one class.
    """
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, random_state=seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after so many steps it changes little
        classifier.fit(train, train_labels)
    guesses = classifier.predict(test)
    return float(recall_score(test_labels, guesses, labels=np.unique(test_labels), average="macro"))


def neighbours(vectors: np.ndarray, count: int = 10) -> np.ndarray:
    """The nearest other vectors of each vector: int64 (N, ``count``), nearest first.

    Raises:
        ValueError: if there are not more vectors than neighbours.
    """
    if not 0 < count < len(vectors):
        raise ValueError(f"{len(vectors)} vectors have no {count} neighbours each")
    found: np.ndarray = NearestNeighbors(n_neighbors=count).fit(vectors).kneighbors(return_distance=False)
    return found


def neighbour_purity(vectors: np.ndarray, labels: np.ndarray, count: int = 10) -> float:
    """The share of each vector's nearest neighbours that have its label, averaged over the vectors.

    Args:
        vectors: float (N, d).
        labels: (N,), any values that can be compared.
        count: neighbours of each.

    Returns:
        Between 0 and 1. A space that tells nothing of the label has about the sum of the squared shares of
        the labels.

    Example:
        >>> vectors = np.array([[0.0], [0.1], [5.0], [5.1]])
        >>> neighbour_purity(vectors, np.array(["a", "a", "b", "b"]), count=1)
        1.0
    """
    labels = np.asarray(labels)
    return float((labels[neighbours(vectors, count)] == labels[:, None]).mean())


def neighbour_agreement(one: np.ndarray, other: np.ndarray, count: int = 10) -> float:
    """How far two embeddings of the same rows agree on who is near whom.

    Distances and axes of two trainings mean nothing to each other, neighbourhoods do.

    Args:
        one: float (N, d).
        other: float (N, e), the same rows.
        count: neighbours of each.

    Returns:
        The mean share of a row's neighbours in one space that are its neighbours in the other; for unrelated
        spaces about ``count / N``.

    Raises:
        ValueError: if the numbers of rows differ.
    """
    if len(one) != len(other):
        raise ValueError(f"need the same rows in both spaces, not {len(one)} and {len(other)}")
    pairs = zip(neighbours(one, count), neighbours(other, count), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / count for a, b in pairs]))
