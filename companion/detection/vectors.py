"""Detectors for vectors: rows of numbers, or the embeddings that a net gives them.

Each learns from normal vectors (N, d) with ``fit`` and gives ``score``, float64 (N,), higher for the unusual.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, Self

import faiss
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor

from companion.files import atomic_path

Distance = Literal["euclidean", "cosine"]
_KIND = "NeighbourIndex 1"
_CHUNK = 4096  # queries in one search


class VectorError(ValueError):
    """Vectors or a file that a detector cannot take; the message says why."""


class VectorDetector(Protocol):
    """Anything that learns what normal vectors look like and scores others."""

    def fit(self, vectors: np.ndarray) -> Self:
        """Learn from normal vectors (N, d)."""
        ...

    def score(self, vectors: np.ndarray) -> np.ndarray:
        """float64 (N,): the higher, the more unusual."""
        ...


def checked_vectors(vectors: np.ndarray, least: int = 0, width: int | None = None) -> np.ndarray:
    """Vectors as float32 (N, d), contiguous.

    Raises:
        VectorError: if they have not two axes, hold NaN or infinity, are fewer than ``least``, or have not
            ``width`` numbers each.
    """
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] == 0:
        raise VectorError(f"need vectors (N, d), not {array.shape}")
    if len(array) < least:
        raise VectorError(f"too few vectors: {len(array)}, and at least {least} are needed")
    if width is not None and array.shape[1] != width:
        raise VectorError(f"this detector takes vectors of {width} numbers, not of {array.shape[1]}")
    if not np.isfinite(array).all():
        rows = int((~np.isfinite(array)).any(axis=1).sum())
        raise VectorError(f"{rows} vectors hold NaN or infinity; leave them out")
    return array


class NeighborIndex:
    """The embedding store: vectors with the ids of their records, and the distance to the nearest of them.

    The search is exact (FAISS, ``IndexFlat``). The score is the mean distance to the nearest vectors.

    Args:
        neighbours: how many count for the score.
        distance: Euclidean, or one minus the cosine of the angle.

    Raises:
        VectorError: for no neighbour or another distance.

    Example:
        >>> index = NeighbourIndex(1).fit(np.array([[0.0, 0.0], [4.0, 0.0]]), ids=["a", "b"])
        >>> index.score(np.array([[4.0, 3.0]])).tolist(), index.search(np.array([[4.0, 3.0]]))[1]
        ([3.0], [['b']])
    """

    def __init__(self, neighbours: int = 5, distance: Distance = "euclidean") -> None:
        if neighbours < 1 or distance not in ("euclidean", "cosine"):
            raise VectorError(
                f"need a neighbour, and 'euclidean' or 'cosine', not {neighbours}, {distance!r}"
            )
        self.neighbours, self.distance = neighbours, distance
        self.ids: list[str] = []
        self._index: faiss.IndexFlat | None = None

    def _prepare(self, vectors: np.ndarray) -> np.ndarray:
        if self.distance == "cosine":
            vectors = vectors.copy()
            faiss.normalize_L2(vectors)
        return vectors

    def fit(self, vectors: np.ndarray, ids: Sequence[str] | None = None) -> Self:
        """Keep normal vectors.

        Args:
            vectors: (N, d).
            ids: of their records; their row numbers if not given.

        Raises:
            VectorError: if there are fewer vectors than neighbours, ids that are not one for each, or numbers
                that are not finite.
        """
        kept = self._prepare(checked_vectors(vectors, least=self.neighbours))
        if ids is not None and len(ids) != len(kept):
            raise VectorError(f"{len(kept)} vectors need as many ids, not {len(ids)}")
        self.ids = [str(i) for i in (range(len(kept)) if ids is None else ids)]
        self._index = faiss.IndexFlatL2(kept.shape[1])
        self._index.add(kept)
        return self

    def search_places(self, vectors: np.ndarray, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The nearest kept vectors.

        Args:
            vectors: (N, d).
            count: how many for each; the number of neighbours if not given, and never more than are kept.

        Returns:
            Distances float64 (N, count), rising, and in that order the places of the vectors among those that
            were kept, int64 (N, count).

        Raises:
            VectorError: if nothing was fitted or the vectors do not fit.
        """
        if self._index is None:
            raise VectorError("fit the index first, or load one")
        asked = self._prepare(checked_vectors(vectors, width=self._index.d))
        count = min(count or self.neighbours, self._index.ntotal)
        squares, places = np.empty((len(asked), count)), np.empty((len(asked), count), dtype=np.int64)
        for start in range(0, len(asked), _CHUNK):
            rows = slice(start, start + _CHUNK)
            squares[rows], places[rows] = self._index.search(asked[rows], count)
        squares = np.maximum(squares, 0)
        distances = squares / 2 if self.distance == "cosine" else np.sqrt(squares)  # |a - b|^2 = 2 (1 - cos)
        return distances, places

    def search(self, vectors: np.ndarray, count: int | None = None) -> tuple[np.ndarray, list[list[str]]]:
        """The nearest kept vectors, by the ids of their records; see :meth:`search_places`.

        Returns:
            Distances float64 (N, count), rising, and for each vector the ids in that order.
        """
        distances, places = self.search_places(vectors, count)
        return distances, [[self.ids[place] for place in row] for row in places]

    def score(self, vectors: np.ndarray) -> np.ndarray:
        """float64 (N,): the mean distance to the nearest; a kept vector is its own nearest.

        Raises:
            VectorError: see :meth:`search`.
        """
        scores: np.ndarray = self.search_places(vectors)[0].mean(axis=1)
        return scores

    @property
    def vectors(self) -> np.ndarray:
        """The kept vectors, float32 (M, d); of length 1 for the cosine.

        Raises:
            VectorError: if nothing was fitted.
        """
        if self._index is None:
            raise VectorError("fit the index first")
        kept: np.ndarray = self._index.reconstruct_n(0, self._index.ntotal)
        return kept

    def save(self, path: Path) -> None:
        """Write vectors and ids to one safetensors file.

        Raises:
            VectorError: if nothing was fitted.
        """
        vectors = self.vectors
        about = {
            "kind": _KIND,
            "settings": json.dumps({"neighbours": self.neighbours, "distance": self.distance}),
            "ids": json.dumps(self.ids),
        }
        with atomic_path(path) as part:
            save_file({"vectors": vectors}, part, about)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            VectorError: if the file is missing, damaged or something else.
        """
        try:
            with safe_open(path, framework="np") as file:
                about = file.metadata() or {}
                if about.get("kind") != _KIND:
                    raise VectorError(f"{path} holds no index of this version")
                vectors = file.get_tensor("vectors")
            index = cls(**json.loads(about["settings"]))
            ids = json.loads(about["ids"])
        except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise VectorError(f"{path} is no index that can be read: {error}") from error
        index.distance, kept = "euclidean", index.distance  # the vectors are normalised already
        index.fit(vectors, ids)
        index.distance = kept
        return index


class OutlierFactor:
    """Local outlier factor: how much sparser the neighbourhood is than those of the neighbours.

    Source: Breunig et al. 2000, "LOF: Identifying Density-Based Local Outliers"; scikit-learn's, with
    ``novelty=True`` so that it scores new vectors.

    Args:
        neighbours: how many make the neighbourhood.
        max_vectors: of more, so many are drawn at random to learn from, for the fit takes long.
        seed: of that draw.
    """

    def __init__(self, neighbours: int = 20, max_vectors: int = 20_000, seed: int = 0) -> None:
        self.neighbours, self.max_vectors, self.seed = neighbours, max_vectors, seed

    def fit(self, vectors: np.ndarray) -> Self:
        """Learn from normal vectors (N, d).

        Raises:
            VectorError: if there are no more vectors than neighbours, or numbers that are not finite.
        """
        kept = checked_vectors(vectors, least=self.neighbours + 1)
        if len(kept) > self.max_vectors:
            rows = np.random.default_rng(self.seed).choice(len(kept), self.max_vectors, replace=False)
            kept = kept[np.sort(rows)]
        self.width_ = kept.shape[1]
        self.model_ = LocalOutlierFactor(n_neighbors=self.neighbours, novelty=True).fit(kept)
        return self

    def score(self, vectors: np.ndarray) -> np.ndarray:
        """float64 (N,): the factor, about 1 for normal vectors."""
        return _ask(self, vectors)


class Forest:
    """Isolation forest: how few random cuts it takes to have a vector alone.

    Source: Liu, Ting and Zhou 2008, "Isolation Forest"; scikit-learn's.

    Args:
        trees: how many.
        seed: of the cuts.
    """

    def __init__(self, trees: int = 200, seed: int = 0) -> None:
        self.trees, self.seed = trees, seed

    def fit(self, vectors: np.ndarray) -> Self:
        """Learn from normal vectors (N, d).

        Raises:
            VectorError: if there are fewer than two, or numbers that are not finite.
        """
        kept = checked_vectors(vectors, least=2)
        self.width_ = kept.shape[1]
        self.model_ = IsolationForest(n_estimators=self.trees, random_state=self.seed).fit(kept)
        return self

    def score(self, vectors: np.ndarray) -> np.ndarray:
        """float64 (N,), between 0 and 1."""
        return _ask(self, vectors)


class SubspaceResidual:
    """The distance from the subspace in which normal vectors vary most.

    Source: Mai et al. 2023 (arXiv 2309.08374) find that what tells anomalies in learned embeddings lies in
    such a residual.

    Args:
        share: of the variance that the subspace holds.
    """

    def __init__(self, share: float = 0.95) -> None:
        if not 0 < share < 1:
            raise VectorError(f"share lies between 0 and 1, not {share}")
        self.share = share

    def fit(self, vectors: np.ndarray) -> Self:
        """Learn the subspace from normal vectors (N, d).

        Raises:
            VectorError: if there are fewer than two, or numbers that are not finite.
        """
        kept = checked_vectors(vectors, least=2)
        self.width_ = kept.shape[1]
        self.model_ = PCA(self.share, svd_solver="full").fit(kept)
        return self

    def score(self, vectors: np.ndarray) -> np.ndarray:
        """float64 (N,): the length of what the subspace leaves over.

        Raises:
            VectorError: if nothing was fitted or the vectors do not fit.
        """
        asked = _asked(self, vectors)
        if len(asked) == 0:
            return np.empty(0)
        rest = asked - self.model_.inverse_transform(self.model_.transform(asked))
        return np.asarray(np.linalg.norm(rest.astype(np.float64), axis=1))


def _asked(detector: OutlierFactor | Forest | SubspaceResidual, vectors: np.ndarray) -> np.ndarray:
    if not hasattr(detector, "model_"):
        raise VectorError("fit the detector first")
    return checked_vectors(vectors, width=detector.width_)


def _ask(detector: OutlierFactor | Forest, vectors: np.ndarray) -> np.ndarray:
    """scikit-learn's score, in which the unusual is low, turned round."""
    asked = _asked(detector, vectors)
    if len(asked) == 0:
        return np.empty(0)
    return -np.asarray(detector.model_.score_samples(asked), dtype=np.float64)
