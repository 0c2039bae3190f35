"""Two functions timed in turns, so that a change in the machine's speed meets both."""

from __future__ import annotations

from collections.abc import Callable

from companion.models.cost import interleaved


def medians(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of two functions."""
    times = interleaved({"ours": ours, "theirs": theirs}, rounds)
    return times["ours"].median, times["theirs"].median
