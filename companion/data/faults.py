"""A generated series of a machine, with faults at known times.

There is no real machine behind it: it shows what windows, thresholds and alarms do where
every fault is known.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

KINDS = ("spike", "flat line", "weak", "rhythm", "noise", "drift")
"""A burst of a few samples, a stuck sensor, half the amplitude, twice the pace, strong noise, a slow rise."""
SECONDS_PER_SAMPLE = 10.0
PER_DAY = round(86_400 / SECONDS_PER_SAMPLE)
_PERIOD = 60  # samples in a cycle
_LENGTHS = {"spike": 4, "flat line": 90, "weak": 180, "rhythm": 180, "noise": 120, "drift": 360}


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        start: its first sample.
        end: the sample behind its last one.
        kind: one of :data:`KINDS`.
    """

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class FaultySeries:
    """A generated series, in three parts that follow each other.

    Attributes:
        values: float32 (T,), a sample every ``seconds_per_sample``.
        faults: all of them, in the order of time; they do not overlap and lie in the test part.
        train_end: the samples before this one are free of faults, for training.
        validation_end: the samples from ``train_end`` to before this one are free of faults, too.
        seconds_per_sample: how long a sample lasts.
        digest: SHA-256 of the values.
        synthetic: always true.
    """

    values: np.ndarray
    faults: tuple[Fault, ...]
    train_end: int
    validation_end: int
    seconds_per_sample: float
    digest: str
    synthetic: bool = True

    @property
    def labels(self) -> np.ndarray:
        """Whether each sample lies in a fault, bool (T,)."""
        labels = np.zeros(len(self.values), dtype=bool)
        for fault in self.faults:
            labels[fault.start : fault.end] = True
        return labels


def faulty_series(
    seed: int = 0, *, train_days: int = 3, validation_days: int = 2, test_days: int = 5, per_kind: int = 3
) -> FaultySeries:
    """A machine's cycle (a fast rise, a slow fall, a ripple) whose pace and height wander, under noise.

    Args:
        seed: the same seed gives the same series.
        train_days: days without faults, for training.
        validation_days: days without faults, for thresholds.
        test_days: days with faults.
        per_kind: faults of each of the :data:`KINDS`, at random times in the test days.

    Raises:
        ValueError: if a number is not positive, or the faults have no room in the test days.
    """
    days = (train_days, validation_days, test_days)
    if min(days) < 1 or per_kind < 0:
        raise ValueError(
            f"need at least one day for each part and no negative per_kind, not {days}, {per_kind}"
        )
    rng = np.random.default_rng(seed)
    total, begin = sum(days) * PER_DAY, (train_days + validation_days) * PER_DAY
    kinds = rng.permutation(np.repeat(KINDS, per_kind))
    faults: list[Fault] = []
    if len(kinds):
        room = (total - begin) // len(kinds)  # each fault has its own slot, and a free cycle on both sides
        if room < max(_LENGTHS.values()) + 4 * _PERIOD:
            raise ValueError(f"{len(kinds)} faults have no room in {test_days} days; take fewer or more days")
        for slot, kind in enumerate(kinds):
            first = begin + slot * room + 2 * _PERIOD
            start = int(rng.integers(first, first + room - _LENGTHS[kind] - 4 * _PERIOD + 1))
            faults.append(Fault(start, start + _LENGTHS[kind], str(kind)))

    pace = 1 + 0.05 * _wander(rng, total, 30 * _PERIOD)
    for fault in faults:
        if fault.kind == "rhythm":
            pace[fault.start : fault.end] *= 2
    phase = np.cumsum(pace / _PERIOD) % 1
    rise = np.minimum(phase / 0.2, (1 - phase) / 0.8)
    cycle = rise + 0.15 * np.sin(2 * np.pi * 5 * phase) * (phase > 0.2)
    values = cycle * (1 + 0.05 * _wander(rng, total, 60 * _PERIOD)) + 0.03 * rng.normal(size=total)
    for fault in faults:
        part = slice(fault.start, fault.end)
        values[part] = _damaged(values[part], fault.kind, rng)
    values = values.astype(np.float32)
    digest = hashlib.sha256(values.tobytes()).hexdigest()
    return FaultySeries(values, tuple(faults), train_days * PER_DAY, begin, SECONDS_PER_SAMPLE, digest)


def _wander(rng: np.random.Generator, length: int, smooth: int) -> np.ndarray:
    """Slow random changes: normally distributed knots, ``smooth`` samples apart, joined by straight lines."""
    knots = rng.normal(size=length // smooth + 3)
    return np.interp(np.arange(length) / smooth, np.arange(len(knots)), knots)


def _damaged(values: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """What a fault makes of its samples; "rhythm" has changed the pace before."""
    if kind == "spike":
        return values + 1.0
    if kind == "flat line":
        return np.full_like(values, values[0])
    if kind == "weak":
        return 0.5 * values
    if kind == "noise":
        noisy: np.ndarray = values + 0.2 * rng.normal(size=len(values))
        return noisy
    if kind == "drift":
        return values + np.linspace(0, 1, len(values))
    return values
