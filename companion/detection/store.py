"""A store of embeddings: vectors with an id and a time each, in one file, and the nearest of them."""

from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
import pandas as pd
import torch

from companion.detection.metrics import check_scores
from companion.files import StateError, load_state, save_state

_FORMAT = "embedding store 1"


class EmbeddingStore:
    """Vectors of events that were seen, such as those whose alerts somebody has judged; FAISS, in float32.

    ``"exact"`` compares a query with every vector. ``"hnsw"`` walks through a graph of near vectors (Malkov
    and Yashunin 2018, arXiv 1603.09320), ``"ivf"`` looks into the nearest cells of a k-means (Jegou, Douze
    and Schmid 2011): both are much faster and miss some neighbours. A higher ``effort`` misses fewer: the
    vectors in the queue of the walk, at least as many as are asked for, or the cells that are looked into.

    Example:
        >>> vectors, days = np.eye(3), np.array(["2026-01-05", "2026-01-06", "2026-01-07"], "datetime64[ms]")
        >>> store = EmbeddingStore(3).add(vectors, ids=np.array([7, 8, 9]), times=days)
        >>> distances, ids, times = store.nearest(vectors[1:2] * 0.9, 1)
        >>> ids.item(), str(times.item().date()), distances.round(1).item()
        (8, '2026-01-06', 0.1)
    """

    def __init__(self, size: int, kind: str = "exact", effort: int = 64) -> None:
        self.size, self.kind, self.effort = size, kind, effort
        self.times = pd.Series(dtype="datetime64[ms]")  #: of each vector, by its id
        self._index: Any = None  # made from the first vectors, since cells have to be learned

    def add(self, vectors: np.ndarray, ids: np.ndarray, times: np.ndarray) -> Self:
        """Keep vectors (N, size) with new ids, int64 (N,), and times, datetime64 (N,).

        The cells of ``"ivf"`` are learned from the first vectors that it is given.
        """
        vectors = np.ascontiguousarray(check_scores(vectors, "vectors", axes=2), dtype=np.float32)
        new = pd.Series(np.asarray(times, dtype="datetime64[ms]"), index=np.asarray(ids, dtype=np.int64))
        if vectors.shape != (len(new), self.size) or not new.index.append(self.times.index).is_unique:
            raise ValueError(f"need vectors (N, {self.size}), each with a new id; these are {vectors.shape}")
        if self._index is None:
            cells = max(1, len(vectors) // 1000)
            made = {"exact": "IDMap2,Flat", "hnsw": "IDMap2,HNSW32", "ivf": f"IVF{cells},Flat"}[self.kind]
            self._index = faiss.index_factory(self.size, made)
            self._index.train(vectors)
        self._index.add_with_ids(vectors, new.index.to_numpy())
        self.times = pd.concat([self.times, new])
        return self

    def nearest(self, vectors: np.ndarray, count: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distances, float64 (N, count), rising, ids, int64, and times, datetime64, of the nearest.

        Where fewer are found the distance is infinite, the id -1 and the time NaT.
        """
        vectors = np.ascontiguousarray(check_scores(vectors, "vectors", axes=2), dtype=np.float32)
        if self._index is None:
            raise ValueError("the store is empty; add vectors first")
        if self.kind == "hnsw":
            faiss.ParameterSpace().set_index_parameter(self._index, "efSearch", max(self.effort, count))
        elif self.kind == "ivf":
            faiss.ParameterSpace().set_index_parameter(self._index, "nprobe", self.effort)
        squares, ids = self._index.search(vectors, count)
        distances = np.sqrt(np.where(ids < 0, np.inf, np.maximum(squares, 0)).astype(np.float64))
        return distances, ids, self.times.reindex(ids.ravel()).to_numpy().reshape(ids.shape)

    def save(self, path: Path) -> None:
        """Write all to one file, in one piece."""
        content = faiss.serialize_index(self._index), self.times.index, self.times.astype(np.int64)
        index, ids, times = (torch.tensor(np.asarray(each)) for each in content)
        made = [self.size, self.kind, self.effort]
        save_state(path, _FORMAT, made=made, index=index, ids=ids, times=times)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote. Only from those whom you trust: FAISS reads its part unchecked."""
        state = load_state(path, _FORMAT)
        try:
            store = cls(*state["made"])
            store._index = faiss.deserialize_index(state["index"].numpy())
            times = state["times"].numpy().astype("datetime64[ms]")
            store.times = pd.Series(times, index=state["ids"].numpy())
        except (KeyError, RuntimeError, AttributeError, ValueError, TypeError) as error:
            raise StateError(f"{path} is damaged: {error}") from error
        return store
