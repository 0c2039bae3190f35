"""Sessions of events, and one token for each event: what sequence models read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from companion.data.events import ENTITY_COLUMNS, entities

SESSION_COLUMNS = ("actor.session.uid", "session.uid")
"""Which session an event belongs to, the first of these that it has."""
TOKEN_FIELDS = ("type_uid", "status_id", "api.operation")
"""What an event is to a sequence model, namely class and activity, its success, and which operation."""
UNSEEN = 0
"""The token of events that training did not know."""


def sessions(
    frame: pd.DataFrame,
    columns: Sequence[str] = SESSION_COLUMNS,
    max_gap_seconds: float = 1800,
    *,
    entity_columns: Sequence[str] = ENTITY_COLUMNS,
) -> np.ndarray:
    """The session of each event.

    Events with the same session id belong together. Those without one belong together if they are about the
    same entity; events without either count as one entity. A pause longer than ``max_gap_seconds`` begins a
    new session in both cases, so that an id that is used again, and an entity that never ends, are cut.

    Returns:
        int64 (N,) for N rows in any order, numbered from 0 without gaps in the order of the first events.

    Example:
        >>> frame = pd.DataFrame({"time": [0, 10, 20, 9_000_000], "session.uid": ["a", "b", "a", "a"]})
        >>> sessions(frame).tolist()
        [0, 1, 0, 2]
    """
    key = _keys(frame, columns, entity_columns)
    time = frame["time"].to_numpy(dtype=np.int64)
    order = np.lexsort((np.arange(len(key)), time, key))  # by key, then time, then row
    begins = np.ones(len(key), dtype=bool)
    begins[1:] = (np.diff(key[order]) != 0) | (np.diff(time[order]) > max_gap_seconds * 1000)
    raw = np.empty(len(key), dtype=np.int64)
    raw[order] = np.cumsum(begins) - 1
    first = order[begins]  # the first event of each raw session
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.lexsort((first, time[first]))] = np.arange(len(first))
    return np.asarray(rank[raw])


def _keys(frame: pd.DataFrame, columns: Sequence[str], entity_columns: Sequence[str]) -> np.ndarray:
    """A number for each session id, and another for each entity where there is no id; int64 (N,)."""
    there = [name for name in columns if name in frame.columns]
    if there:
        names = entities(frame, there)
        missing = names.isna().to_numpy()
        codes = pd.factorize(names)[0].astype(np.int64)
    else:
        missing, codes = np.ones(len(frame), dtype=bool), np.full(len(frame), -1, dtype=np.int64)
    if not missing.any():
        return codes
    try:
        who = entities(frame, entity_columns)
    except ValueError:
        if not there:
            raise
        who = pd.Series(None, index=frame.index, dtype="str")
    others = pd.factorize(who.fillna(""))[0].astype(np.int64) + len(codes)  # no number of a session id
    return np.where(missing, others, codes)


class EventTokens:
    """One token for each event, from a few of its fields; fitted on normal events of the past.

    A token is a combination of values that training had at least ``min_count`` times. Rarer ones are
    shortened from their end, field by field, until together they are common enough; what is still rare by its
    first field alone, and what training did not know, is the token ``UNSEEN``. So the fields stand in the
    order of their importance.

    The default fields say what kind of event it is, and nothing about who, where or how much: one token for
    all of those would be different for nearly every event.

    ``names`` are for each token the values that it stands for; ``()`` for ``UNSEEN``.

    Example:
        >>> frame = pd.DataFrame({"type_uid": [300201, 300201, 300202], "status_id": [1, 2, 1]})
        >>> tokens = EventTokens(("type_uid", "status_id"), min_count=1).fit(frame)
        >>> tokens.transform(frame).tolist(), tokens.names[1]
        ([1, 2, 3], ('300201', '1'))
    """

    def __init__(self, fields: Sequence[str] = TOKEN_FIELDS, min_count: int = 20) -> None:
        self.fields, self.min_count = tuple(fields), int(min_count)
        self.names: list[tuple[str, ...]] = []

    def __len__(self) -> int:
        """How many tokens there are, ``UNSEEN`` included; 0 before fitting."""
        return len(self.names)

    def fit(self, frame: pd.DataFrame) -> EventTokens:
        """Learn which combinations are common."""
        if not set(self.fields) & set(frame.columns):
            raise ValueError(f"the events have none of the fields {', '.join(self.fields)}")
        combined, place = _distinct(self._values(frame))
        left = Counter(dict(zip(combined, np.bincount(place).tolist(), strict=True)))
        names: list[tuple[str, ...]] = []
        for width in range(len(self.fields), 0, -1):
            names += [name for name, count in left.items() if count >= self.min_count]
            rest: Counter[tuple[str, ...]] = Counter()
            for name, count in left.items():
                if count < self.min_count:
                    rest[name[: width - 1]] += count
            left = rest
        self.names = [(), *sorted(names)]
        return self

    def transform(self, frame: pd.DataFrame) -> np.ndarray:
        """The token of each event: int64 (N,), each below ``len(self)``."""
        combined, place = _distinct(self._values(frame))
        number = {name: token for token, name in enumerate(self.names)}
        found = [
            next(number[row[:width]] for width in range(len(row), -1, -1) if row[:width] in number)
            for row in combined
        ]
        return np.asarray(np.array(found, dtype=np.int64)[place])

    def _values(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The fields as text, ``""`` where they are missing; whole numbers look the same in any dtype."""
        columns = {}
        for name in self.fields:
            if name not in frame.columns:
                columns[name] = pd.Series("", index=frame.index, dtype="str")
                continue
            column = frame[name]
            if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
                column = column.astype("Int64")
            columns[name] = column.astype("str").where(column.notna(), "")
        return pd.DataFrame(columns)


def _distinct(values: pd.DataFrame) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """The different rows, and for each row which of them it is."""
    place = np.zeros(len(values), dtype=np.int64)
    for name in values.columns:
        codes, distinct = pd.factorize(values[name])
        place = pd.factorize(place * len(distinct) + codes)[0].astype(np.int64)
    first = np.unique(place, return_index=True)[1]
    return [tuple(map(str, row)) for row in values.iloc[first].itertuples(index=False)], place
