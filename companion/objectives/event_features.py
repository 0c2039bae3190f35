"""From OCSF events to tensors: which field is a quantity, a category or an identifier, and what came before.

Everything is fitted on events of the past that count as normal; later events only pass through.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from companion.data.events import ENTITY_COLUMNS, seconds_since_last
from companion.objectives.encoding import EncoderError, TableEncoder

GAP = "seconds since the entity's last event"
_CODES = ("_id", "_uid", ".code", ".port", "_num", "version")
"""Endings of whole-number fields that name something and count nothing (OCSF's naming of enumerations)."""
_OBJECTS = ("user", "process", "parent_process", "session")
"""Objects that stand for someone or something of their own wherever they are found."""
_TWIN = re.compile(r"_(id|uid|name|type|type_id|code|detail)$")
_CLASS = ("class", "category", "activity", "type")


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
    """How a field becomes features."""

    max_listed: int = 256  #: categories of a field that get indices; with more, the field is hashed
    buckets: int = 256  #: of a hashed field
    #: a text field with more different values than this share of those that are there is noise, and left out
    max_distinct: float = 0.5
    min_count: int = 5  #: events that must have a value to list it; rarer ones share the index for unseen


class EventFeatures:
    """Fields of events as numbers and categories, fitted on normal events of the past.

    Text and truth values are categories, and so are whole numbers that name something (OCSF's ``*_id``,
    codes, ports). Other numbers are quantities. Fields with too many values are hashed; fields that never
    vary, or whose values are nearly all different, are left out. Times other than ``time`` are left out.
    Added are hour and weekday as points on circles, and the time since the entity's last event.

    Args:
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
            frame: events (N) with ``time`` in milliseconds, in the order of their times.
            gaps: float64 (N,), see :func:`companion.data.events.seconds_since_last`; those within the frame
                if not given. If the events are a sample, give the gaps among all of them.
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
        self.encoder.fit(self._prepared(frame, gaps))
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

    def _prepared(self, frame: pd.DataFrame, gaps: np.ndarray | None) -> pd.DataFrame:
        """The fields that the encoder takes; those that the frame lacks are missing in every event."""
        encoder = self.fitted
        columns: dict[str, Any] = {GAP: seconds_since_last(frame, self.columns) if gaps is None else gaps}
        for name in encoder.numerical[1:]:
            there = frame[name] if name in frame.columns else pd.Series(np.nan, frame.index)
            columns[name] = pd.to_numeric(there, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        for name in encoder.categorical:
            there = frame[name] if name in frame.columns else pd.Series(None, frame.index, dtype=object)
            columns[name] = there.astype(object).where(there.notna(), None).to_numpy()
        times = pd.to_datetime(frame["time"].to_numpy(dtype=np.int64), unit="ms", utc=True)
        return pd.DataFrame({**columns, "time": times})

    def transform(self, frame: pd.DataFrame, gaps: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        """Events (N) as float32 (N, numerical features) without NaN, and int64 (N, categorical fields).

        Unknown fields are ignored, lacking ones are missing; with ``gaps`` the events may have any order.
        """
        with warnings.catch_warnings():  # new users and hosts are every day's business here, and are scored
            warnings.filterwarnings("ignore", message="most values")
            return self.fitted.transform(self._prepared(frame, gaps))

    @property
    def fitted(self) -> TableEncoder:
        """The encoder, once there is one."""
        if self.encoder is None:
            raise EncoderError("fit the features first, on normal events of the past")
        return self.encoder

    @property
    def fields(self) -> list[str]:
        """The OCSF name of each feature's field, numbers first; or ``GAP``, or ``"time"`` for the circles."""
        names = [name.removesuffix(" is missing") for name in self.fitted.feature_names]
        numbers = ["time" if name.startswith("time: ") else name for name in names]
        return [*numbers, *self.fitted.categorical]

    def groups(self, passes: int | None = None) -> tuple[int, ...]:
        """An integer for each feature, numbers first, equal for those that should be hidden as one.

        These are families (:func:`field_family`); with ``passes`` there are at most so many groups, and
        families are put together, neighbours in different groups.
        """
        families = [field_family(name) for name in self.fields]
        number = {family: i for i, family in enumerate(dict.fromkeys(sorted(families)))}
        return tuple(number[family] % (passes or len(number)) for family in families)

    def to_json(self) -> dict[str, Any]:
        """Everything that the features know, as values that JSON can hold."""
        settings = {"rules": vars(self.rules), "columns": self.columns, "leave_out": self.leave_out}
        return {"settings": settings, "encoder": asdict(self.fitted)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> EventFeatures:
        """The features that :meth:`to_json` described."""
        settings = content["settings"]
        features = cls(FieldRules(**settings["rules"]), settings["columns"], settings["leave_out"])
        features.encoder = TableEncoder(**content["encoder"])
        return features
