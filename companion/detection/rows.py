"""Rows of numbers on the scale of their own kind."""

from __future__ import annotations

from typing import Self

import numpy as np

from companion.detection.metrics import check_scores


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
