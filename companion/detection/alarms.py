"""From flagged samples of a series to alarms, and how alarms meet known faults."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class AlarmReport(NamedTuple):
    """How the alarms of a series meet its faults, to someone who looks up when an alarm begins."""

    #: of each fault the seconds to the first alarm that *begins* in it; ``None`` even if one was on all along
    delays: tuple[float | None, ...]
    false_alarms: int  #: how many alarms begin outside of every fault
    false_seconds: float  #: how long an alarm is on outside of faults
    calm_seconds: float  #: how long there is no fault


def alarm_spans(flagged: np.ndarray, merge: int = 0) -> list[tuple[int, int]]:
    """Runs of flagged samples, bool (T,), each as (start, end), the end behind its last sample.

    Runs with at most ``merge`` samples between them are one alarm.
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
    flagged: np.ndarray, faults: Sequence[tuple[int, int]], *,
    seconds_per_sample: float, merge: int = 0, tolerance: int = 0,
) -> AlarmReport:  # fmt: skip
    """Compare flagged samples, bool (T,), with known faults, (start, end), the end behind its last sample.

    The ``tolerance`` samples behind a fault belong to it: windows that end there still hold some of it.
    For an honest delay, flag what a monitor could know at each sample.

    Example:
        >>> flagged = np.array([1, 1, 1, 1, 0, 0, 0, 1, 0, 1], dtype=bool)
        >>> evaluate_alarms(flagged, [(2, 4), (6, 9)], seconds_per_sample=10)
        AlarmReport(delays=(None, 10), false_alarms=2, false_seconds=30.0, calm_seconds=50.0)
    """
    assert all(0 <= start < end <= len(flagged) for start, end in faults), "faults inside the series"
    spans = alarm_spans(flagged, merge)
    on, faulty = np.zeros((2, len(flagged)), dtype=bool)
    for start, end in spans:
        on[start:end] = True
    delays: list[float | None] = []
    for start, end in faults:
        faulty[start : end + tolerance] = True
        begins = (first for first, _ in spans if start <= first < end + tolerance)
        first = next(begins, None)
        delays.append(None if first is None else (first - start) * seconds_per_sample)
    false_alarms = sum(not faulty[start] for start, _ in spans)
    seconds = [float(part.sum()) * seconds_per_sample for part in (on & ~faulty, ~faulty)]
    return AlarmReport(tuple(delays), false_alarms, *seconds)


def incidents(times: np.ndarray, entities: np.ndarray) -> np.ndarray:
    """Events of one entity less than half an hour apart as one incident: int64 (N,), numbered from 0.

    Times are milliseconds, int64 (N,), in any order; entities names (N,).
    """
    who = np.unique(entities.astype(str), return_inverse=True)[1]
    order = np.lexsort((times, who))
    begins = (np.diff(who[order], prepend=-1) != 0) | (np.diff(times[order], prepend=0) >= 1_800_000)
    numbers = np.empty(len(times), dtype=np.int64)
    numbers[order] = np.cumsum(begins) - 1
    return numbers


def days(times: Sequence[int] | np.ndarray) -> float:
    """How many days pass from the first to the last of times, in milliseconds (N,); at least one."""
    return max(1.0, float(np.ptp(times)) / 86_400_000) if len(times) else 1.0


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
