"""From OCSF events to tensors: which field is a quantity, a category or an identifier, and what came last."""

import re
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from torch import Tensor

from companion.data.events import ENTITY_COLUMNS, entities
from companion.detection.plain_columns import CODES
from companion.objectives.encoding import TableEncoder, factorize

GAP = "seconds since the entity's last event"
_ZONE = "timezone_offset"
_RECORDS = ("pid", "tid", "metadata.uid", "session.uid", "metadata.log_name")
"""Endings of fields that name one record, process or session: there is nothing to learn in them."""
MOST, MIN_COUNT, MAX_DISTINCT = 256, 2, 0.5
"""A field's values with an index of their own, at most; how often training must have seen them (once is about
as likely as unseen, Good 1953); the share of different values above which more than ``MOST`` are noise.
"""
_OBJECTS = ("user", "process", "parent_process", "session")  # of their own wherever they are found
_TWIN = re.compile(r"_(id|uid|name|type|type_id|code|detail)$")
_CLASS = ("class", "category", "activity", "type")


def field_family(name: str) -> str:
    """What a field belongs to: fields of one family tell of each other nearly by definition.

    The fields of one object, those that say one thing twice, and those that tell the kind of event.

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


class EventFeatures:
    """Fields of events, or columns of any table, as numbers and categories, fitted on normal rows.

    Text and truth values are categories, and so are whole numbers that name something (OCSF's ``*_id``,
    codes, ports) or have two values only. Other numbers are quantities. Left out are fields that never vary,
    that name one record, process or session, whose values are nearly all different, or that repeat another
    one of their family (a name and its number), and times other than ``time``. Added are hour and weekday as
    circles, local where there is a ``timezone_offset`` (minutes), and the time since the entity's last event.

    ``columns`` name an entity; fields to ``leave_out`` must not be used, such as those that tell the label.
    """

    def __init__(self, columns: Sequence[str] = ENTITY_COLUMNS, leave_out: Sequence[str] = ()) -> None:
        self.columns, self.leave_out = tuple(columns), tuple(leave_out)
        self.encoder: TableEncoder | None = None

    def fit(self, frame: pd.DataFrame, gaps: np.ndarray | None = None) -> Self:
        """Choose fields and learn scales and categories from normal events.

        They are in the order of their ``time``, in milliseconds, if the table has it. Of a sample give the
        ``gaps`` among all events, as :meth:`gaps` does.
        """
        if len(frame) == 0:
            raise ValueError("there are no events to fit on")
        kinds, seen = {}, set()
        for name, column in frame.items():
            kinds[str(name)] = kind = self._kind(str(name), column)
            if kind == "category":
                told = field_family(str(name)), factorize(column)[0].tobytes()
                kinds[str(name)] = "nothing" if told in seen else kind
                seen.add(told)
        numbers, categories = (
            [name for name, own in kinds.items() if own == kind] for kind in ("number", "category")
        )
        times = ["time"] if "time" in kinds else []
        self.encoder = TableEncoder([GAP, *numbers], categories, times, min_count=MIN_COUNT, most=MOST)
        self.encoder.fit(self._prepared(frame, gaps))
        return self

    def _kind(self, name: str, column: pd.Series) -> str:
        known = column.dropna()
        distinct = known.nunique()
        if name in (*self.leave_out, "time", GAP) or name.endswith(("_time", *_RECORDS)) or distinct == 0:
            return "nothing"
        if distinct == 1 and len(known) == len(column):
            return "nothing"
        is_text = not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)
        if not is_text and not name.endswith(CODES) and distinct > 2:
            return "number"
        return "nothing" if distinct > MOST and distinct > MAX_DISTINCT * len(known) else "category"

    def _prepared(self, frame: pd.DataFrame, gaps: np.ndarray | None) -> pd.DataFrame:
        """The fields that the encoder takes; those that the frame lacks are missing in every event."""
        encoder = self.fitted
        columns: dict[str, Any] = {GAP: self.gaps(frame) if gaps is None else gaps}
        if encoder.times:
            zone = frame[_ZONE].fillna(0).to_numpy(dtype=np.int64) if _ZONE in frame.columns else 0
            local = frame["time"].to_numpy(dtype=np.int64) + 60_000 * zone
            columns["time"] = pd.to_datetime(local, unit="ms", utc=True)
        there = frame.reindex(columns=[*encoder.numerical[1:], *encoder.categorical])
        for name in encoder.numerical[1:]:
            numbers = pd.to_numeric(there[name], errors="coerce")
            columns[name] = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
        columns |= {name: there[name].array for name in encoder.categorical}
        return pd.DataFrame(columns, copy=False)

    def gaps(self, frame: pd.DataFrame) -> np.ndarray:
        """Seconds since each entity's last event, float64 (N,); 0 for a table without times or entities."""
        if "time" not in frame.columns or not any(name in frame.columns for name in self.columns):
            return np.zeros(len(frame))
        time = pd.Series(frame["time"].to_numpy(dtype=np.int64))
        who = entities(frame, self.columns).fillna("").to_numpy(dtype=object)
        return np.asarray(time.groupby(who).diff().to_numpy(dtype=np.float64) / 1000)

    def transform(self, frame: pd.DataFrame, gaps: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        """Events (N) as float32 (N, numerical features) without NaN, and int64 (N, categorical fields).

        Unknown fields are ignored, lacking ones are missing; with ``gaps`` the events may have any order.
        """
        return self.fitted.transform(self._prepared(frame, gaps))

    @property
    def fitted(self) -> TableEncoder:
        """The encoder, once there is one."""
        if self.encoder is None:
            raise ValueError("fit the features first, on normal events of the past")
        return self.encoder

    @property
    def fields(self) -> list[str]:
        """The OCSF name of each feature's field, numbers first; or ``GAP``, or ``"time"`` for the circles."""
        names = [name.removesuffix(" is missing") for name in self.fitted.feature_names]
        numbers = ["time" if name.startswith("time: ") else name for name in names]
        return [*numbers, *self.fitted.categorical]

    @property
    def families(self) -> list[str]:
        """The families of fields, sorted; each is hidden as one."""
        return sorted({field_family(name) for name in self.fields})

    def groups(self) -> tuple[int, ...]:
        """For each feature, numbers first, the place of its family in :attr:`families`."""
        number = {family: i for i, family in enumerate(self.families)}
        return tuple(number[field_family(name)] for name in self.fields)
