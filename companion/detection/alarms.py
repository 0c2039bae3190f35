"""From flagged samples of a series to alarms, and how alarms meet known faults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class AlarmReport(NamedTuple):
    """How the alarms of a series meet its faults."""

    #: of each fault, in seconds, 0 if an alarm was on already; ``None`` for a fault that was missed
    delays: tuple[float | None, ...]
    detected: int  #: how many faults were found
    false_alarms: int  #: how many alarms touch no fault
    false_alarms_per_day: float


def alarm_spans(flagged: np.ndarray, merge: int = 0) -> list[tuple[int, int]]:
    """Runs of flagged samples, bool (T,), each as (start, end), the end behind its last sample.

    Runs with at most ``merge`` samples between them are one alarm.

    Example:
        >>> alarm_spans(np.array([0, 1, 1, 0, 1, 0, 0, 0, 1], dtype=bool), merge=1)
        [(1, 5), (8, 9)]
    """
    assert flagged.dtype == np.bool_, flagged.dtype
    change = np.diff(np.concatenate([[False], flagged, [False]]).astype(np.int8))
    spans: list[tuple[int, int]] = []
    for start, end in zip(np.flatnonzero(change == 1), np.flatnonzero(change == -1), strict=True):
        if spans and start - spans[-1][1] <= merge:
            spans[-1] = (spans[-1][0], int(end))
        else:
            spans.append((int(start), int(end)))
    return spans


def evaluate_alarms(
    flagged: np.ndarray,
    faults: Sequence[tuple[int, int]],
    *,
    seconds_per_sample: float,
    merge: int = 0,
    tolerance: int = 0,
) -> AlarmReport:
    """Compare flagged samples, bool (T,), with known faults, (start, end), the end behind its last sample.

    A fault is found if an alarm touches it or the ``tolerance`` samples behind it. An alarm is false if it
    touches no fault, the tolerance included. For an honest delay, flag what a monitor could know at each
    sample (:meth:`companion.data.series.Windows.at_end`), and give a tolerance of one window.
    """
    assert all(0 <= start < end <= len(flagged) for start, end in faults), "faults inside the series"
    spans = alarm_spans(flagged, merge)
    touched: set[tuple[int, int]] = set()
    delays: list[float | None] = []
    for start, end in faults:
        meeting = [(on, off) for on, off in spans if on < end + tolerance and off > start]
        touched.update(meeting)
        delays.append(max(0, meeting[0][0] - start) * seconds_per_sample if meeting else None)
    false, days = len(spans) - len(touched), len(flagged) * seconds_per_sample / 86_400
    return AlarmReport(tuple(delays), len(delays) - delays.count(None), false, false / days)


def incidents(times: np.ndarray, entities: np.ndarray, gap: float = 1800.0) -> np.ndarray:
    """Events of one entity less than ``gap`` seconds apart as one incident: int64 (N,), numbered from 0.

    Times are milliseconds, int64 (N,), in any order; entities names (N,).

    Example:
        >>> incidents(np.array([0, 60_000, 9_000_000, 0]), np.array(["a", "a", "a", "b"])).tolist()
        [0, 0, 1, 2]
    """
    who = np.unique(entities.astype(str), return_inverse=True)[1]
    order = np.lexsort((times, who))
    begins = (np.diff(who[order], prepend=-1) != 0) | (np.diff(times[order], prepend=0) >= gap * 1000)
    numbers = np.empty(len(times), dtype=np.int64)
    numbers[order] = np.cumsum(begins) - 1
    return numbers


def alert_threshold(scores: np.ndarray, times: np.ndarray, entities: np.ndarray, *, alerts: float) -> float:
    """The lowest threshold at which the events above it are at most so many :func:`incidents`, in all.

    Scores (N,), times and entities are those of normal events that the detector was not fitted on.
    """
    levels = np.unique(scores)
    low, high = 0, len(levels) - 1  # nothing is above the highest
    while low < high:
        middle = (low + high) // 2
        above = scores > levels[middle]
        found = len(np.unique(incidents(times[above], entities[above]))) if above.any() else 0
        low, high = (low, middle) if found <= alerts else (middle + 1, high)
    return float(levels[high])
