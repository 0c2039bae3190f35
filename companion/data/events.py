"""Events with their labels: the real ones, splits by time and by entity."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from companion.data import plain
from companion.data.ocsf import read_events
from companion.data.registry import OCSF_LOGS
from companion.data.sources import MIRROR_VARIABLE, DataError

ENTITY_COLUMNS = ("actor.user.uid", "user.uid", "device.uid", "src_endpoint.ip")
"""Who an event is about, the first of these that it has."""
RECORD_ID = "metadata.uid"
"""The field that holds the id of a record."""

WEB_JSON = (
    "metadata", "device", "actor", "src_endpoint", "dst_endpoint", "http_request", "http_response",
    "resources", "anomaly", "error",
)  # fmt: skip
"""Columns of the real events that hold objects as JSON text; each also stands there in flat copies."""
WEB_LEAKS = ("message", "error", "resources")
"""Fields of the real events that give the label away, since the message names the fault (``"Cache miss storm
detected"``), an error object stands at one kind of fault only, and of all requests just the faulty ones have
no resources."""


@dataclass(frozen=True)
class Events:
    """Events in the order of their times, and what is known about them apart from them.

    Attributes:
        frame: one row an event; columns are dotted OCSF names, of the types that
            :func:`companion.data.ocsf.read_events` gives.
        labels: the same rows; column ``attack`` has the kind of attack or fault, or is missing. Generated
            events have also ``shape`` (``"point"``, ``"context"`` or ``"order"``) and ``attack_id`` (which
            incident), both missing without an attack, ``session`` (a number) and ``kind`` (of the session).
        source: where the events came from.
        digest: SHA-256 of the file, or of the config that generated them.
        synthetic: whether they were generated.
    """

    frame: pd.DataFrame
    labels: pd.DataFrame
    source: str
    digest: str
    synthetic: bool


def load_web_events(*, leaks: bool = False) -> Events:
    """API events of a small web service under load, with injected faults.

    Two hours of events (OCSF class 6003, written as release 1.0.0), of which 277 belong to faults. They are
    not quite valid: ``api`` is missing, and events that the database wrote have no actor and no source.

    Args:
        leaks: keep the fields of ``WEB_LEAKS``, which give the label away.

    Returns:
        The events in the order of their times. If ``synthetic`` is true, no source was in reach, a warning
        has said why, and generated events stand in.
    """
    try:
        content, source = plain.read(OCSF_LOGS)
    except DataError as error:
        warnings.warn(
            "The OCSF logs are out of reach; going on with SYNTHETIC events in their place. For the real "
            f"ones put {OCSF_LOGS.cached} into {MIRROR_VARIABLE} or go online, then run "
            f"`companion data fetch {OCSF_LOGS.name}`.\n{error}",
            stacklevel=2,
        )
        from companion.data.ocsf_synthetic import EventConfig, generate_events

        return generate_events(EventConfig(num_events=27_084))
    with TemporaryDirectory() as folder:
        path = Path(folder) / OCSF_LOGS.cached
        path.write_bytes(content)
        frame = next(read_events(path, json_columns=WEB_JSON, chunk_rows=100_000))  # it is one small chunk
    frame = frame.sort_values("time", kind="stable", ignore_index=True)
    labels = pd.DataFrame({"attack": frame["anomaly.type"]})
    copies = tuple(f"{name.removesuffix('s')}_" for name in WEB_JSON)
    left_out = ("anomaly", *(() if leaks else WEB_LEAKS))
    kept = [
        name
        for name in frame.columns
        if name.partition(".")[0] not in left_out and ("." in name or not name.startswith(copies))
    ]
    return Events(
        frame=frame[kept],
        labels=labels,
        source=source,
        digest=hashlib.sha256(content).hexdigest(),
        synthetic=False,
    )


def entities(frame: pd.DataFrame, columns: Sequence[str] = ENTITY_COLUMNS) -> pd.Series:
    """Who each event is about: the first of ``columns`` that it has, missing if it has none of them.

    Raises:
        DataError: if the frame has none of the columns.
    """
    there = [frame[name] for name in columns if name in frame.columns]
    if not there:
        raise DataError(f"the events have none of the columns {', '.join(columns)}; say which name an entity")
    found = there[0].astype("str")
    for column in there[1:]:
        found = found.where(found.notna(), column.astype("str"))
    return found.rename("entity")


def record_ids(frame: pd.DataFrame) -> pd.Series:
    """The id of each event's record: ``metadata.uid``, or the frame's index where there is none.

    Returns:
        Texts (N,) of type ``str``, with the frame's index.

    Example:
        >>> record_ids(pd.DataFrame({"metadata.uid": ["a", None]})).tolist()
        ['a', '1']
    """
    rows = pd.Series(frame.index.astype(str), frame.index, dtype="str")
    if RECORD_ID not in frame.columns:
        return rows.rename("id")
    known = frame[RECORD_ID].astype("str")
    return known.where(known.notna(), rows).rename("id")


def split_by_time(
    frame: pd.DataFrame, shares: Sequence[float] = (0.6, 0.2, 0.2), *, groups: pd.Series | None = None
) -> tuple[np.ndarray, ...]:
    """Earlier events to learn from, later ones to test on, as it will be in use.

    Events of one time, and of one group, stay together.

    Args:
        frame: events with a column ``time``; N rows in any order.
        shares: of the events, in the order of time; they sum to 1.
        groups: of each event (N), such as its session; a group belongs where its first event does.

    Returns:
        Row numbers, int64 and rising, one array for each share; empty ones if many events have one time.

    Raises:
        ValueError: if the shares are not positive or do not sum to 1, a time is missing, or there are no
            events.
    """
    _check_shares(shares)
    if len(frame) == 0 or frame["time"].isna().any():
        raise ValueError("there are no events, or some have no time; leave those out or give them one")
    time = pd.Series(frame["time"].to_numpy(dtype=np.int64))
    if groups is not None:
        keys = pd.Series(groups.to_numpy(dtype=object))
        first = time.groupby(keys).transform("min")
        time = first.fillna(time).astype(np.int64)
    edges = np.sort(time.to_numpy())[_cuts(shares, len(time))]
    part = np.searchsorted(edges, time.to_numpy(), side="right")
    return tuple(np.flatnonzero(part == i) for i in range(len(shares)))


def split_by_entity(
    frame: pd.DataFrame,
    shares: Sequence[float] = (0.6, 0.2, 0.2),
    *,
    columns: Sequence[str] = ENTITY_COLUMNS,
    seed: int = 0,
) -> tuple[np.ndarray, ...]:
    """Some entities to learn from, others to test on: does it work for someone new?

    Args:
        frame: events (N).
        shares: of the entities; they sum to 1.
        columns: what names an entity, see :func:`entities`. Events without one count as one entity.
        seed: decides who goes where.

    Returns:
        Row numbers, int64 and rising, one array for each share.

    Raises:
        ValueError: if the shares are not positive or do not sum to 1, or there are no events.
        DataError: if the frame has none of the columns.
    """
    _check_shares(shares)
    if len(frame) == 0:
        raise ValueError("there are no events to split")
    codes, names = pd.factorize(entities(frame, columns).fillna(""), sort=True)
    place = np.random.default_rng(seed).permutation(len(names))[codes]
    part = np.searchsorted(_cuts(shares, len(names)), place, side="right")
    return tuple(np.flatnonzero(part == i) for i in range(len(shares)))


def _check_shares(shares: Sequence[float]) -> None:
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"shares must be positive and sum to 1; got {list(shares)}")


def _cuts(shares: Sequence[float], size: int) -> np.ndarray:
    return np.minimum(np.round(np.cumsum(shares)[:-1] * size).astype(np.int64), size - 1)
