"""Events from files (JSON Lines or Parquet, nested or flat), and the real, labelled web log."""

from __future__ import annotations

import datetime as dt
import decimal
import gzip
import hashlib
import json
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from companion.data.download import MIRROR_VARIABLE, REGISTRY, DataError, read_published
from companion.data.events import Events, flatten, make_frame, to_milliseconds
from companion.data.synthetic_events import EventConfig, generate_events

OCSF_LOGS = REGISTRY["ocsf-logs"]
MAX_COLUMNS = 5_000
MAX_LINE_BYTES = 2**24
LISTED = 10
"""Bad lines that a report names; the others are counted."""

WEB_JSON = (
    "metadata", "device", "actor", "src_endpoint", "dst_endpoint", "http_request", "http_response",
    "resources", "anomaly", "error",
)  # fmt: skip
"""Columns of the real events that hold objects as JSON text; each also stands there in flat copies."""
WEB_LEAKS = ("message", "error", "resources")
"""Fields of the real events that give the label away, since the message names the fault (``"Cache miss storm
detected"``), an error object stands at one kind of fault only, and of all requests just the faulty ones have
no resources."""


@dataclass
class ReadReport:
    """What was met while reading."""

    events: int = 0  #: how many were read
    bad: int = 0  #: how many lines hold no event
    reasons: list[str] = field(default_factory=list)  #: of the first of these, with their numbers
    untimed: int = 0  #: events without a time that can be read; they are left out

    def add_bad(self, number: int, reason: str) -> None:
        """Count a bad line, and list it if there is room."""
        self.bad += 1
        if len(self.reasons) < LISTED:
            self.reasons.append(f"line {number}: {reason}")

    def lines(self) -> list[str]:
        """For people: what was read, and what was left out."""
        more = [f"  and {self.bad - len(self.reasons):,} more"] if self.bad > len(self.reasons) else []
        bad = f"; {self.bad:,} lines hold no event and are left out" if self.bad else ""
        untimed = f"; {self.untimed:,} events without a time are left out" if self.untimed else ""
        return [f"read {self.events:,} events{bad}{untimed}", *map("  {}".format, self.reasons), *more]


def read_events(path: Path | str, *, json_columns: Sequence[str] = ()) -> tuple[pd.DataFrame, ReadReport]:
    """Read a file of JSON Lines, plain or gzip, or of Parquet; told apart by its content.

    The events are put into the order of their times. The text of ``json_columns``, top-level fields, is JSON;
    it is taken apart like nested fields.

    Returns:
        The frame of :func:`companion.data.events.make_frame`, its index the row in the file, ``time`` in
        milliseconds since 1970 whatever the file has; and what was left out.
    """
    path, report = Path(path), ReadReport()
    rows = _parquet_rows(path) if _is_parquet(path) else _json_rows(path, report)
    frame = make_frame(_counted(flatten(_opened(row, json_columns)) for row in rows))
    if len(frame) == 0:
        why = f" {report.reasons[0]}" if report.reasons else ""
        raise DataError(f"{path} holds no event; one JSON object a line, or Parquet, is expected.{why}")
    if "time" not in frame.columns:
        raise DataError(f"the events of {path} have no field 'time'")
    times = to_milliseconds(frame["time"])
    known = ~np.isnan(times)
    if not known.any():
        raise DataError(f"no event of {path} has a time that can be read, such as {frame['time'].iloc[0]!r}")
    report.events, report.untimed = len(frame), int((~known).sum())
    frame = frame[known].assign(time=pd.array(times[known].astype(np.int64), dtype="Int64"))
    return frame.sort_values("time", kind="stable"), report


