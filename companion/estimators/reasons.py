"""Why an event or a row is unusual: fields, their values, and what was expected in their place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from companion.detection.event_detectors import ClassRarity, EntityFrequency, GroupShares, Rate
from companion.detection.plain_columns import MISSING, UNSEEN, Column
from companion.detection.rates import CLASS_FIELDS, COUNTS
from companion.detection.simple import SimpleDetectors
from companion.estimators.surprise import Surprise

_LEAST = 1.5  # standard deviations, or nats; less is no reason


@dataclass(frozen=True)
class Reason:
    """One field that makes a row unusual."""

    field: str
    value: str
    expected: str
    why: str  #: ``rate``, ``rare``, ``rare for it`` or ``surprise``
    weight: float  #: standard deviations; nats for ``rare for it``

    def __str__(self) -> str:
        return f"{self.field} = {self.value}, expected {self.expected} ({self.why}, {self.weight:.1f})"


def reasons(
    frame: pd.DataFrame, simple: SimpleDetectors, net: Surprise | None, count: int
) -> list[list[Reason]]:
    """At most ``count`` reasons for each row, strongest first; none that weighs little or was expected.

    Rows are events with the columns ``RATES``.
    """
    rows = simple.columns.transform(frame)
    found: list[list[Reason]] = [[] for _ in range(len(frame))]
    for detector in simple.detectors.values():
        if isinstance(detector, Rate):
            scores = detector.usual_.transform(rows.rates, rows.kinds)
            for i, j in np.argwhere(scores > _LEAST).tolist():
                usual = detector.usual_.stats_.get(rows.kinds[i], detector.usual_.stats_[""])
                limit = np.expm1(usual[0][j] + 2 * usual[1][j])
                value = f"{np.expm1(rows.rates[i, j]):,.4g}"
                found[i].append(Reason(COUNTS[j], value, f"up to {limit:,.3g}", "rate", scores[i, j]))
        elif isinstance(detector, (ClassRarity, EntityFrequency)):
            scores, groups, why = detector.costs(rows), rows.kinds, "rare"
            if isinstance(detector, EntityFrequency):
                scores, groups, why = scores * detector.shares.habits_, rows.entities, "rare for it"
            for i, j in np.argwhere(scores > _LEAST).tolist():
                column, part = simple.columns.coded[j]
                told = _common(detector.shares, str(groups[i]), j, column, part)
                time = column.kind == "time"
                value = f"{rows.codes[i, j] - 2:02d} h" if time else _shown(frame, column.name, i)
                found[i].append(Reason(column.name, value, told, why, scores[i, j]))
    if net is not None:
        scores, names = net.costs(frame), net.features.fields
        for j in np.flatnonzero((scores > _LEAST).any(axis=0)).tolist():
            own_rows = np.flatnonzero(scores[:, j] > _LEAST)
            told_all = net.expected(frame.iloc[own_rows], names[j])
            for i, told in zip(own_rows.tolist(), told_all, strict=True):
                value = _shown(frame, names[j], i)
                found[i].append(Reason(names[j], value, told, "surprise", scores[i, j]))
    return [_strongest(own, count) for own in found]


def _strongest(found: Sequence[Reason], count: int) -> list[Reason]:
    kept: dict[str, Reason] = {}
    for reason in sorted(found, key=lambda each: -each.weight):
        expected = reason.expected.rpartition(" (")[0] or reason.expected
        if reason.field not in (*CLASS_FIELDS, *kept) and reason.value != expected:
            kept[reason.field] = reason
    return list(kept.values())[:count]


def _shown(frame: pd.DataFrame, name: str, row: int) -> str:
    value: Any = frame[name].iloc[row] if name in frame.columns else None
    if pd.isna(value):
        return "missing"
    if name == "time":
        return f"{pd.Timestamp(value, unit='ms', tz='UTC'):%a %H:%M} UTC"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.4g}"
    return _short(int(value) if isinstance(value, float) else value)


def _short(value: Any) -> str:
    return " ".join(str(value).split())[:80]


def _common(shares: GroupShares, group: str, field: int, column: Column, part: str) -> str:
    """What is common in a field of one group, a type or an entity: its most frequent value and its share."""
    place = int(np.searchsorted(shares.names_, group))
    place = place if place < len(shares.names_) and shares.names_[place] == group else len(shares.names_)
    first, last = shares.edges[field], shares.edges[field + 1]
    counts = np.asarray(shares.counts_[place, first:last].todense()).ravel()
    if counts.sum() == 0:
        return "nothing known"
    code = int(counts.argmax())
    share = f" ({100 * counts[code] / counts.sum():.0f} %)"
    if column.kind == "number" and counts[2:].sum():
        known = np.cumsum(counts[2:]) / counts[2:].sum()
        bins = [int(np.searchsorted(known, level)) for level in (0.05, 0.95)]
        ends = [np.sign(e) * np.expm1(abs(e)) for e in (-np.inf, *column.edges, np.inf)]
        low, high = ends[bins[0]], ends[min(bins[1], len(ends) - 2) + 1]
        if np.isinf(low):
            return f"up to {high:,.4g}"
        return f"{low:,.4g} and more" if np.isinf(high) else f"{low:,.4g} to {high:,.4g}"
    if code in (MISSING, UNSEEN):
        return ("missing" if code == MISSING else "values seen once") + share
    if column.kind == "time":
        day = counts[2:26]
        within = np.array([np.roll(day, -hour)[:8].sum() for hour in range(24)])  # the busiest eight hours
        start = int(within.argmax())
        return f"{start:02d} to {(start + 8) % 24:02d} h local ({100 * within[start] / counts.sum():.0f} %)"
    return _short((column.stems if part == "stem" else column.values)[code - 2]) + share
