"""A memory of normal patches: what looks like none of them is unusual.

Source: Roth et al. 2022, "Towards Total Recall in Industrial Anomaly Detection" (PatchCore).
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np

from companion.detection.vectors import NeighborIndex, VectorError

Subsample = Literal["random", "coreset"]
_CANDIDATES = 8  # the coreset is chosen among so many times as many random patches
_PROJECTED = 64  # numbers to which vectors are projected while it is chosen


def coreset(vectors: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Rows that cover all: each next one is the farthest from those chosen so far.

    The greedy answer to the k-centre problem (Gonzalez 1985), on random projections where the vectors are
    long, as PatchCore does it.

    Args:
        vectors: (N, d).
        count: how many to choose; all are taken if there are no more.
        seed: of the first row and of the projection.

    Returns:
        int64 (min(N, ``count``),), in the order in which they were chosen.

    Raises:
        VectorError: if there is no vector or none is asked for.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) == 0 or count < 1:
        raise VectorError(f"need vectors (N, d) and a positive count, not {vectors.shape} and {count}")
    rng = np.random.default_rng(seed)
    if vectors.shape[1] > _PROJECTED:
        projection = rng.normal(size=(vectors.shape[1], _PROJECTED)) / np.sqrt(_PROJECTED)
        vectors = vectors @ projection.astype(np.float32)
    squares = np.einsum("nd,nd->n", vectors, vectors)
    chosen = np.empty(min(count, len(vectors)), dtype=np.int64)
    nearest = np.full(len(vectors), np.inf, dtype=np.float32)
    place = int(rng.integers(len(vectors)))
    for step in range(len(chosen)):
        chosen[step] = place
        distance = squares + squares[place] - 2 * (vectors @ vectors[place])
        nearest = np.minimum(nearest, distance)
        nearest[place] = -np.inf  # never twice, even among equal ones
        place = int(nearest.argmax())
    return chosen


class PatchMemory:
    """Keeps patches of normal images and scores others by the distance to the nearest of them.

    Args:
        neighbours: how many nearest patches count.
        max_patches: how many are kept, at most.
        subsample: how they are chosen, if there are more: ``"random"``, or ``"coreset"`` (see
            :func:`coreset`, among eight times as many random ones).
        seed: of that choice.

    Raises:
        VectorError: for numbers that are not positive, or another way to choose.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> memory = PatchMemory(neighbours=1).fit(rng.normal(size=(20, 2, 3, 5)))
        >>> memory.maps(np.full((4, 2, 3, 5), 9.0)).shape
        (4, 2, 3)
    """

    def __init__(
        self,
        neighbours: int = 3,
        max_patches: int = 20_000,
        subsample: Subsample = "random",
        seed: int = 0,
    ) -> None:
        if min(neighbours, max_patches) < 1 or subsample not in ("random", "coreset"):
            raise VectorError(
                f"need positive numbers, and 'random' or 'coreset', "
                f"not {neighbours}, {max_patches}, {subsample!r}"
            )
        self.neighbours, self.max_patches = neighbours, max_patches
        self.subsample, self.seed = subsample, seed
        self.index_: NeighborIndex | None = None

    def fit(self, features: np.ndarray) -> Self:
        """Keep patches of normal images.

        Args:
            features: (N, h, w, d), a vector for each place of each image.

        Raises:
            VectorError: if there are fewer patches than neighbours, another number of axes, or numbers that
                are not finite.
        """
        rows = _rows(features)
        rng = np.random.default_rng(self.seed)
        most = self.max_patches * (_CANDIDATES if self.subsample == "coreset" else 1)
        if len(rows) > most:
            rows = rows[np.sort(rng.choice(len(rows), most, replace=False))]
        if len(rows) > self.max_patches:
            if not np.isfinite(rows).all():
                raise VectorError("some patches hold NaN or infinity; leave their images out")
            rows = rows[coreset(rows, self.max_patches, self.seed)]
        self.index_ = NeighborIndex(self.neighbours).fit(rows)
        return self

    def maps(self, features: np.ndarray) -> np.ndarray:
        """The mean distance of each patch to its nearest neighbours in the memory.

        Args:
            features: (N, h, w, d).

        Returns:
            float64 (N, h, w).

        Raises:
            VectorError: if nothing was fitted or the features do not fit.
        """
        if self.index_ is None:
            raise VectorError("fit the memory first")
        rows = _rows(features)
        if len(rows) == 0:
            return np.empty(np.shape(features)[:3])
        return self.index_.score(rows).reshape(np.shape(features)[:3])

    def score(self, features: np.ndarray, top: float = 1.0) -> np.ndarray:
        """One number for each image: the mean over its most distant patches.

        Args:
            features: (N, h, w, d).
            top: the share of the patches that count; the paper takes the single most distant one.

        Returns:
            float64 (N,).

        Raises:
            VectorError: see :meth:`maps`; or ``top`` is no share.
        """
        if not 0 < top <= 1:
            raise VectorError(f"top is a share above 0, not {top}")
        flat = self.maps(features)
        flat = np.sort(flat.reshape(len(flat), flat.shape[1] * flat.shape[2]), axis=1)
        scores: np.ndarray = flat[:, -max(1, round(top * flat.shape[1])) :].mean(axis=1)
        return scores


def _rows(features: np.ndarray) -> np.ndarray:
    array = np.asarray(features, dtype=np.float32)
    if array.ndim != 4 or 0 in array.shape[1:]:
        raise VectorError(f"need features (N, h, w, d), not {array.shape}")
    return array.reshape(-1, array.shape[3])
