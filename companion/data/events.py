"""Security events as frames: what a set of them is, who they are about, splits by time.

Columns are fields of the Open Cybersecurity Schema Framework (https://schema.ocsf.io, 1.8.0), with dots.
"""

import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

import duckdb
import numpy as np
import pandas as pd

from companion.data.download import Origin

FIELDS = tomllib.loads(Path(__file__).with_name("event_fields.toml").read_text("utf8"))
#: who an event is about, the first of these that it has
ENTITY_COLUMNS = ("actor.user.uid", "user.uid", "device.uid", "src_endpoint.ip")
MEMORY = "1GB"  #: of DuckDB; what is more goes to a temporary folder
PARTS = ("train", "calibration", "validation", "test")  #: of events; the first two are normal only


@dataclass(frozen=True)
class Events(Origin):
    """Events in the order of their times, and what is known about them apart from them."""

    frame: pd.DataFrame  #: one row an event; columns are dotted OCSF names, of the types of ``tidy``
    #: the same rows: ``attack`` (its kind, missing where all is normal) and ``incident`` (the group that must
    #: not be split, never missing); generated ones have ``shape``, too (``point``, ``context``
    #: or ``order``), and the ``kind`` of session, which no field holds
    labels: pd.DataFrame
    #: rows, int64 and rising, of each of the ``PARTS``; counts over time are to be taken over all rows, and
    #: then these
    split: dict[str, np.ndarray]
    entity: tuple[str, ...]  #: columns that say whom an event is about, the first of these that it has


def tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns as ``Int64`` (whole numbers), ``float64``, ``boolean`` or ``str``; empty ones are left out."""
    found = frame.dropna(axis="columns", how="all").convert_dtypes()
    names = {"Float64": "float64", "string": "str", "object": "str"}
    return found.astype({n: names[str(kind)] for n, kind in found.dtypes.items() if str(kind) in names})


def connect(path: str) -> duckdb.DuckDBPyConnection:
    """DuckDB with bounded memory, in UTC; it fetches nothing from the network."""
    limits = {"memory_limit": MEMORY, "temp_directory": gettempdir()}
    base = duckdb.connect(path, config={**limits, "autoinstall_known_extensions": "false"})
    for setting in ("enable_progress_bar = false", "TimeZone = 'UTC'"):
        with suppress(duckdb.Error):  # without widgets, or the extension that knows zones, it is so anyway
            base.execute(f"SET {setting}")
    return base


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


def split_by_time(
    frame: pd.DataFrame, shares: Sequence[float], *, groups: pd.Series | None = None
) -> tuple[np.ndarray, ...]:
    """Earlier events to learn from, later ones to test on, as it will be in use.

    Events of one time, and of one of ``groups`` (N,), such as a session, stay together; a group belongs where
    its first event does. ``time`` is never missing; rows may have any order; the shares sum to 1.

    Returns:
        Row numbers, int64 and rising, one array for each share; empty ones if many events have one time.
    """
    time = pd.Series(frame["time"].to_numpy(dtype=np.int64))
    if groups is not None:
        first = time.groupby(pd.Series(groups.to_numpy(dtype=object))).transform("min")
        time = first.fillna(time).astype(np.int64)
    cuts = np.minimum(np.round(np.cumsum(shares)[:-1] * len(time)).astype(np.int64), len(time) - 1)
    part = np.searchsorted(np.sort(time.to_numpy())[cuts], time.to_numpy(), side="right")
    return tuple(np.flatnonzero(part == i) for i in range(len(shares)))
