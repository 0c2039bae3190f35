"""Detectors for events: rows of numbers (N, n), standardised, and of categories (N, c), indices.

``companion.objectives.encoding`` gives them so. Everything is fitted on normal rows; scores are float64 (N,),
higher for the unusual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import OneHotEncoder
from sklearn.random_projection import GaussianRandomProjection

from companion.detection.detectors import NeighborIndex
from companion.detection.metrics import check_scores

_LARGEST = 20.0  # nats; a single number far off must not outweigh everything else


class FieldRarity:
    """How rare each value of a row is by itself, whatever stands beside it.

    A category costs the negative logarithm of its share among normal rows, a number x the part ``x ** 2 / 2``
    of the normal distribution's, at most 20 nats. The sum over the fields is the score: the negative
    log-likelihood of a model in which all fields are independent. With histograms for the numbers this is
    HBOS (Goldstein and Dengel 2012, "Histogram-based Outlier Score (HBOS): A fast Unsupervised Anomaly
    Detection Algorithm"). ``cardinalities`` are the numbers of indices of the categorical columns.

    Example:
        >>> rarity = FieldRarity([2]).fit(np.zeros((4, 1)), np.array([[0], [0], [0], [1]]))
        >>> rarity.score(np.zeros((2, 1)), np.array([[0], [1]])).round(2).tolist()
        [0.36, 1.2]
    """

    def __init__(self, cardinalities: Sequence[int]) -> None:
        self.cardinalities = tuple(cardinalities)

    def fit(self, numerical: np.ndarray, categorical: np.ndarray) -> Self:
        """Count the categories of normal rows; half a count is added to each, so that none costs infinity."""
        self.costs_ = []
        for column, size in zip(categorical.T, self.cardinalities, strict=True):
            counts = np.bincount(column, minlength=size) + 0.5
            self.costs_.append(-np.log(counts / counts.sum()))
        return self

    def transform(self, numerical: np.ndarray, categorical: np.ndarray) -> np.ndarray:
        """The cost of each field in nats: float32 (N, numbers + columns), numbers first."""
        numbers = np.minimum(np.square(check_scores(numerical, "numbers", axes=2)) / 2, _LARGEST)
        categories = [cost[column] for cost, column in zip(self.costs_, categorical.T, strict=True)]
        return np.column_stack([numbers, *categories]).astype(np.float32)

    def score(self, numerical: np.ndarray, categorical: np.ndarray) -> np.ndarray:
        """float64 (N,): the sum of the costs."""
        return np.asarray(self.transform(numerical, categorical).sum(axis=1, dtype=np.float64))


def one_hot_vectors(
    numerical: np.ndarray, categorical: np.ndarray, cardinalities: Sequence[int], width: int = 256
) -> np.ndarray:
    """Rows as float32 (N, ``width``) without any learning: numbers beside one-hot categories, made short.

    One-hot vectors of events have thousands of numbers. A random projection to ``width`` keeps all distances
    to within about ``sqrt(8 / width)`` of their size (Johnson and Lindenstrauss 1984).
    """
    encoder = OneHotEncoder(categories=[np.arange(size) for size in cardinalities], dtype=np.float32)
    hot = [encoder.fit_transform(categorical)] if len(cardinalities) else []
    wide = sp.hstack([sp.csr_matrix(numerical), *hot], format="csr")
    return np.asarray(GaussianRandomProjection(width, random_state=0).fit_transform(wide), dtype=np.float32)


class EntityRarity:
    """Which values are rarer for this entity than for everyone.

    The cost of a value is ``log(p(value) / p(value | entity))``, where the entity's own share is smoothed by
    everyone's: ``p(value | entity) = (count + strength * p(value)) / (events of the entity + strength)``. A
    new entity costs 0 everywhere. The score is the mean of the ``top`` largest costs of the row.

    Example:
        >>> rarity = EntityRarity([2], top=1).fit(np.array([[0], [0], [1], [1]]), np.array(list("aabb")))
        >>> rarity.score(np.array([[0], [1]]), np.array(["a", "a"])).round(2).tolist()
        [-0.41, 0.69]
    """

    def __init__(self, cardinalities: Sequence[int], strength: float = 2.0, top: int = 5) -> None:
        self.strength, self.top = strength, top
        self.edges = np.concatenate([[0], np.cumsum(cardinalities)]).astype(np.int64)  # columns side by side

    def fit(self, categorical: np.ndarray, entities: np.ndarray) -> Self:
        """Count the categories (N, columns) of each entity's normal rows; entities are names (N,)."""
        self.names_, codes = np.unique(entities, return_inverse=True)
        self.counts_ = sp.csr_matrix((len(self.names_) + 1, self.edges[-1]))  # the last row: new entities
        for column, edge in zip(categorical.T, self.edges, strict=False):
            self.counts_ += sp.csr_matrix((np.ones(len(codes)), (codes, edge + column)), self.counts_.shape)
        return self

    def transform(self, categorical: np.ndarray, entities: np.ndarray) -> np.ndarray:
        """The cost of each field in nats: float32 (N, columns); negative where the value is a habit."""
        places = np.searchsorted(self.names_, entities).clip(max=len(self.names_) - 1)
        codes = np.where(self.names_[places] == entities, places, len(self.names_))
        edges, sums = self.edges, np.asarray(self.counts_.sum(axis=0)).ravel()
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
        return [str(name) for name in self.names_], {
            "row": found.row.copy(), "column": found.col.copy(), "count": found.data.copy()
        }  # fmt: skip

    def restore(self, names: Sequence[str], arrays: Mapping[str, np.ndarray]) -> Self:
        """Take what :meth:`state` gave."""
        self.names_ = np.array(names, dtype=object)
        shape = (len(names) + 1, int(self.edges[-1]))
        self.counts_ = sp.csr_matrix((arrays["count"], (arrays["row"], arrays["column"])), shape)
        return self


class EntityHistory:
    """The distance of an event from what the same entity did before.

    An entity that has fewer normal vectors than ``neighbors`` is compared with ``everyone`` instead: so many
    vectors, drawn at random. Of each entity the latest ``keep`` vectors are kept.
    """

    def __init__(self, neighbors: int = 1, keep: int = 2_000, everyone: int = 20_000, seed: int = 0) -> None:
        self.neighbors, self.keep, self.everyone, self.seed = neighbors, keep, everyone, seed

    def fit(self, vectors: np.ndarray, entities: np.ndarray) -> Self:
        """Keep normal vectors (N, d) by entity (N,), in the order of their times."""
        drawn = np.random.default_rng(self.seed).permutation(len(vectors))[: self.everyone]
        self.everyone_ = NeighborIndex(self.neighbors).fit(vectors[drawn])
        rows = {name: own for name, own in _by_name(entities) if len(own) >= self.neighbors}
        self.own_ = {name: vectors[own[-self.keep :]] for name, own in rows.items()}
        return self

    def score(self, vectors: np.ndarray, entities: np.ndarray) -> np.ndarray:
        """float64 (N,): the mean distance to the entity's own nearest vectors."""
        scores = np.empty(len(vectors))
        for name, rows in _by_name(entities):
            own = self.own_.get(name)
            index = self.everyone_ if own is None else NeighborIndex(self.neighbors).fit(own)
            scores[rows] = index.score(vectors[rows])
        return scores


def _by_name(names: np.ndarray) -> list[tuple[object, np.ndarray]]:
    """Each name with its rows, in their order."""
    unique, codes = np.unique(names, return_inverse=True)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    return list(zip(unique.tolist(), rows, strict=True)) if len(names) else []


class GroupStandardizer:
    """Each column in standard deviations from its mean, both of the normal rows of the same group.

    Some fields can never be guessed, such as the port of a client, and some kinds of events have more of them
    than others. Their surprise is high and means nothing; what counts is how far above its usual it is.

    Args:
        floor: is added to the standard deviations, which keeps small what hardly ever varies.
        least: groups of fewer rows are measured by all rows, as unknown ones are.

    Example:
        >>> usual = GroupStandardizer().fit(np.array([[1.0], [3.0]]), np.array(["a", "a"]))
        >>> usual.transform(np.array([[2.0], [3.3]]), np.array(["a", "b"])).round(3).tolist()
        [[0.0], [1.0]]
    """

    def __init__(self, floor: float = 0.3, least: int = 100) -> None:
        self.floor, self.least = floor, least

    def fit(self, values: np.ndarray, groups: np.ndarray | None = None) -> Self:
        """Learn from normal rows (N, columns) and the group of each, text (N,); ``None`` for no groups."""
        parts = {"": check_scores(values, "values", axes=2)}
        for name, rows in _by_name(groups.astype(str)) if groups is not None else ():
            if len(rows) >= self.least:
                parts[str(name)] = values[rows]
        self.stats_ = {name: (own.mean(axis=0), own.std(axis=0) + self.floor) for name, own in parts.items()}
        return self

    def transform(self, values: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
        """float64 (N, columns)."""
        check_scores(values, "values", axes=2)
        result = np.empty(values.shape)
        for name, rows in _by_name(np.full(len(values), "") if groups is None else groups.astype(str)):
            mean, scale = self.stats_.get(str(name), self.stats_[""])
            result[rows] = (values[rows] - mean) / scale
        return result


class FamilySurprise:
    """One score from the surprise of many fields, each family of fields on the scale of normal events.

    The surprises of a family are added up and standardised by normal events that did not train the net. What
    is below the mean counts nothing, and no family counts more than ``limit`` standard deviations. So neither
    fields that are always hard to guess nor a single number far off decide alone. ``groups`` are the families
    of the fields, from ``EventFeatures.groups``.
    """

    def __init__(self, groups: Sequence[int], limit: float = 10.0) -> None:
        self.groups, self.limit = np.asarray(groups), limit
        self.scale = GroupStandardizer(floor=0.05)

    def _families(self, surprises: np.ndarray) -> np.ndarray:
        sums = [surprises[:, self.groups == group].sum(axis=1) for group in np.unique(self.groups)]
        return np.stack(sums, axis=1)

    def fit(self, surprises: np.ndarray) -> Self:
        """Learn the scale from the surprises (N, fields) of normal events."""
        self.scale.fit(self._families(surprises))
        return self

    def score(self, surprises: np.ndarray) -> np.ndarray:
        """float64 (N,): the sum over the families of their standard deviations above the mean."""
        families = self.scale.transform(self._families(surprises)).clip(0, self.limit)
        return np.asarray(families.sum(axis=1, dtype=np.float64))
