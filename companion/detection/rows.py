"""Detectors for rows of numbers and categories that need no net, and ways to make vectors of such rows.

Numbers are standardised and categories are indices, as ``companion.objectives.encoding`` gives them.
Everything is fitted on normal rows. Scores are float64 (N,), higher for the unusual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import OneHotEncoder
from sklearn.random_projection import GaussianRandomProjection

from companion.detection.vectors import NeighborIndex, VectorError

_LARGEST = 20.0  # nats; a single number far off must not outweigh everything else


def _check(numerical: np.ndarray, categorical: np.ndarray) -> None:
    if numerical.ndim != 2 or categorical.ndim != 2 or len(numerical) != len(categorical):
        raise VectorError(
            f"need numbers (N, n) and categories (N, c), not {numerical.shape} and {categorical.shape}"
        )


class FieldRarity:
    """How rare each value of a row is by itself, whatever stands beside it.

    A category costs the negative logarithm of its share among normal rows, a number x the part ``x ** 2 / 2``
    of the normal distribution's, at most 20 nats. The sum over the fields is the score: the negative
    log-likelihood of a model in which all fields are independent. With histograms for the numbers this is
    HBOS (Goldstein and Dengel 2012, "Histogram-based Outlier Score (HBOS): A fast Unsupervised Anomaly
    Detection Algorithm").

    Args:
        cardinalities: for each categorical column, how many indices there are.

    Example:
        >>> rarity = FieldRarity([2]).fit(np.zeros((4, 1)), np.array([[0], [0], [0], [1]]))
        >>> rarity.score(np.zeros((2, 1)), np.array([[0], [1]])).round(2).tolist()
        [0.36, 1.2]
    """

    def __init__(self, cardinalities: Sequence[int]) -> None:
        self.cardinalities = tuple(cardinalities)
        self.costs_: list[np.ndarray] = []

    def fit(self, numerical: np.ndarray, categorical: np.ndarray) -> Self:
        """Count the categories of normal rows; half a count is added to each, so that none costs infinity.

        Raises:
            VectorError: if the shapes are wrong.
        """
        _check(numerical, categorical)
        self.costs_ = []
        for column, size in zip(categorical.T, self.cardinalities, strict=True):
            counts = np.bincount(column, minlength=size) + 0.5
            self.costs_.append(-np.log(counts / counts.sum()))
        return self

    def transform(self, numerical: np.ndarray, categorical: np.ndarray) -> np.ndarray:
        """The cost of each field in nats: float32 (N, numbers + columns), numbers first.

        Raises:
            VectorError: if the shapes are wrong.
        """
        _check(numerical, categorical)
        numbers = np.minimum(np.square(numerical) / 2, _LARGEST)
        categories = [cost[column] for cost, column in zip(self.costs_, categorical.T, strict=True)]
        return np.column_stack([numbers, *categories]).astype(np.float32)

    def score(self, numerical: np.ndarray, categorical: np.ndarray) -> np.ndarray:
        """float64 (N,): the sum of the costs."""
        return np.asarray(self.transform(numerical, categorical).sum(axis=1, dtype=np.float64))


class OneHotVectors:
    """Rows as vectors that any detector for vectors takes: numbers beside one-hot categories, made short.

    One-hot vectors of events have thousands of numbers. A random projection to ``width`` keeps all distances
    to within about ``sqrt(8 / width)`` of their size (Johnson and Lindenstrauss 1984); nothing is learned.

    Args:
        cardinalities: for each categorical column, how many indices there are.
        width: numbers of a vector.
        seed: of the projection.
    """

    def __init__(self, cardinalities: Sequence[int], width: int = 256, seed: int = 0) -> None:
        self.cardinalities, self.width, self.seed = tuple(cardinalities), width, seed

    def _wide(self, numerical: np.ndarray, categorical: np.ndarray) -> sp.csr_matrix:
        _check(numerical, categorical)
        parts = [sp.csr_matrix(numerical)]
        if categorical.shape[1]:
            parts.append(self.encoder_.transform(categorical))
        return sp.hstack(parts, format="csr")

    def fit(self, numerical: np.ndarray, categorical: np.ndarray) -> Self:
        """Draw the projection; of the rows only the shape matters.

        Raises:
            VectorError: if the shapes are wrong.
        """
        _check(numerical, categorical)
        categories = [np.arange(size) for size in self.cardinalities]
        self.encoder_ = OneHotEncoder(categories=categories, dtype=np.float32)
        if categories:
            self.encoder_.fit(categorical[:1])
        self.projection_ = GaussianRandomProjection(self.width, random_state=self.seed)
        self.projection_.fit(self._wide(numerical[:1], categorical[:1]))
        return self

    def transform(self, numerical: np.ndarray, categorical: np.ndarray) -> np.ndarray:
        """float32 (N, ``width``).

        Raises:
            VectorError: if the shapes are wrong.
        """
        found: np.ndarray = self.projection_.transform(self._wide(numerical, categorical))
        return found.astype(np.float32)


class EntityRarity:
    """Which values are rarer for this entity than for everyone.

    The cost of a value is ``log(p(value) / p(value | entity))``, where the entity's own share is smoothed by
    everyone's: ``p(value | entity) = (count + strength * p(value)) / (events of the entity + strength)``. A
    new entity costs 0 everywhere. The score is the mean of the ``top`` largest costs of the row.

    Args:
        cardinalities: for each categorical column, how many indices there are.
        strength: how many events everyone's distribution counts for.
        top: how many fields make the score.

    Example:
        >>> rarity = EntityRarity([2], top=1).fit(np.array([[0], [0], [1], [1]]), np.array(list("aabb")))
        >>> rarity.score(np.array([[0], [1]]), np.array(["a", "a"])).round(2).tolist()
        [-0.41, 0.69]
    """

    def __init__(self, cardinalities: Sequence[int], strength: float = 2.0, top: int = 5) -> None:
        self.cardinalities, self.strength, self.top = tuple(cardinalities), strength, top

    def fit(self, categorical: np.ndarray, entities: np.ndarray) -> Self:
        """Count the categories of each entity's normal rows.

        Args:
            categorical: int64 (N, columns).
            entities: (N,), names.

        Raises:
            VectorError: if there is not one entity for each row, or no row.
        """
        if len(entities) != len(categorical) or len(entities) == 0:
            raise VectorError(f"{len(categorical)} rows need as many entities, not {len(entities)}")
        self.names_, codes = np.unique(entities, return_inverse=True)
        ones, edges = np.ones(len(entities)), self._edges()
        self.counts_ = sp.csr_matrix((len(self.names_) + 1, edges[-1]))  # the last row: entities that are new
        for column, edge in zip(categorical.T, edges, strict=False):
            self.counts_ += sp.csr_matrix((ones, (codes, edge + column)), self.counts_.shape)
        return self

    def _edges(self) -> np.ndarray:
        """Where each column's indices begin if all stand side by side, and where they end."""
        return np.concatenate([[0], np.cumsum(self.cardinalities)]).astype(np.int64)

    def transform(self, categorical: np.ndarray, entities: np.ndarray) -> np.ndarray:
        """The cost of each field in nats: float32 (N, columns); negative where the value is a habit."""
        places = np.searchsorted(self.names_, entities).clip(max=len(self.names_) - 1)
        codes = np.where(self.names_[places] == entities, places, len(self.names_))
        edges, sums = self._edges(), np.asarray(self.counts_.sum(axis=0)).ravel()
        totals = np.asarray(self.counts_[:, : edges[1]].sum(axis=1)).ravel()[codes]  # events of the entity
        costs = np.empty(categorical.shape, dtype=np.float32)
        for i, column in enumerate(categorical.T):
            share = sums[edges[i] : edges[i + 1]] + 0.5
            everyone = (share / share.sum())[column]
            count = np.asarray(self.counts_[codes, edges[i] + column]).ravel()
            own = (count + self.strength * everyone) / (totals + self.strength)
            costs[:, i] = np.log(everyone / own)
        return costs

    def score(self, categorical: np.ndarray, entities: np.ndarray) -> np.ndarray:
        """float64 (N,): the mean of each row's largest costs."""
        costs = np.sort(self.transform(categorical, entities), axis=1)[:, -self.top :]
        return np.asarray(costs.mean(axis=1, dtype=np.float64))

    def state(self) -> tuple[list[str], dict[str, np.ndarray]]:
        """What was learned: the entities' names, and the counts as arrays."""
        found = self.counts_.tocoo()
        arrays = {"row": found.row, "column": found.col, "count": found.data}
        return [str(name) for name in self.names_], {name: array.copy() for name, array in arrays.items()}

    def restore(self, names: Sequence[str], arrays: Mapping[str, np.ndarray]) -> Self:
        """Take what :meth:`state` gave.

        Raises:
            KeyError: if an array is lacking.
            ValueError: if a count lies outside the columns.
        """
        self.names_ = np.array(names, dtype=object)
        shape = (len(names) + 1, int(self._edges()[-1]))
        self.counts_ = sp.csr_matrix((arrays["count"], (arrays["row"], arrays["column"])), shape)
        return self


class EntityHistory:
    """The distance of an event from what the same entity did before.

    An entity that has fewer normal vectors than ``neighbours`` is compared with everyone instead.

    Args:
        neighbours: how many of the entity's own nearest vectors count.
        keep: the latest vectors of each entity that are kept.
        everyone: how many vectors of all entities are kept, drawn at random.
        seed: of that draw.
    """

    def __init__(self, neighbours: int = 1, keep: int = 2_000, everyone: int = 20_000, seed: int = 0) -> None:
        self.neighbours, self.keep, self.everyone, self.seed = neighbours, keep, everyone, seed

    def fit(self, vectors: np.ndarray, entities: np.ndarray) -> Self:
        """Keep normal vectors (N, d) by entity (N,), in the order of their times.

        Raises:
            VectorError: if there is not one entity for each vector, or too few vectors.
        """
        if len(entities) != len(vectors):
            raise VectorError(f"{len(vectors)} vectors need as many entities, not {len(entities)}")
        drawn = np.random.default_rng(self.seed).permutation(len(vectors))[: self.everyone]
        self.everyone_ = NeighborIndex(self.neighbours).fit(vectors[drawn])
        self.own_: dict[object, np.ndarray] = {}
        for name, rows in _by_name(entities):
            if len(rows) >= self.neighbours:
                self.own_[name] = vectors[rows[-self.keep :]]
        return self

    def score(self, vectors: np.ndarray, entities: np.ndarray) -> np.ndarray:
        """float64 (N,): the mean distance to the entity's own nearest vectors.

        Raises:
            VectorError: if the vectors do not fit, or there is not one entity for each.
        """
        if len(entities) != len(vectors):
            raise VectorError(f"{len(vectors)} vectors need as many entities, not {len(entities)}")
        scores = np.empty(len(vectors))
        for name, rows in _by_name(entities):
            own = self.own_.get(name)
            index = self.everyone_ if own is None else NeighborIndex(self.neighbours).fit(own)
            scores[rows] = index.score(vectors[rows])
        return scores


def _by_name(names: np.ndarray) -> list[tuple[object, np.ndarray]]:
    """Each name with its rows, in their order."""
    unique, codes = np.unique(names, return_inverse=True)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    return list(zip(unique.tolist(), rows, strict=True)) if len(names) else []


class FamilySurprise:
    """One score from the surprise of many fields, each family of fields on the scale of normal events.

    The surprises of a family are added up and standardised by mean and standard deviation of normal events
    that did not train the net. What is below the mean counts nothing, and no family counts more than
    ``limit`` standard deviations. So neither fields that are always hard to guess nor a single number far
    off decide alone.

    Args:
        groups: the family of each field, see ``EventFeatures.groups``.
        limit: standard deviations.
    """

    def __init__(self, groups: Sequence[int], limit: float = 10.0) -> None:
        self.groups, self.limit = np.asarray(groups), limit

    def _families(self, surprises: np.ndarray) -> np.ndarray:
        if surprises.ndim != 2 or surprises.shape[1] != len(self.groups):
            raise VectorError(f"need surprises (N, {len(self.groups)}), not {surprises.shape}")
        sums = [surprises[:, self.groups == group].sum(axis=1) for group in np.unique(self.groups)]
        return np.stack(sums, axis=1)

    def fit(self, surprises: np.ndarray) -> Self:
        """Learn the scale from the surprises (N, fields) of normal events.

        Raises:
            VectorError: if the shape is wrong or there are fewer than two events.
        """
        families = self._families(surprises)
        if len(families) < 2:
            raise VectorError(f"need at least 2 normal events, not {len(families)}")
        self.mean_, self.std_ = families.mean(axis=0), families.std(axis=0) + 0.05
        return self

    def transform(self, surprises: np.ndarray) -> np.ndarray:
        """(N, families), from 0 to the limit."""
        families = (self._families(surprises) - self.mean_) / self.std_
        return np.asarray(families.clip(0, self.limit))

    def score(self, surprises: np.ndarray) -> np.ndarray:
        """float64 (N,): the sum over the families."""
        return np.asarray(self.transform(surprises).sum(axis=1, dtype=np.float64))
