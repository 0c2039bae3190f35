"""Whether later rows still look like those of training, field by field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

MARGIN = 0.05
"""Shifts that exceed chance and habit by less than this share of the rows are not worth a report."""
_BINS = 10
_SIGMAS = 4.0


class DriftError(ValueError):
    """Rows or a description that a tracker cannot take; the message says why."""


@dataclass(frozen=True)
class FieldDrift:
    """How the values of a field are spread now, and how they were.

    Attributes:
        field: its name.
        shift: total variation distance of the two distributions, the share of the rows that would need
            another value to make them equal: 0 if they are equal, 1 if they have nothing in common.
        chance: what equal distributions reach by chance, at these numbers of rows.
        usual: the shift between training and the later normal rows that were held out.
        missing: share of the rows without a value, in training and now.
        unseen: share of the rows with a value that training did not list, in training and now.
        change: the value whose share changed most, its share in training and now.
    """

    field: str
    shift: float
    chance: float
    usual: float
    missing: tuple[float, float]
    unseen: tuple[float, float]
    change: tuple[int, float, float]

    @property
    def limit(self) -> float:
        """The largest shift that is not reported, the larger of chance and habit, and ``MARGIN`` more."""
        return max(self.chance, self.usual) + MARGIN

    @property
    def drifted(self) -> bool:
        """Whether the shift is above the limit."""
        return self.shift > self.limit


class DriftTracker:
    """Counts the values of fields, chunk by chunk, and compares the counts with those of training.

    Numbers are counted in ten bins with equally many training rows each, as far as ties allow; categories by
    index. The memory is that of the counts. Chance is the mean of the distance for independent rows, and four
    standard deviations: a count of a value with share p differs by
    ``sqrt(p (1 - p) (1 / n + 1 / m))``, as standard deviation, between n and m rows. Events are not
    independent, for they come in sessions and a Sunday is no Monday. Therefore the shift must also exceed
    what was usual among normal rows later than training (:meth:`usual`), and both by ``MARGIN``.

    Args:
        fields: a name for each feature, numbers first.
        cardinalities: of each categorical feature; index 0 is for missing and 1 for unseen values.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> draw = lambda share: (np.zeros((1000, 0)), rng.choice([2, 3], (1000, 1), p=[share, 1 - share]))
        >>> tracker = DriftTracker(["os"], [4]).fit(*draw(0.5))
        >>> [tracker.fresh().update(*draw(share)).report()[0].drifted for share in (0.5, 0.8)]
        [False, True]
    """

    def __init__(self, fields: Sequence[str], cardinalities: Sequence[int]) -> None:
        self.fields, self.cardinalities = tuple(fields), tuple(int(size) for size in cardinalities)
        self.num_numbers = len(self.fields) - len(self.cardinalities)
        self._edges: list[list[float]] = []
        self._then: list[np.ndarray] = []
        self._usual = np.zeros(len(self.fields))
        self._now: list[np.ndarray] = []

    def fit(self, numerical: Any, categorical: Any) -> Self:
        """Count training rows.

        Args:
            numerical: float (N, numbers), NaN where missing.
            categorical: int (N, categorical features).

        Raises:
            DriftError: if there are no rows, or they do not fit.
        """
        numerical, categorical = self._checked(numerical, categorical)
        if len(numerical) == 0:
            raise DriftError("there are no rows to compare with")
        self._edges = []
        for column in numerical.T:
            known = column[~np.isnan(column)]
            shares = np.arange(1, _BINS) / _BINS
            self._edges.append(np.unique(np.quantile(known, shares)).tolist() if len(known) else [])
        self._then = self._counts(numerical, categorical)
        return self.fresh()

    def usual(self, numerical: Any, categorical: Any) -> Self:
        """Learn how far normal rows later than training are from it; arguments as for :meth:`fit`."""
        found = self.fresh().update(numerical, categorical).report()
        shifts = {field.field: field.shift for field in found}
        self._usual = np.array([shifts[name] for name in self.fields])
        return self.fresh()

    def fresh(self) -> Self:
        """Forget the rows of :meth:`update`."""
        self._now = [np.zeros_like(counts) for counts in self._then]
        return self

    def update(self, numerical: Any, categorical: Any) -> Self:
        """Count rows of now; arguments and errors as for :meth:`fit`."""
        if not self._then and self.fields:
            raise DriftError("fit the tracker first, on training rows")
        for own, new in zip(self._now, self._counts(*self._checked(numerical, categorical)), strict=True):
            own += new
        return self

    def report(self) -> list[FieldDrift]:
        """Every field, the farthest beyond its limit first; nothing if no rows came."""
        if not self._now or self._now[0].sum() == 0:
            return []
        found = []
        for i, (then, now) in enumerate(zip(self._then, self._now, strict=True)):
            n, m = then.sum(), now.sum()
            p, q = then / n, now / m
            pooled = (then + now) / (n + m)
            sigma = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
            mean, spread = np.sqrt(2 / np.pi) * sigma.sum(), np.sqrt((1 - 2 / np.pi) * (sigma**2).sum())
            most = int(np.abs(q - p).argmax())
            unseen = (0.0, 0.0) if i < self.num_numbers else (float(p[1]), float(q[1]))
            found.append(
                FieldDrift(
                    self.fields[i],
                    shift=float(np.abs(p - q).sum() / 2),
                    chance=float((mean + _SIGMAS * spread) / 2),
                    usual=float(self._usual[i]),
                    missing=(float(p[0]), float(q[0])),
                    unseen=unseen,
                    change=(most, float(p[most]), float(q[most])),
                )
            )
        return sorted(found, key=lambda field: field.limit - field.shift)

    def edges(self, field: int) -> list[float]:
        """Where the bins of a number end, from the second on: bin 0 counts missing values."""
        return list(self._edges[field])

    def _checked(self, numerical: Any, categorical: Any) -> tuple[np.ndarray, np.ndarray]:
        numerical, categorical = np.asarray(numerical), np.asarray(categorical)
        rows = len(numerical)
        wanted = (rows, self.num_numbers), (rows, len(self.cardinalities))
        if (numerical.shape, categorical.shape) != wanted:
            raise DriftError(f"need rows of shapes {wanted}, not {numerical.shape} and {categorical.shape}")
        return numerical, categorical

    def _counts(self, numerical: np.ndarray, categorical: np.ndarray) -> list[np.ndarray]:
        counts = []
        for column, edges in zip(numerical.T, self._edges, strict=True):
            bins = np.where(np.isnan(column), 0, 1 + np.searchsorted(edges, column, side="left"))
            counts.append(np.bincount(bins, minlength=len(edges) + 2))
        for column, size in zip(categorical.T, self.cardinalities, strict=True):
            counts.append(np.bincount(column, minlength=size))
        return counts

    def state(self) -> dict[str, Any]:
        """What was learned, as values that JSON can hold."""
        return {
            "fields": self.fields,
            "cardinalities": self.cardinalities,
            "edges": self._edges,
            "counts": [counts.tolist() for counts in self._then],
            "usual": self._usual.tolist(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The tracker that :meth:`state` described, fresh.

        Raises:
            DriftError: if the description is incomplete.
        """
        try:
            tracker = cls(state["fields"], state["cardinalities"])
            tracker._edges = state["edges"]
            tracker._then = [np.array(counts, dtype=np.int64) for counts in state["counts"]]
            tracker._usual = np.array(state["usual"], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise DriftError(f"this describes no tracker: {error}") from error
        return tracker.fresh()
