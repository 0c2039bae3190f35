"""From flagged samples of a series to alarms, and how alarms meet known faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class AlarmReport:
    """How the alarms of a series meet its faults.

    Attributes:
        alarms: (start, end) of each alarm, the end behind its last sample.
        delays: for each fault the seconds from its first sample to the first flagged one, 0 if an alarm
            was on already; ``None`` for a fault that was missed.
        false_alarms: how many alarms touch no fault.
        days: the length of the series.
    """

    alarms: tuple[tuple[int, int], ...]
    delays: tuple[float | None, ...]
    false_alarms: int
    days: float

    @property
    def detected(self) -> int:
        """How many faults were found."""
        return sum(delay is not None for delay in self.delays)

    @property
    def false_alarms_per_day(self) -> float:
        """False alarms by the length of the series."""
        return self.false_alarms / self.days


def alarm_spans(flagged: np.ndarray, merge: int = 0) -> tuple[tuple[int, int], ...]:
    """Runs of flagged samples; runs with at most ``merge`` samples between them are one alarm.

    Args:
        flagged: bool (T,).
        merge: the longest interruption of an alarm.

    Raises:
        ValueError: for another shape or type, or a negative ``merge``.

    Example:
        >>> alarm_spans(np.array([0, 1, 1, 0, 1, 0, 0, 0, 1], dtype=bool), merge=1)
        ((1, 5), (8, 9))
    """
    flagged = np.asarray(flagged)
    if flagged.ndim != 1 or flagged.dtype != bool or merge < 0:
        raise ValueError(f"need bool (T,) and merge >= 0, not {flagged.dtype} {flagged.shape} and {merge}")
    change = np.diff(np.concatenate([[False], flagged, [False]]).astype(np.int8))
    starts, ends = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    apart = starts[1:] - ends[:-1] > merge
    first, last = np.concatenate([[True], apart]), np.concatenate([apart, [True]])
    if len(starts) == 0:
        return ()
    return tuple(zip(starts[first].tolist(), ends[last].tolist(), strict=True))


def evaluate_alarms(
    flagged: np.ndarray,
    faults: Sequence[tuple[int, int]],
    *,
    seconds_per_sample: float,
    merge: int = 0,
    tolerance: int = 0,
) -> AlarmReport:
    """Compare flagged samples with known faults.

    A fault is found if an alarm touches it or the ``tolerance`` samples behind it. An alarm is false if it
    touches no fault, the tolerance included. For an honest delay, flag what a monitor could know at each
    sample (:meth:`companion.data.series.Windows.at_end`), and give a tolerance of one window.

    Args:
        flagged: bool (T,).
        faults: (start, end) of each, the end behind its last sample.
        seconds_per_sample: how long a sample lasts.
        merge: see :func:`alarm_spans`.
        tolerance: samples behind a fault that still belong to it.

    Raises:
        ValueError: if a fault is empty or outside the series, or see :func:`alarm_spans`.
    """
    flagged = np.asarray(flagged)
    spans = alarm_spans(flagged, merge)
    if any(not 0 <= start < end <= len(flagged) for start, end in faults) or seconds_per_sample <= 0:
        raise ValueError("each fault is (start, end) inside the series, and a sample lasts some time")
    touched = [False] * len(spans)
    delays: list[float | None] = []
    for start, end in faults:
        delay: float | None = None
        for i, (on, off) in enumerate(spans):
            if on < end + tolerance and off > start:
                touched[i] = True
                late = max(0, on - start) * seconds_per_sample
                delay = late if delay is None else min(delay, late)
        delays.append(delay)
    days = len(flagged) * seconds_per_sample / SECONDS_PER_DAY
    return AlarmReport(spans, tuple(delays), touched.count(False), days)
