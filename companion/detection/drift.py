"""Whether later rows still look like those that a detector was fitted on, field by field."""

from __future__ import annotations

from typing import Any

import numpy as np

from companion.detection.plain_columns import UNSEEN, EventRows, PlainColumns

_LEAST = 200  # rows before anything is said
_SHARE, _SHIFT = 0.05, 1.0  # of unseen values more than held out; robust standard deviations


class Drift:
    """Counts, field by field, values that training did not know, and sums up numbers.

    Both are compared with those of held-out rows. Rows may come in parts.
    """

    def __init__(self, columns: PlainColumns) -> None:
        self.columns = columns
        names = [name for name, _ in columns.feature_names]
        self.sizes = {c.name: names.index(c.name) for c in columns.columns_ if c.kind == "number"}
        self.unseen, self.sums, self.rows = np.zeros(len(columns.coded)), np.zeros(len(self.sizes)), 0

    def add(self, rows: EventRows) -> Drift:
        """Count rows."""
        self.unseen += (rows.codes == UNSEEN).sum(axis=0)
        self.sums += rows.plain[:, list(self.sizes.values())].sum(axis=0)
        self.rows += len(rows)
        return self

    def lines(self, held: Drift) -> list[str]:
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

    def state(self) -> dict[str, Any]:
        """What was counted."""
        return {"unseen": self.unseen.tolist(), "sums": self.sums.tolist(), "rows": self.rows}

    def restore(self, state: dict[str, Any]) -> Drift:
        """Take what :meth:`state` gave."""
        self.unseen, self.sums = np.array(state["unseen"]), np.array(state["sums"])
        self.rows = int(state["rows"])
        return self
