"""The simple detectors together: fitted on frames in parts, kept as the rows from which they grow again."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import pandas as pd

from companion.detection.event_detectors import EVENT_DETECTORS, drawn
from companion.detection.plain_columns import UNSEEN, Column, EventRows, PlainColumns

CHUNK = 25_000  # rows that are made numbers at a time
_STORED = 4_000  # rows kept for the forest and the neighbours
_LEAST = 200  # rows before drift is told
_SHARE, _SHIFT = 0.05, 1.0  # of unseen values more than held out; robust standard deviations
_COUNTING = ("rate", "entity frequency", "class rarity")  # without times the last of them only


class Drift:
    """Whether later rows still look like those held out: shares of unknown values, means of numbers."""

    def __init__(self, columns: PlainColumns) -> None:
        self.columns = columns
        names = [name for name, _ in columns.feature_names]
        self.sizes = {c.name: names.index(c.name) for c in columns.columns_ if c.kind == "number"}
        self.unseen, self.sums, self.rows = np.zeros(len(columns.coded)), np.zeros(len(self.sizes)), 0

    def add(self, rows: EventRows) -> Self:
        """Count rows."""
        self.unseen += (rows.codes == UNSEEN).sum(axis=0)
        self.sums += rows.plain[:, list(self.sizes.values())].sum(axis=0, dtype=np.float64)
        self.rows += len(rows)
        return self

    def lines(self, held: "Drift") -> list[str]:
        """One for each field that moved much since ``held``; empty if none did, or there are too few rows."""
        if min(self.rows, held.rows) < _LEAST:
            return []
        lines = []
        news = zip(self.columns.coded, self.unseen / self.rows, held.unseen / held.rows, strict=True)
        for (column, part), now, then in news:
            if part == "value" and now > max(then + _SHARE, 2 * then):
                lines.append(f"{column.name}: {100 * now:.0f} % new values, {100 * then:.0f} % when fitted")
        means = zip(self.sizes, self.sums / self.rows, held.sums / held.rows, strict=True)
        for name, now, then in means:
            if abs(now - then) > _SHIFT:
                way = "higher" if now > then else "lower"
                lines.append(f"{name}: {abs(now - then):.1f} standard deviations {way} than when fitted")
        return lines


class SimpleDetectors:
    """Those that are quickly fitted: the counting ones on all rows, others on 4,000; ``timed`` for events."""

    def __init__(self, columns: PlainColumns, timed: bool, seed: int = 0) -> None:
        self.columns, self.timed, self.seed = columns, timed, seed

    def fit(self, frame: pd.DataFrame) -> Self:
        """Learn from a frame (N, columns)."""
        self.columns.fit(frame)
        parts = []
        for start in range(0, len(frame), CHUNK):
            rows = self.columns.transform(frame.iloc[start : start + CHUNK])
            parts.append([rows.codes, rows.rates.astype(np.float32), rows.kinds, rows.entities])
        some = drawn(len(frame), _STORED, self.seed)
        self._plain = self.columns.transform(frame.iloc[some]).plain.astype(np.float32)
        self._counted = [np.concatenate(part) for part in zip(*parts, strict=True)]
        return self._grow()

    def _grow(self) -> Self:
        count = len(self._counted[0])
        counted = EventRows(np.empty((count, 0)), *self._counted)
        some = drawn(count, _STORED, self.seed)
        stored = EventRows(self._plain, *(part[some] for part in self._counted))
        self.detectors: dict[str, Any] = {}
        names = _COUNTING if self.timed else _COUNTING[2:]
        for name in (*names, "isolation forest", "nearest neighbours"):
            detector = EVENT_DETECTORS[name](self.columns, self.seed)
            self.detectors[name] = detector.fit(counted if name in _COUNTING else stored)
        return self

    def scores(
        self, frame: pd.DataFrame, names: Sequence[str] | None = None, drift: Drift | None = None
    ) -> dict[str, np.ndarray]:
        """Of each detector, or of those named, float64 (N,); ``drift`` counts the rows."""
        rows = self.columns.transform(frame)
        _ = drift and drift.add(rows)
        return {name: self.detectors[name].score(rows) for name in names or self.detectors}

    def state(self) -> dict[str, Any]:
        """The columns, and the rows that were learned, as arrays and lists."""
        codes, rates, *names = self._counted
        return {
            "columns": [asdict(column) for column in self.columns.columns_], "plain": self._plain,
            "codes": codes.astype(np.int16), "rates": rates, "names": [packed(part) for part in names],
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> Self:
        """Take what :meth:`state` gave, and fit the detectors on it."""
        self.columns.columns_ = [Column(**own) for own in state["columns"]]
        codes = state["codes"].astype(np.int32)
        self._plain, self._counted = state["plain"], [codes, state["rates"], *map(unpacked, state["names"])]
        return self._grow()


def packed(values: Any) -> dict[str, Any]:
    """A column of texts as codes, int32 (N,), and the values that they stand for."""
    codes, unique = pd.factorize(np.asarray(values, dtype=object))
    return {"codes": codes.astype(np.int32), "values": list(unique)}


def unpacked(state: dict[str, Any]) -> np.ndarray:
    """What :func:`packed` took, object (N,)."""
    return np.asarray(np.array([*state["values"], None], dtype=object)[state["codes"]])
