"""A fair sample of events from a file of any size, in one pass."""

from __future__ import annotations

import numpy as np
import pandas as pd


class EventSample:
    """At most so many rows of all that come, each with the same chance.

    Every row gets a random number, and those with the lowest numbers are kept. (Bottom-k sampling: a fair
    sample without knowing how many will come.) Which rows are kept depends on the seed and on their order,
    not on how they are cut into frames. At most twice ``size`` rows are held, and one frame.

    Args:
        size: how many to keep.
        seed: of the draw.

    Raises:
        ValueError: if the size is below 1.

    Example:
        >>> sample = EventSample(3, seed=0)
        >>> for start in range(0, 100, 10):
        ...     sample.add(pd.DataFrame({"row": range(start, start + 10)}))
        >>> len(sample.frame()), sample.seen
        (3, 100)
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        if size < 1:
            raise ValueError(f"a sample needs at least one event, not {size}")
        self.size, self.seen = size, 0
        self._rng = np.random.default_rng(seed)
        self._parts: list[tuple[np.ndarray, pd.DataFrame]] = []
        self._limit = np.inf

    def add(self, frame: pd.DataFrame) -> None:
        """Offer the next rows (N); all frames must have the same columns."""
        keys = self._rng.random(len(frame))
        self.seen += len(frame)
        chosen = keys < self._limit
        self._parts.append((keys[chosen], frame[chosen]))
        if sum(len(keys) for keys, _ in self._parts) > 2 * self.size:
            self._prune()

    def _prune(self) -> None:
        keys = np.concatenate([keys for keys, _ in self._parts])
        frame = pd.concat([frame for _, frame in self._parts])
        if len(keys) > self.size:
            rows = np.sort(np.argpartition(keys, self.size)[: self.size])
            keys, frame = keys[rows], frame.iloc[rows]
            self._limit = keys.max()
        self._parts = [(keys, frame)]

    def frame(self) -> pd.DataFrame:
        """The rows that were kept, in the order in which they came.

        Raises:
            ValueError: if none came.
        """
        if not self._parts:
            raise ValueError("there are no events")
        self._prune()
        return self._parts[0][1]
