"""Security events as frames of flat columns: names, types, times, entities, and splits by time.

Fields are named as the Open Cybersecurity Schema Framework names them (https://schema.ocsf.io, release
1.8.0), the parts of their path joined by dots: ``{"user": {"name": "ann"}}`` becomes ``user.name``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

ENTITY_COLUMNS = ("actor.user.uid", "user.uid", "device.uid", "src_endpoint.ip")
"""Who an event is about, the first of these that it has."""
RECORD_ID = "metadata.uid"
"""The field that holds the id of a record."""
LIST_ITEMS = 2
"""How many items of a list become columns; its length is a column, too."""


Split = dict[str, np.ndarray]
"""Rows, int64 and rising, by part: ``train`` and ``calibration`` (normal only), ``validation``, ``test``."""


@dataclass(frozen=True)
class Events:
    """Events in the order of their times, and what is known about them apart from them."""

    frame: pd.DataFrame  #: one row an event; columns are dotted OCSF names, of the types of ``tidy``
    #: the same rows: ``attack`` (its kind, missing where all is normal) and ``incident`` (the group that must
    #: not be split, never missing); generated ones have ``shape``, too (``point``, ``context``
    #: or ``order``), and the ``kind`` of session, which no field holds
    labels: pd.DataFrame
    split: Split  #: of rows; counts over time are to be taken over all rows, and then these
    entity: tuple[str, ...]  #: columns that say whom an event is about, the first of these that it has
    source: str  #: where the events came from
    digest: str  #: SHA-256 of the files, or of the config that generated them
    synthetic: bool  #: whether they were generated


# ---------------------------------------------------------------- nested to flat


def flatten(event: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """A nested event as one level of paths and scalars; nulls and empty objects are left out.

    Example:
        >>> flatten({"user": {"name": "ann", "uid": None}, "tags": ["a", "b", "c"]})
        {'user.name': 'ann', 'tags.#': 3, 'tags.0': 'a', 'tags.1': 'b'}
    """
    flat: dict[str, Any] = {}
    for name, value in event.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, path + ".")
        elif isinstance(value, list):
            flat |= {f"{path}.#": len(value)} | flatten(dict(enumerate(value[:LIST_ITEMS])), path + ".")
        elif value is not None:
            flat[path] = value
    return flat


def make_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Flat events as a frame; columns stand in the order in which they first appear.

    A column of whole numbers is ``Int64``, of numbers ``float64`` (not finite: missing), of truth values
    ``boolean``; everything else, and every mixture, is text.

    Example:
        >>> make_frame([{"a": 1, "b": "x"}, {"a": 2.5, "c": True}]).dtypes.astype(str).tolist()
        ['float64', 'str', 'boolean']
    """
    columns: dict[str, tuple[list[int], list[Any]]] = {}
    count = 0
    for row in rows:
        for name, value in row.items():
            places, values = columns.setdefault(name, ([], []))
            places.append(count)
            values.append(value)
        count += 1
    return pd.DataFrame(
        {name: _typed(values, places, count) for name, (places, values) in columns.items()},
        index=pd.RangeIndex(count),
    )


def _typed(values: list[Any], places: list[int], count: int) -> Any:
    kinds = {type(value) for value in values}
    if (kinds == {int} and min(values) >= -(2**63) and max(values) < 2**63) or kinds == {bool}:
        content = np.zeros(count, dtype=np.int64 if kinds == {int} else bool)
        missing = np.ones(count, dtype=bool)
        content[places], missing[places] = values, False
        return (pd.arrays.IntegerArray if kinds == {int} else pd.arrays.BooleanArray)(content, missing)
    if kinds <= {int, float}:
        numbers = np.full(count, np.nan)
        numbers[places] = [value if abs(value) < 1e308 else np.nan for value in values]
        return numbers
    texts = np.full(count, None, dtype=object)
    texts[places] = [value if isinstance(value, str) else json.dumps(value, default=str) for value in values]
    try:
        return text_array(texts)
    except UnicodeEncodeError:  # half a surrogate pair, which JSON may hold and Unicode may not
        return text_array([text and text.encode("utf8", "replace").decode("utf8") for text in texts])


def tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns as ``Int64`` (whole numbers), ``float64``, ``boolean`` or ``str``; empty ones are left out.

    Example:
        >>> tidy(pd.DataFrame({"a": [1.0, None], "b": [0.5, 1.0], "c": ["x", None]})).dtypes.tolist()
        [Int64Dtype(), dtype('float64'), <StringDtype(na_value=nan)>]
    """
    found = frame.dropna(axis="columns", how="all").convert_dtypes()
    names = {"Float64": "float64", "string": "str", "object": "str"}
    return found.astype({n: names[str(kind)] for n, kind in found.dtypes.items() if str(kind) in names})


def text_array(texts: Any) -> Any:
    """Texts and ``None`` as a pandas array of type ``str``; by way of Arrow, which is 20 times as fast."""
    return pd.array(pa.array(texts, pa.large_string()), dtype="str")


def to_milliseconds(column: pd.Series) -> np.ndarray:
    """Times in any of the common units as milliseconds since 1970, value by value.

    Numbers, also written as text, are seconds below 1e11 (the year 5138), milliseconds below 1e14,
    microseconds below 1e17, and nanoseconds above. So milliseconds before March 1973 would be misread. Other
    text is read as ISO 8601; without a zone it counts as UTC.

    Returns:
        float64 (N,), NaN where no time can be read.

    Example:
        >>> to_milliseconds(pd.Series([1728049742, "1728049742000", "2024-10-04T13:49:02Z"])).tolist()
        [1728049742000.0, 1728049742000.0, 1728049742000.0]
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        column = column.astype("str")
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    numbers[~(np.abs(numbers) < 9.2e18)] = np.nan  # pandas counts nanoseconds in 64 bits
    size = np.abs(numbers)
    times = np.select(
        [size < 1e11, size < 1e14, size < 1e17], [numbers * 1e3, numbers, numbers / 1e3], numbers / 1e6
    )
    others = np.isnan(numbers) & column.notna().to_numpy()
    if others.any():
        moments = pd.to_datetime(column[others].astype("str"), utc=True, errors="coerce", format="ISO8601")
        times[others] = (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(milliseconds=1)
    return np.asarray(np.round(times))


# ---------------------------------------------------------------- who, which, when


def entities(frame: pd.DataFrame, columns: Sequence[str] = ENTITY_COLUMNS) -> pd.Series:
    """Who each event is about: the first of ``columns`` that it has, missing if it has none of them."""
    there = [frame[name] for name in columns if name in frame.columns]
    if not there:
        raise ValueError(
            f"the events have none of the columns {', '.join(columns)}; say which name an entity"
        )
    found = there[0].astype("str")
    for column in there[1:]:
        found = found.where(found.notna(), column.astype("str"))
    return found.rename("entity")


def record_ids(frame: pd.DataFrame) -> pd.Series:
    """The id of each event's record as text: ``metadata.uid``, or the frame's index where there is none.

    Example:
        >>> record_ids(pd.DataFrame({"metadata.uid": ["a", None]})).tolist()
        ['a', '1']
    """
    rows = pd.Series(frame.index.astype(str), frame.index, dtype="str")
    if RECORD_ID not in frame.columns:
        return rows.rename("id")
    known = frame[RECORD_ID].astype("str")
    return known.where(known.notna(), rows).rename("id")


def seconds_since_last(frame: pd.DataFrame, columns: Sequence[str] = ENTITY_COLUMNS) -> np.ndarray:
    """Inter-arrival time: seconds since the last event of the same entity, float64 (N,), NaN for its first.

    The events have a ``time`` in milliseconds, none missing, and are in the order of their times.
    """
    time = frame["time"].to_numpy(dtype=np.int64)
    if (np.diff(time) < 0).any():
        raise ValueError("the events are not in the order of their times; sort them by 'time'")
    who = entities(frame, columns).fillna("").to_numpy(dtype=object)
    return np.asarray(pd.Series(time).groupby(who).diff().to_numpy(dtype=np.float64) / 1000)


def split_by_time(
    frame: pd.DataFrame, shares: Sequence[float] = (0.6, 0.2, 0.2), *, groups: pd.Series | None = None
) -> tuple[np.ndarray, ...]:
    """Earlier events to learn from, later ones to test on, as it will be in use.

    Events of one time, and of one of ``groups`` (N,), such as a session, stay together; a group belongs where
    its first event does. ``time`` is never missing; rows may have any order; the shares sum to 1.

    Returns:
        Row numbers, int64 and rising, one array for each share; empty ones if many events have one time.
    """
    assert abs(sum(shares) - 1) < 1e-9
    time = pd.Series(frame["time"].to_numpy(dtype=np.int64))
    if groups is not None:
        first = time.groupby(pd.Series(groups.to_numpy(dtype=object))).transform("min")
        time = first.fillna(time).astype(np.int64)
    cuts = np.minimum(np.round(np.cumsum(shares)[:-1] * len(time)).astype(np.int64), len(time) - 1)
    part = np.searchsorted(np.sort(time.to_numpy())[cuts], time.to_numpy(), side="right")
    return tuple(np.flatnonzero(part == i) for i in range(len(shares)))
