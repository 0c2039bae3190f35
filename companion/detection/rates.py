"""Rates: what an entity did shortly before each event, counted in windows of time by one query."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from companion.data.events import ENTITY_COLUMNS, FIELDS, connect, entities

PEER_COLUMNS, HABIT_COLUMNS, CLASS_FIELDS = (tuple(FIELDS[name]) for name in ("peer", "habit", "class"))
COUNTS = ["events in 60 s", "events in 1 h", "share of failures in 1 h", "peers in 1 h"]
FIRSTS = ["seconds since last", "new entity", "new for entity", "new for all"]
RATES = [*COUNTS, *FIRSTS]
_HOUR = 3_600_000  # milliseconds
RATES_SQL = Path(__file__).with_name("rates.sql").read_text("utf8")


def rates(
    frame: pd.DataFrame, entity: Sequence[str] = ENTITY_COLUMNS, past: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Counts over the past of each event's entity, the columns ``RATES``, float64 (N, 8), frame's index.

    - ``events in 60 s`` and ``events in 1 h``: of this entity and type (``type_uid``), this one included;
    - ``share of failures in 1 h`` (``status_id`` 2) and ``peers in 1 h`` (different ``PEER_COLUMNS``), of
      all the entity's events;
    - ``seconds since last``: since its last event at an earlier time, missing for its first;
    - ``new entity``: 1 if it was never seen before; ``new for entity`` and ``new for all``: how many
      of ``HABIT_COLUMNS`` have a value that it, or anyone, never had before.

    Only the past counts; events of one millisecond are counted alike, whatever their order. ``past`` are
    earlier events, what :func:`remember` kept of them.
    """
    events = _key_columns(frame, entity)
    if past is not None and len(past):
        before = events["time"].min() - _HOUR - 1  # what was learned is known, also if it came later
        known = past.assign(time=past["time"].where(past["time"] < events["time"].min(), before))
        events = pd.concat([known, events], ignore_index=True)
    habits = [name for name in map(str, events) if name.startswith("habit.")]
    for name in ("entity", "type", "peer", *habits):
        codes = pd.Series(pd.factorize(events[name])[0], events.index, dtype="Int64")
        events[name] = codes.where(codes >= 0)
    first = '("{0}" IS NOT NULL AND min(time) OVER (PARTITION BY {1}"{0}") = time)::DOUBLE'
    sums = {
        key: " + ".join(first.format(name, part) for name in habits) or "0.0"
        for key, part in (("new_for_entity", "entity, "), ("new_for_all", ""))
    }
    events["row"] = np.arange(len(events))
    with connect(":memory:") as database:
        database.execute("SET threads = 1")
        database.register("events", events)
        found = database.execute(RATES_SQL.format(**sums)).df()[len(events) - len(frame) :]
    return found.astype("float64").set_axis(frame.index)


def _key_columns(frame: pd.DataFrame, entity: Sequence[str]) -> pd.DataFrame:
    """What :func:`rates` needs of events: time, entity, type, peer, failed, and the fields of habit."""
    peer = [name for name in PEER_COLUMNS if name in frame.columns]
    columns = {
        "time": frame["time"].astype("int64"), "entity": entities(frame, entity).fillna(""),
        "type": kinds(frame), "peer": entities(frame, peer) if peer else None,
        "failed": (frame["status_id"] == 2).fillna(False).astype(float) if "status_id" in frame else 0.0,
    }  # fmt: skip
    habits = {f"habit.{name}": frame[name].astype("str") for name in HABIT_COLUMNS if name in frame.columns}
    return pd.DataFrame({**columns, **habits}, index=frame.index).reset_index(drop=True)


def remember(
    frame: pd.DataFrame, entity: Sequence[str] = ENTITY_COLUMNS,
    past: pd.DataFrame | None = None, most: int = 300_000,
) -> pd.DataFrame:  # fmt: skip
    """The past events that :func:`rates` of later ones can depend on, so that it can go on from here.

    They are those of the last hour, the last of each entity, and the first with each value of a field of
    habit for its entity; of more than ``most`` the oldest are forgotten, and will be new once more.
    """
    events = pd.concat([past, _key_columns(frame, entity)], ignore_index=True)
    keep = (events["time"] >= frame["time"].max() - _HOUR) | ~events.duplicated("entity", keep="last")
    for name in map(str, events.columns):
        if name.startswith("habit."):
            keep |= ~events.duplicated(["entity", name])
    return pd.DataFrame(events.loc[keep].tail(most).reset_index(drop=True))


def kinds(frame: pd.DataFrame) -> np.ndarray:
    """What kind of event each is, text (N,): ``type_uid``, or else the class, or else nothing."""
    for name in ("type_uid", "class_uid"):
        if name in frame.columns:
            return frame[name].astype("str").fillna("").to_numpy(dtype=object)
    return np.full(len(frame), "", dtype=object)


def with_rates(frame: pd.DataFrame, entity: Sequence[str] = ENTITY_COLUMNS) -> pd.DataFrame:
    """The frame with :func:`rates` as further columns, in the order of time (stable).

    Make them of the whole stream and split it afterwards: the past of a test event has training events in it.
    """
    ordered = frame.sort_values("time", kind="stable")
    return pd.concat([ordered, rates(ordered, entity)], axis=1)
