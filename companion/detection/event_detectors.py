"""Detectors for events and rows of tables that need no net, and the one table of them, ``EVENT_DETECTORS``.

Each is fitted on ``EventRows`` of normal rows and scores others, float64 (N,), higher for the unusual.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, IsolationForest
from sklearn.neighbors import LocalOutlierFactor

from companion.detection.detectors import GroupStandardizer, NeighborIndex
from companion.detection.plain_columns import UNSEEN, EventRows, PlainColumns

_LIMIT = 10.0  # standard deviations of one field; more count no more
_STORED = 10_000  # normal rows that neighbours are looked for among, drawn at random


class Rate:
    """The largest of the window counts, in standard deviations of their logarithm for that type of event."""

    def fit(self, rows: EventRows) -> Self:
        """Learn what is usual for each type."""
        self.usual_ = GroupStandardizer().fit(rows.rates, rows.kinds)
        return self

    def score(self, rows: EventRows) -> np.ndarray:
        """float64 (N,)."""
        return np.asarray(self.usual_.transform(rows.rates, rows.kinds).max(axis=1))


class GroupShares:
    """How common each code is in its group and in all, smoothed: the counts behind habit and rarity.

    ``p(code | group) = (count + 2 p(code)) / (rows of the group + 2)``; ``p(code)`` has half a count more. A
    group without rows has the shares of all.
    """

    def __init__(self, cardinalities: list[int]) -> None:
        self.edges = np.concatenate([[0], np.cumsum(cardinalities)]).astype(np.int64)  # fields side by side

    def fit(self, codes: np.ndarray, groups: np.ndarray) -> Self:
        """Count codes (N, fields) of rows by their group, text (N,)."""
        self.names_, numbers = np.unique(groups.astype(str), return_inverse=True)
        shape = (len(self.names_) + 1, int(self.edges[-1]))  # the last row: groups never seen
        places = (codes + self.edges[:-1]).ravel()
        owners = np.repeat(numbers, codes.shape[1])
        self.counts_ = sp.csr_matrix((np.ones(len(places)), (owners, places)), shape)
        sums = np.asarray(self.counts_.sum(axis=0)).ravel()
        varies = np.add.reduceat(sums > 0, self.edges[:-1], dtype=np.int64) > 1  # (fields,)
        unseen = sums[self.edges[:-1] + UNSEEN]
        self.habits_ = varies & (unseen < np.add.reduceat(sums, self.edges[:-1]) / 2)
        sums += 0.5
        totals = np.add.reduceat(sums, self.edges[:-1])
        self.everyone_ = sums / np.repeat(totals, np.diff(self.edges))
        self.rows_ = np.asarray(self.counts_[:, : self.edges[1]].sum(axis=1)).ravel()  # of each group
        return self

    def log_shares(self, codes: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms of ``p(code | group)`` and of ``p(code)``, float64 (N, fields)."""
        if len(codes) == 0:  # SciPy makes one number of no places
            return np.empty(codes.shape), np.empty(codes.shape)
        names = groups.astype(str)
        places = np.searchsorted(self.names_, names).clip(max=len(self.names_) - 1)
        owners = np.where(self.names_[places] == names, places, len(self.names_))
        columns = codes + self.edges[:-1]  # (N, fields)
        everyone = self.everyone_[columns]
        count = np.asarray(self.counts_[np.repeat(owners, codes.shape[1]), columns.ravel()])
        own = count.reshape(codes.shape) + 2 * everyone
        return np.log(own / (self.rows_[owners, None] + 2)), np.log(everyone)


class EntityFrequency:
    """Which values are rarer for this entity than for everyone.

    A value costs ``log(p(value) / p(value | entity))``; the score is the mean of the row's five largest
    costs. A new entity costs 0 everywhere.
    """

    def __init__(self, cardinalities: list[int]) -> None:
        self.shares = GroupShares(cardinalities)

    def fit(self, rows: EventRows) -> Self:
        """Count the values of each entity."""
        self.shares.fit(rows.codes, rows.entities)
        return self

    def costs(self, rows: EventRows) -> np.ndarray:
        """float64 (N, fields) in nats; negative where the value is a habit."""
        own, everyone = self.shares.log_shares(rows.codes, rows.entities)
        return np.asarray(everyone - own)

    def score(self, rows: EventRows) -> np.ndarray:
        """float64 (N,)."""
        costs = self.costs(rows)[:, self.shares.habits_]  # not what never or always varies
        return np.asarray(np.sort(costs, axis=1)[:, -5:].mean(axis=1))


