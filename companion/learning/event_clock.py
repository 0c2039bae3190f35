"""Times of events as they come from a file: not quite in order, and some without one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from companion.data.events import ENTITY_COLUMNS, entities
from companion.learning.encoder import EncoderError

_LATEST = 9.2e12  # milliseconds; pandas counts nanoseconds in 64 bits


class EventClock:
    """The time since an entity's last event, over chunks of events in the order of the file.

    A stricter sister is :class:`companion.learning.event_features.GapTracker`, which refuses what is not in
    the order of time. Here an event that is earlier than one of its entity before it in the file is *late*:
    its gap is unknown, and missing. An event without a time is given that of the event before it in the file.
    Both are counted. So the gaps depend on the order of the events and not on how the file is cut, and
    nothing stops in the middle of it.

    Args:
        columns: what names an entity, see :func:`companion.data.events.entities`.

    Attributes:
        untimed: how many events had no time so far.
        late: how many were late.

    Example:
        >>> clock = EventClock(["who"])
        >>> frame, gaps = clock(pd.DataFrame({"time": [1000, 3000, 2000, None], "who": list("aaab")}))
        >>> gaps.tolist(), frame["time"].tolist(), clock.late, clock.untimed
        ([nan, 2.0, nan, nan], [1000, 3000, 2000, 2000], 1, 1)
    """

    def __init__(self, columns: Sequence[str] = ENTITY_COLUMNS) -> None:
        self.columns = tuple(columns)
        self.untimed = self.late = 0
        self._last: dict[str, float] = {}
        self._now = np.nan

    def __call__(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
        """The next events of the file, with a time for each, and their gaps.

        Args:
            frame: events (N) with ``time`` in milliseconds since 1970, or as ISO 8601 text.

        Returns:
            The frame with ``time`` as int64, and the seconds since the last event of the same entity, float64
            (N,), NaN for its first and for late ones.

        Raises:
            EncoderError: if there is no column ``time``, or it holds no time at all.
            DataError: if no column names an entity.
        """
        time = self._times(frame)
        who = entities(frame, self.columns).fillna("").to_numpy(dtype=object)
        group = pd.Series(time).groupby(who)
        known = group.cummax()
        before = known.groupby(who).shift().to_numpy(dtype=np.float64, na_value=-np.inf, copy=True)
        first = np.flatnonzero(np.isneginf(before))
        start = {name: self._last.get(name, -np.inf) for name in who[first]}
        before = np.maximum(before, [start[name] for name in who])
        for name, latest in group.max().items():
            self._last[str(name)] = max(start[str(name)], float(latest))
        gaps = (time - before) / 1000
        self.late += int((gaps < 0).sum())
        gaps[(gaps < 0) | np.isinf(gaps)] = np.nan
        return frame.assign(time=time.astype(np.int64)), gaps

    def _times(self, frame: pd.DataFrame) -> np.ndarray:
        """Milliseconds as float64 (N,), none missing."""
        if "time" not in frame.columns:
            raise EncoderError("the events have no field 'time' (milliseconds since 1970)")
        column = frame["time"]
        if not pd.api.types.is_numeric_dtype(column):
            moments = pd.to_datetime(column, utc=True, errors="coerce", format="ISO8601")
            since = moments - pd.Timestamp(0, tz="UTC")
            column = since / pd.Timedelta(milliseconds=1)
        time = column.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
        time[~(np.abs(time) < _LATEST)] = np.nan
        missing = np.isnan(time)
        if len(time) and missing.all() and np.isnan(self._now):
            raise EncoderError("no event has a time that can be read (milliseconds since 1970 are expected)")
        self.untimed += int(missing.sum())
        if len(time):
            filled = pd.Series(np.concatenate([[self._now], time])).ffill().bfill().to_numpy()
            self._now, time = filled[-1], filled[1:]
        return np.asarray(time, dtype=np.float64)
