"""Detectors that need no net: fitted on normal rows (N, d), they score others, float64 (N,)."""

from typing import Self

import faiss
import numpy as np
import pandas as pd

from companion.detection.metrics import check_scores


class NeighborIndex:
    """Vectors, and the distance to the nearest of them; exact (FAISS, ``IndexFlatL2``), in float32."""

    def __init__(self, neighbors: int = 5) -> None:
        self.neighbors = neighbors

    def fit(self, vectors: np.ndarray) -> Self:
        """Keep normal vectors (N, d)."""
        vectors = np.ascontiguousarray(check_scores(vectors, "vectors", axes=2), dtype=np.float32)
        if len(vectors) < self.neighbors:
            raise ValueError(f"{self.neighbors} neighbors need as many vectors, here are {len(vectors)}")
        self.index_ = faiss.IndexFlatL2(vectors.shape[1])
        self.index_.add(vectors)
        return self

    def nearest(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances to the nearest kept vectors, float64 (N, neighbors), rising, and their rows, int64."""
        vectors = np.ascontiguousarray(check_scores(vectors, "vectors", axes=2), dtype=np.float32)
        squares, rows = self.index_.search(vectors, self.neighbors)
        return np.sqrt(np.maximum(squares, 0, dtype=np.float64)), rows

    def score(self, vectors: np.ndarray) -> np.ndarray:
        """float64 (N,): the mean distance to the nearest; a kept vector is its own nearest."""
        return np.asarray(self.nearest(vectors)[0].mean(axis=1))


class GroupStandardizer:
    """Each column in standard deviations from its mean, both of the normal rows of the same group.

    Some fields can never be guessed, such as the port of a client, and some kinds of events have more of them
    than others. Their surprise is high and means nothing; what counts is how far above its usual it is. The
    ``floor`` is added to the standard deviations, which keeps small what hardly ever varies. Groups of fewer
    than 100 rows are measured by all rows, as unknown ones are.
    """

    def __init__(self, floor: float = 0.3) -> None:
        self.floor = floor

    def fit(self, values: np.ndarray, groups: np.ndarray) -> Self:
        """Learn from normal rows (N, columns) and the group of each, text (N,)."""
        rows = pd.Series(groups).groupby(groups).indices
        parts = {"": values} | {name: values[own] for name, own in rows.items() if len(own) >= 100}
        self.stats_ = {name: (own.mean(axis=0), own.std(axis=0) + self.floor) for name, own in parts.items()}
        return self

    def transform(self, values: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """float64 (N, columns)."""
        result = np.empty(values.shape)
        for name, rows in pd.Series(groups).groupby(groups).indices.items():
            mean, scale = self.stats_.get(name, self.stats_[""])
            result[rows] = (values[rows] - mean) / scale
        return result