class ClassRarity:
    """How rare each value is among events of the same type, all fields as if independent.

    The cost of a value is ``-log p(value | type)``; the score is the sum of how many standard deviations it
    is above the mean of its field and type, from 0 to 10. With bins for the numbers this is HBOS (Goldstein
    and Dengel 2012, "Histogram-based Outlier Score (HBOS)"), by type.
    """

    def __init__(self, cardinalities: list[int]) -> None:
        self.shares, self.usual = GroupShares(cardinalities), GroupStandardizer()

    def fit(self, rows: EventRows) -> Self:
        """Count the values of each type."""
        self.shares.fit(rows.codes, rows.kinds)
        self.usual.fit(self._nats(rows), rows.kinds)
        return self

    def _nats(self, rows: EventRows) -> np.ndarray:
        return -self.shares.log_shares(rows.codes, rows.kinds)[0]

    def costs(self, rows: EventRows) -> np.ndarray:
        """float64 (N, fields) in standard deviations."""
        return self.usual.transform(self._nats(rows), rows.kinds).clip(0, _LIMIT)

    def score(self, rows: EventRows) -> np.ndarray:
        """float64 (N,)."""
        return np.asarray(self.costs(rows).sum(axis=1))


class OnPlain:
    """A model of scikit-learn, fitted on at most so many rows of the plain columns."""

    def __init__(self, model: Any, most: int, seed: int) -> None:
        self.model, self.most, self.seed = model, most, seed

    def fit(self, rows: EventRows) -> Self:
        """Learn from rows drawn at random."""
        self.model.fit(rows.plain[drawn(len(rows), self.most, self.seed)])
        return self

    def score(self, rows: EventRows) -> np.ndarray:
        """float64 (N,)."""
        if len(rows) == 0:  # scikit-learn wants a row
            return np.empty(0)
        return -np.asarray(self.model.score_samples(rows.plain), dtype=np.float64)  # low for the unusual


class KindNeighbors:
    """The mean distance to the five nearest of the stored rows, of the same type where 100 of it are stored.

    Types are searched by themselves because what an event is compared with should be of its kind, and because
    the time grows with the rows searched.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, rows: EventRows) -> Self:
        """Store rows drawn at random."""
        rows = rows[drawn(len(rows), _STORED, self.seed)]
        kinds = pd.Series(rows.kinds).groupby(rows.kinds).indices
        parts = {"": rows} | {name: rows[own] for name, own in kinds.items() if len(own) >= 100}
        self.indices_ = {name: NeighborIndex(5).fit(part.plain) for name, part in parts.items()}
        return self

    def score(self, rows: EventRows) -> np.ndarray:
        """float64 (N,)."""
        result = np.empty(len(rows))
        for name, own in pd.Series(rows.kinds).groupby(rows.kinds).indices.items():
            result[own] = self.indices_.get(name, self.indices_[""]).score(rows.plain[own])
        return result


def drawn(count: int, most: int, seed: int) -> np.ndarray:
    """Row numbers, rising, at most so many of them, drawn at random."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


