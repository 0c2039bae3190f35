"""From OCSF events to tensors: which field is a quantity, a category or an identifier, and what came before.

Everything is fitted on events of the past that count as normal; later events only pass through.

Times of events as they come from a file: not quite in order, and some without one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from companion.data.events import ENTITY_COLUMNS, entities
from companion.files import atomic_path
from companion.objectives.encoding import EncoderError, TableEncoder

GAP = "seconds since the entity's last event"
_CODES = ("_id", "_uid", ".code", ".port", "_num", "version")
"""Endings of whole-number fields that name something and count nothing (OCSF's naming of enumerations)."""
_OBJECTS = ("user", "process", "parent_process", "session")
"""Objects that stand for someone or something of their own wherever they are found."""
_TWIN = re.compile(r"_(id|uid|name|type|type_id|code|detail)$")
_CLASS = ("class", "category", "activity", "type")
_VERSION = 1


def field_family(name: str) -> str:
    """What a field belongs to: fields of one family tell of each other nearly by definition.

    They are the fields of one object (the country of an address says much about the address), fields that
    say one thing twice, as a name and a number, and the fields that together say what kind of event it is and
    which product logged it.

    Example:
        >>> [field_family(name) for name in ("src_endpoint.location.country", "status_id", "class_name")]
        ['src_endpoint', 'status', 'class']
        >>> [field_family(name) for name in ("process.file.name", "process.parent_process.name")]
        ['process', 'process.parent_process']
    """
    *parents, last = name.split(".")
    if parents:
        own = max((i for i, part in enumerate(parents) if part in _OBJECTS), default=0)
        family = ".".join(parents[: own + 1])
        return "class" if family == "metadata" else family
    stem = _TWIN.sub("", last)
    return "class" if stem in _CLASS else stem


@dataclass(frozen=True)
class FieldRules:
    """How a field becomes features.

    Attributes:
        max_listed: categories of a field that get indices of their own; with more, the field is hashed.
        buckets: of a hashed field.
        max_distinct: a text field whose values are nearly all different, more than this share of those that
            are there, tells nothing but noise and is left out.
        min_count: events that must have a value for it to be listed; rarer ones share the index for unseen.
    """

    max_listed: int = 256
    buckets: int = 256
    max_distinct: float = 0.5
    min_count: int = 5


class GapTracker:
    """The time since an entity's last event, over chunks of events in the order of their times.

    Args:
        columns: what names an entity, see :func:`companion.data.events.entities`.
    """

    def __init__(self, columns: Sequence[str] = ENTITY_COLUMNS) -> None:
        self.columns = tuple(columns)
        self._last: dict[str, int] = {}

    def __call__(self, frame: pd.DataFrame) -> np.ndarray:
        """Seconds since the last event of the same entity: float64 (N,), NaN for its first.

        Args:
            frame: events with ``time`` in milliseconds, not earlier than those of former calls.

        Raises:
            EncoderError: if there is no time, or the events are not in the order of their times.
            DataError: if no column names an entity.
        """
        if "time" not in frame.columns or frame["time"].isna().any():
            raise EncoderError("every event needs a time")
        time = frame["time"].to_numpy(dtype=np.int64)
        if (np.diff(time) < 0).any():
            raise EncoderError("the events are not in the order of their times; sort them by 'time'")
        who = entities(frame, self.columns).fillna("").to_numpy(dtype=object)
        group = pd.Series(time).groupby(who)
        before = group.shift().to_numpy(dtype=np.float64, copy=True)
        first = np.flatnonzero(np.isnan(before))
        before[first] = [self._last.get(who[row], np.nan) for row in first]
        self._last |= {str(name): int(value) for name, value in group.last().items()}
        gaps: np.ndarray = (time - before) / 1000
        return gaps


class EventFeatures:
    """Fields of events as numbers and categories, fitted on normal events of the past.

    Text and truth values are categories, and so are whole numbers that name something (OCSF's ``*_id``,
    codes, ports). Other numbers are quantities. Fields with too many values are hashed; fields that never
    vary, or whose values are nearly all different, are left out. Times other than ``time`` are left out.
    Added are hour and weekday as points on circles, and the time since the entity's last event.

    Args:
        rules: see :class:`FieldRules`.
        columns: what names an entity.
        leave_out: fields that must not be used, such as those that tell the label.

    Example:
        >>> from companion.data.ocsf_synthetic import EventConfig, generate_events
        >>> events = generate_events(EventConfig(num_events=500)).frame
        >>> numerical, categorical = EventFeatures().fit(events).transform(events)
        >>> len(numerical) == len(categorical) == 500
        True
    """

    def __init__(
        self,
        rules: FieldRules | None = None,
        columns: Sequence[str] = ENTITY_COLUMNS,
        leave_out: Sequence[str] = (),
    ) -> None:
        self.rules, self.columns, self.leave_out = rules or FieldRules(), tuple(columns), tuple(leave_out)
        self.encoder: TableEncoder | None = None

    def fit(self, frame: pd.DataFrame, gaps: np.ndarray | None = None) -> EventFeatures:
        """Choose fields and learn scales and categories from normal events.

        Args:
            frame: events in the order of their times.
            gaps: see :meth:`transform`; those within the frame if not given. If the events are a sample, give
                the gaps among all of them.

        Raises:
            EncoderError: if there are no events, no time, or no field that varies.
            DataError: if no column names an entity.
        """
        if len(frame) == 0:
            raise EncoderError("there are no events to fit on")
        numerical, categorical, hashed = [GAP], [], {}
        for name in frame.columns:
            kind = self._kind(str(name), frame[name])
            if kind == "number":
                numerical.append(name)
            elif kind != "nothing":
                categorical.append(name)
                if kind == "hashed":
                    hashed[name] = self.rules.buckets
        self.encoder = TableEncoder(
            numerical, categorical, times=["time"], hashed=hashed, min_count=self.rules.min_count
        )
        self.encoder.fit(self._prepared(frame, GapTracker(self.columns) if gaps is None else gaps))
        return self

    def _kind(self, name: str, column: pd.Series) -> str:
        known = column.dropna()
        distinct = known.nunique()
        if name in self.leave_out or name == "time" or name.endswith("_time") or distinct == 0:
            return "nothing"
        if distinct == 1 and len(known) == len(column):
            return "nothing"
        is_text = not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)
        if not is_text and not name.endswith(_CODES):
            return "number"
        if distinct > self.rules.max_listed and distinct > self.rules.max_distinct * len(known):
            return "nothing"
        return "hashed" if distinct > self.rules.max_listed else "listed"

    def _prepared(self, frame: pd.DataFrame, gaps: GapTracker | np.ndarray) -> pd.DataFrame:
        """The fields that the encoder takes; those that the frame lacks are missing in every event."""
        assert self.encoder is not None
        seconds = gaps(frame) if isinstance(gaps, GapTracker) else gaps
        numbers = self.numbers(frame, seconds)
        columns = dict(zip(self.encoder.numerical, numbers.T, strict=True))
        for name in self.encoder.categorical:
            there = frame[name] if name in frame.columns else pd.Series(None, frame.index, dtype=object)
            columns[name] = there.astype(object).where(there.notna(), None).to_numpy()
        times = pd.to_datetime(frame["time"].to_numpy(dtype=np.int64), unit="ms", utc=True)
        return pd.DataFrame({**columns, "time": times})

    def numbers(self, frame: pd.DataFrame, gaps: np.ndarray) -> np.ndarray:
        """The numerical fields in their own units.

        Args:
            frame: events (N).
            gaps: float64 (N,), in seconds.

        Returns:
            float64 (N, numerical fields), the gap first, NaN where missing.

        Raises:
            EncoderError: if nothing was fitted, or there are not as many gaps as events.
        """
        encoder = self._fitted_encoder()
        if len(gaps) != len(frame):
            raise EncoderError(f"{len(frame)} events need as many gaps, not {len(gaps)}")
        columns = [np.asarray(gaps, dtype=np.float64)]
        for name in encoder.numerical[1:]:
            there = frame[name] if name in frame.columns else pd.Series(np.nan, frame.index)
            columns.append(pd.to_numeric(there, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan))
        return np.stack(columns, axis=1)

    def transform(
        self, frame: pd.DataFrame, gaps: GapTracker | np.ndarray | None = None
    ) -> tuple[Tensor, Tensor]:
        """Events as tensors.

        Args:
            frame: events in the order of their times; unknown fields are ignored, lacking ones are missing.
            gaps: carries the entities' last times from chunk to chunk; a new one if not given. Or the gaps
                themselves, float64 (N,), in seconds; then the events may have any order.

        Returns:
            float32 (N, numerical features) without NaN, and int64 (N, categorical fields).

        Raises:
            EncoderError: if nothing was fitted, or the events have no time or the wrong order.
            DataError: if no column names an entity.
        """
        encoder = self._fitted_encoder()
        return encoder.transform(self._prepared(frame, GapTracker(self.columns) if gaps is None else gaps))

    @property
    def fields(self) -> list[str]:
        """The OCSF name of each feature's field, numbers first; or ``GAP``, or ``"time"`` for the circles.

        Raises:
            EncoderError: if nothing was fitted.
        """
        encoder = self._fitted_encoder()
        names = [name.removesuffix(" is missing") for name in encoder.feature_names]
        return ["time" if name.startswith("time: ") else name for name in names] + list(encoder.categorical)

    def groups(self, passes: int | None = None) -> tuple[int, ...]:
        """Which features should be hidden as one, see :func:`field_family`.

        Args:
            passes: the most groups that there may be; families are then put together, neighbours in
                different groups. ``None`` leaves every family alone.

        Returns:
            An integer for each feature, numbers first, equal for those of one group.

        Raises:
            EncoderError: if nothing was fitted.
            ValueError: if ``passes`` is below 1.
        """
        if passes is not None and passes < 1:
            raise ValueError(f"need at least one pass, not {passes}")
        families = [field_family(name) for name in self.fields]
        number = {family: i for i, family in enumerate(dict.fromkeys(sorted(families)))}
        return tuple(number[family] % (passes or len(number)) for family in families)

    def _fitted_encoder(self) -> TableEncoder:
        if self.encoder is None:
            raise EncoderError("fit the features first, on normal events of the past")
        return self.encoder

    def to_json(self) -> dict[str, Any]:
        """Everything that the features know, as values that JSON can hold.

        Raises:
            EncoderError: if nothing was fitted.
        """
        encoder = self._fitted_encoder()
        settings = {"rules": vars(self.rules), "columns": self.columns, "leave_out": self.leave_out}
        return {"version": _VERSION, "settings": settings, "encoder": encoder.to_json()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> EventFeatures:
        """The features that :meth:`to_json` described.

        Raises:
            EncoderError: if the content is incomplete or of another version.
        """
        try:
            if content["version"] != _VERSION:
                raise EncoderError(f"the features have version {content['version']}, not {_VERSION}")
            settings = content["settings"]
            features = cls(FieldRules(**settings["rules"]), settings["columns"], settings["leave_out"])
            features.encoder = TableEncoder.from_json(content["encoder"])
        except (KeyError, TypeError) as error:
            raise EncoderError(f"this describes no features: {error}") from error
        return features

    def save(self, path: Path) -> None:
        """Write everything as JSON.

        Raises:
            EncoderError: if nothing was fitted.
        """
        content = self.to_json()
        with atomic_path(path) as part:
            part.write_text(json.dumps(content), encoding="utf8")

    @classmethod
    def load(cls, path: Path) -> EventFeatures:
        """Read what :meth:`save` wrote.

        Raises:
            EncoderError: if the file is missing, damaged, or of another version.
        """
        try:
            return cls.from_json(json.loads(path.read_text("utf8")))
        except (OSError, ValueError) as error:
            raise EncoderError(f"{path} holds no features that can be read: {error}") from error


_LATEST = 9.2e12  # milliseconds; pandas counts nanoseconds in 64 bits


class EventClock:
    """The time since an entity's last event, over chunks of events in the order of the file.

    A stricter sister is :class:`companion.objectives.event_features.GapTracker`, which refuses what is not in
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