def _counted(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    names: set[str] = set()
    for row in rows:
        names |= row.keys()
        if len(names) > MAX_COLUMNS:
            raise DataError(
                f"the events have more than {MAX_COLUMNS:,} different fields, as if values stood where names "
                "should"
            )
        yield row


def _opened(event: dict[str, Any], json_columns: Sequence[str]) -> dict[str, Any]:
    """The event with the text of some fields taken apart; text that is no JSON stays as it is."""
    for name in json_columns:
        if isinstance(event.get(name), str):
            with suppress(ValueError):
                event[name] = json.loads(event[name], parse_constant=lambda _: None)
    return event


def _is_parquet(path: Path) -> bool:
    if path.is_dir():
        raise DataError(f"{path} is a folder; name one file of JSON Lines or Parquet")
    try:
        with _opener(path)(path) as file:
            start = file.read(1024)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; check its name and the folder you are in") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if start[:4] == b"PAR1":
        return True
    if b"\0" in start:
        raise DataError(f"{path} is neither JSON Lines (plain or gzip) nor Parquet")
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
        raise DataError(f"{path} is one JSON array; write one event a line, for example with `jq -c '.[]'`")
    return False


def _opener(path: Path) -> Callable[[Path], IO[bytes]]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(Callable[[Path], IO[bytes]], gzip.open if packed else lambda name: name.open("rb"))


def _json_rows(path: Path, report: ReadReport) -> Iterator[dict[str, Any]]:
    number = 0
    try:
        with _opener(path)(path) as lines:
            while line := lines.readline(MAX_LINE_BYTES):
                number += 1
                rest = line
                while len(rest) == MAX_LINE_BYTES and not rest.endswith(b"\n"):
                    rest = lines.readline(MAX_LINE_BYTES)
                if not line.strip():
                    continue
                try:
                    yield _parse(line.removeprefix(b"\xef\xbb\xbf"))
                except (ValueError, RecursionError) as error:
                    report.add_bad(
                        number, "nested too deeply" if isinstance(error, RecursionError) else str(error)
                    )
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cut off after line {number:,}: {error}") from error


def _parse(line: bytes) -> dict[str, Any]:
    if len(line) >= MAX_LINE_BYTES:
        raise ValueError(f"longer than {MAX_LINE_BYTES:,} bytes")
    try:
        event = json.loads(line.decode("utf8"), parse_constant=lambda _: None)  # NaN is no JSON, but written
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON at column {error.colno}: {error.msg}") from None
    if not isinstance(event, dict):
        raise ValueError(f"JSON, but no object: {line[:40].decode('utf8', 'replace').strip()}")
    flatten(event)  # finds out whether it is nested too deeply
    return event


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist(maps_as_pydicts="lossy"):
                    yield {name: _scalar(value) for name, value in row.items()}
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}; write it again") from error


def _scalar(value: Any) -> Any:
    """A value of Parquet as JSON would have it: times in milliseconds, decimals as numbers, bytes in hex."""
    if isinstance(value, dict):
        return {str(name): _scalar(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_scalar(item) for item in value]
    if isinstance(value, dt.datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
        return round(aware.timestamp() * 1000)
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, dt.date | dt.time | dt.timedelta) else value


def load_web_events() -> Events:
    """API events of a small web service under load, with injected faults, without ``WEB_LEAKS``.

    Two hours of events (OCSF class 6003, written as release 1.0.0), of which 277 belong to faults. They are
    not quite valid: ``api`` is missing, and events that the database wrote have no actor and no source. If
    no source is in reach, a warning says why, and generated events stand in (``synthetic`` is true).
    """
    try:
        content, source = read_published(OCSF_LOGS)
    except DataError as error:
        warnings.warn(
            "The OCSF logs are out of reach; going on with SYNTHETIC events in their place. For the real "
            f"ones put {OCSF_LOGS.cached} into {MIRROR_VARIABLE} or go online, then run "
            f"`companion data fetch {OCSF_LOGS.name}`.\n{error}",
            stacklevel=2,
        )
        return generate_events(EventConfig(num_events=27_084))
    with TemporaryDirectory() as folder:
        path = Path(folder) / OCSF_LOGS.cached
        path.write_bytes(content)
        frame = read_events(path, json_columns=WEB_JSON)[0].reset_index(drop=True)
        flat = [name for name in pq.read_schema(path).names if name not in WEB_JSON]
    order = [name for name in flat if name in frame.columns]
    order += [name for name in frame.columns if name not in flat]
    copies = tuple(f"{name.removesuffix('s')}_" for name in WEB_JSON)
    kept = [
        name
        for name in order
        if name.partition(".")[0] not in ("anomaly", *WEB_LEAKS)
        and ("." in name or not name.startswith(copies))
    ]
    return Events(
        frame=frame[kept],
        labels=pd.DataFrame({"attack": frame["anomaly.type"]}),
        split={},
        entity=(),
        source=source,
        digest=hashlib.sha256(content).hexdigest(),
        synthetic=False,
    )