class FRaC:
    """Every field is predicted from all others by gradient boosting; what is badly predicted is unusual.

    Source: Noto, Brodley and Slonim, "FRaC: a feature-modeling approach for semi-supervised and unsupervised
    anomaly detection", 2012, section 2: the score is the sum over the fields of
    ``-log p(value | the others)`` minus the entropy of the field.

    Differences: one boosting a field in place of several learners; the error of a number is normally
    distributed with the standard deviation of held-out rows, a category has the boosting's own probabilities,
    with one in a hundred spread over all; for speed the 20 most varied fields, 15 categories of each, and
    10,000 rows; a field counts at most 10 nats.
    """

    def __init__(self, columns: PlainColumns, seed: int = 0) -> None:
        self.columns, self.seed = columns, seed

    def fit(self, rows: EventRows) -> Self:
        """Learn the fields on two thirds of the rows, and their usual surprise on the last third."""
        rows = rows[drawn(len(rows), 10_000, self.seed)]
        inputs, numbers = self._table(rows)
        order = np.random.default_rng(self.seed).permutation(len(rows))
        learn, held = order[: 2 * len(rows) // 3], order[2 * len(rows) // 3 :]
        shares = [np.unique(column.round(1), return_counts=True)[1] / len(rows) for column in inputs.T]
        entropy = np.array([-(share * np.log(share)).sum() for share in shares])
        self.models_: list[tuple[int, Any, float]] = []
        for field in np.argsort(-entropy, kind="stable")[:20]:
            if len(np.unique(inputs[learn, field])) < 2:
                continue
            others = np.arange(inputs.shape[1]) != field
            kind = HistGradientBoostingRegressor if numbers[field] else HistGradientBoostingClassifier
            model = kind(
                max_iter=20, learning_rate=0.2, max_leaf_nodes=15, random_state=self.seed,
                categorical_features=~numbers[others],
            ).fit(inputs[learn][:, others], _target(inputs[learn, field], numbers[field]))  # fmt: skip
            error = inputs[held, field] - model.predict(inputs[held][:, others]) if numbers[field] else 1.0
            self.models_.append((int(field), model, float(np.std(error)) + 0.05))
        self.entropy_ = self._nats(rows[held]).mean(axis=0)
        return self

    def _table(self, rows: EventRows) -> tuple[np.ndarray, np.ndarray]:
        """Inputs float64 (N, fields), numbers scaled and categories as codes, and which are numbers."""
        coded, starts = self.columns.coded, [name for name, _ in self.columns.feature_names]
        inputs = np.minimum(rows.codes, 254).astype(np.float64)
        for i, (column, _) in enumerate(coded):
            if column.kind == "number":
                inputs[:, i] = rows.plain[:, starts.index(column.name)]
        # of a text its stem alone, which says more of it than which of a thousand it is
        kept = [i for i, (column, part) in enumerate(coded) if part == "stem" or not column.stems]
        return inputs[:, kept], np.array([coded[i][0].kind == "number" for i in kept])

    def _nats(self, rows: EventRows) -> np.ndarray:
        """The surprise of each modelled field, float64 (N, models)."""
        if len(rows) == 0:  # scikit-learn wants a row
            return np.empty((0, len(self.models_)))
        inputs, numbers = self._table(rows)
        found = np.empty((len(rows), len(self.models_)))
        for i, (field, model, scale) in enumerate(self.models_):
            others = np.arange(inputs.shape[1]) != field
            target = _target(inputs[:, field], numbers[field])
            if numbers[field]:
                error = (target - model.predict(inputs[:, others])) / scale
                found[:, i] = error**2 / 2 + np.log(scale)
            else:
                shares = model.predict_proba(inputs[:, others])
                places = np.searchsorted(model.classes_, target).clip(max=len(model.classes_) - 1)
                right = np.where(model.classes_[places] == target, shares[np.arange(len(rows)), places], 0.0)
                found[:, i] = -np.log(0.99 * right + 0.01 / len(model.classes_))
        return found

    def score(self, rows: EventRows) -> np.ndarray:
        """float64 (N,)."""
        return np.asarray((self._nats(rows) - self.entropy_).clip(max=_LIMIT).sum(axis=1))


def _target(column: np.ndarray, number: bool) -> np.ndarray:
    return column if number else np.minimum(column, 16).astype(np.int64)


EVENT_DETECTORS: dict[str, Callable[[PlainColumns, int], Any]] = {
    "rate": lambda columns, seed: Rate(),
    "entity frequency": lambda columns, seed: EntityFrequency(columns.cardinalities),
    "class rarity": lambda columns, seed: ClassRarity(columns.cardinalities),
    "isolation forest": lambda columns, seed: OnPlain(IsolationForest(random_state=seed), 10**6, seed),
    "local outlier factor": lambda columns, seed: OnPlain(LocalOutlierFactor(novelty=True), _STORED, seed),
    "nearest neighbours": lambda columns, seed: KindNeighbors(seed),
    "FRaC": FRaC,
}
"""By name, of the fitted columns and a seed."""
