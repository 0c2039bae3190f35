"""What is usual for rows of a kind, so that only what goes beyond it counts."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from companion.detection.vectors import VectorError

_FLOOR = 0.3
_LEAST = 100


class Usual:
    """Standardises each column of measurements by the normal rows of the same kind.

    Some fields can never be guessed, such as the port of a client, and some kinds of events have more of them
    than others. Their surprise is high and means nothing. So from each measurement the mean among normal rows
    of its kind is taken, and the rest is divided by their standard deviation plus ``_FLOOR``, which keeps
    measurements small that hardly ever vary. Kinds of fewer than ``_LEAST`` rows are measured by all rows.

    Example:
        >>> usual = Usual().fit(np.array([[1.0], [3.0]]), np.array(["a", "a"]))
        >>> usual.excess(np.array([[2.0], [3.3]]), np.array(["a", "b"])).round(3).tolist()
        [[0.0], [1.0]]
    """

    def fit(self, values: np.ndarray, kinds: np.ndarray) -> Self:
        """Learn from normal rows.

        Args:
            values: float (N, columns).
            kinds: text (N,), the kind of each row.

        Raises:
            VectorError: if there are no rows.
        """
        if len(values) == 0:
            raise VectorError("there are no rows to learn from")
        self._stats = {"": self._measure(values)}
        for kind, count in zip(*np.unique(kinds.astype(str), return_counts=True), strict=True):
            if count >= _LEAST:
                self._stats[str(kind)] = self._measure(values[kinds == kind])
        return self

    @staticmethod
    def _measure(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = values.astype(np.float64)
        return values.mean(axis=0), values.std(axis=0) + _FLOOR

    def excess(self, values: np.ndarray, kinds: np.ndarray) -> np.ndarray:
        """How far values are above what is usual for their kinds, float64 (N, columns).

        Args:
            values: float (N, columns).
            kinds: text (N,); unknown ones are measured by all rows.
        """
        result = np.empty(values.shape)
        for kind in np.unique(kinds.astype(str)):
            rows = kinds == kind
            mean, scale = self._stats.get(str(kind), self._stats[""])
            result[rows] = (values[rows] - mean) / scale
        return result

    def state(self) -> dict[str, Any]:
        """What was learned, as values that JSON can hold."""
        return {kind: [part.tolist() for part in stats] for kind, stats in self._stats.items()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """What :meth:`state` described.

        Raises:
            VectorError: if the description is incomplete.
        """
        usual = cls()
        try:
            usual._stats = {kind: (np.array(mean), np.array(scale)) for kind, (mean, scale) in state.items()}
            usual._stats[""]
        except (KeyError, TypeError, ValueError) as error:
            raise VectorError(f"this does not describe what is usual: {error!r}") from error
        return usual
