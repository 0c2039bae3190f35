"""Two functions timed in turns, so that a change in the machine's speed meets both."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np


def medians(ours: Callable[[], None], theirs: Callable[[], None], rounds: int) -> tuple[float, float]:
    """Median seconds of two functions, called in turns after one warming call each."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for function, kept in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            function()
            if turn:
                kept.append(time.perf_counter() - start)
    return float(np.median(times[0])), float(np.median(times[1]))
