"""Security events in the Open Cybersecurity Schema Framework (OCSF), read from files of any size.

Events come as JSON Lines (one JSON object a line, plain or gzip) or as Parquet, nested or flat. They leave
as pandas frames with one column a field, named as :mod:`companion.data.ocsf_flat` says. The schema is at
https://schema.ocsf.io; the book uses release 1.8.0.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pandas as pd

from companion.data.ocsf_flat import DTYPES, LIST_ITEMS, Kind, flatten, make_column, merge_kinds, text_array
from companion.data.ocsf_parquet import read_batches
from companion.data.sources import DataError

CHUNK_ROWS = 50_000
MAX_LISTED = 20
MAX_COLUMNS = 5_000
MAX_LINE_BYTES = 2**24
PATIENCE_LINES = 1_000
_KINDS: dict[str, Kind] = {dtype: kind for kind, dtype in DTYPES.items()}


@dataclass(frozen=True)
class BadLine:
    """A line that holds no event.

    Attributes:
        number: of the line, from 1.
        reason: why it could not be read.
    """

    number: int
    reason: str


@dataclass
class ReadReport:
    """What was met while reading; filled as the frames come.

    Attributes:
        events: how many were read.
        bad: how many lines hold no event.
        bad_lines: the first of these, at most ``MAX_LISTED``.
        misfits: by column, how many values were not of the kind that was asked for and became missing.
    """

    events: int = 0
    bad: int = 0
    bad_lines: list[BadLine] = field(default_factory=list)
    misfits: dict[str, int] = field(default_factory=dict)

    def add_bad(self, number: int, reason: str) -> None:
        """Count a bad line, and list it if there is room."""
        self.bad += 1
        if len(self.bad_lines) < MAX_LISTED:
            self.bad_lines.append(BadLine(number, reason))

    def summary(self) -> str:
        """One line for people, such as ``"9 events; 1 bad line (line 3: not JSON ...)"``."""
        parts = [f"{self.events:,} events"]
        if self.bad:
            first = self.bad_lines[0]
            parts.append(
                f"{self.bad:,} bad line{'s' * (self.bad > 1)} (line {first.number}: {first.reason}"
                + (", and others)" if self.bad > 1 else ")")
            )
        if self.misfits:
            parts.append(
                f"{sum(self.misfits.values()):,} values of another kind in {', '.join(self.misfits)}"
            )
        return "; ".join(parts)


def read_events(
    path: Path | str,
    *,
    chunk_rows: int = CHUNK_ROWS,
    kinds: Mapping[str, Kind] | None = None,
    list_items: int = LIST_ITEMS,
    json_columns: Sequence[str] = (),
    report: ReadReport | None = None,
) -> Iterator[pd.DataFrame]:
    """Read events in pieces, so that the file may be larger than memory.

    Bad lines are left out and counted; so are blank ones, uncounted. Integers are ``Int64``, numbers
    ``float64``, flags ``boolean``, texts ``str``. Without ``kinds`` every frame has the columns, and the
    kinds, that its own events have; with them all frames are alike.

    Args:
        path: a file of JSON Lines, plain or gzip, or of Parquet; told apart by its content.
        chunk_rows: events in a frame; the last one may have fewer.
        kinds: the columns that are wanted, in their order, and what they hold, as :func:`scan_events` gives
            them. Other fields are ignored; what an event does not have is missing.
        list_items: how many items of each list become columns.
        json_columns: top-level fields whose text is JSON; they are taken apart like nested fields.
        report: counts bad lines and misfits, if given.

    Returns:
        An iterator of frames; their index counts the events of the file from 0.

    Raises:
        DataError: at once if there is no file, or it is empty or of another type; while reading, if it is
            damaged or holds no event at all.
        ValueError: if ``chunk_rows`` or ``list_items`` is out of range.
    """
    if chunk_rows < 1 or list_items < 0:
        raise ValueError(f"chunk_rows must be at least 1 and list_items 0; got {chunk_rows} and {list_items}")
    path = Path(path)
    report = report if report is not None else ReadReport()
    if _is_parquet(path):
        frames = _read_parquet(path, chunk_rows, kinds, list_items, json_columns, report)
    else:
        frames = _read_json_lines(path, chunk_rows, kinds, list_items, json_columns, report)
    return frames


def scan_events(
    path: Path | str, *, list_items: int = LIST_ITEMS, json_columns: Sequence[str] = ()
) -> dict[str, Kind]:
    """The columns of a file and what each holds, from all of its events.

    A column with both integers and other numbers holds numbers; one with different things holds text.

    Returns:
        Kinds by column, in the order in which the columns first appear; give them to :func:`read_events`.

    Raises:
        DataError: as :func:`read_events`.
    """
    kinds: dict[str, Kind] = {}
    for frame in read_events(path, list_items=list_items, json_columns=json_columns):
        for name, dtype in frame.dtypes.items():
            kind = _KINDS[str(dtype)]
            kinds[str(name)] = merge_kinds(kinds.get(str(name), kind), kind)
    return kinds


# ---------------------------------------------------------------- what kind of file


def _is_parquet(path: Path) -> bool:
    """Whether it is Parquet; JSON Lines otherwise."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; name one file of JSON Lines or Parquet")
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start[:2] == b"\x1f\x8b":
            with gzip.open(path) as unpacked:
                start = unpacked.read(1024)
        elif start != b"PAR1":
            with path.open("rb") as file:
                start = file.read(1024)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; check its name and the folder you are in") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if start == b"PAR1":
        return True
    if not start.strip():
        raise DataError(f"{path} is empty; it should hold one JSON object a line, or be Parquet")
    if b"\0" in start:
        raise DataError(
            f"{path} is neither JSON Lines (plain or gzip) nor Parquet; convert it to one of them"
        )
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
        raise DataError(f"{path} is one JSON array; write one event a line, for example with `jq -c '.[]'`")
    return False


# ---------------------------------------------------------------- JSON Lines


class _Rows:
    """Flat events on their way to a frame; without ``kinds`` all of their fields are kept."""

    def __init__(self, kinds: Mapping[str, Kind] | None, report: ReadReport) -> None:
        self.kinds, self.report = kinds, report
        self.count = 0
        self.columns: dict[str, tuple[list[int], list[Any]]] = {name: ([], []) for name in kinds or ()}

    def add(self, flat: Mapping[str, Any]) -> None:
        for name, value in flat.items():
            column = self.columns.get(name)
            if column is None:
                if self.kinds is not None:
                    continue
                column = self.columns[name] = ([], [])
                if len(self.columns) > MAX_COLUMNS:
                    raise DataError(
                        f"the events have more than {MAX_COLUMNS:,} different fields, as if values stood "
                        "where names should; say which columns are wanted (kinds=...)"
                    )
            column[0].append(self.count)
            column[1].append(value)
        self.count += 1

    def arrays(self) -> dict[str, Any]:
        arrays = {}
        for name, (rows, values) in self.columns.items():
            kind = None if self.kinds is None else self.kinds[name]
            arrays[name], misfits = make_column(values, rows, self.count, kind)
            _count_misfits(self.report, name, misfits)
        return arrays

    def frame(self, first: int) -> pd.DataFrame:
        return pd.DataFrame(self.arrays(), index=pd.RangeIndex(first, first + self.count))


def _count_misfits(report: ReadReport, name: str, misfits: int) -> None:
    if misfits:
        report.misfits[name] = report.misfits.get(name, 0) + misfits


def _read_json_lines(
    path: Path,
    chunk_rows: int,
    kinds: Mapping[str, Kind] | None,
    list_items: int,
    json_columns: Sequence[str],
    report: ReadReport,
) -> Iterator[pd.DataFrame]:
    rows, first, reasons = _Rows(kinds, report), 0, ReadReport()
    for number, line in _lines(path):
        try:
            flat = _flat(_parse(line), json_columns, list_items)
        except (ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
            report.add_bad(number, reason)
            reasons.add_bad(number, reason)
            if reasons.bad == PATIENCE_LINES and first + rows.count == 0:
                break
            continue
        rows.add(flat)
        if rows.count == chunk_rows:
            frame, rows = rows.frame(first), _Rows(kinds, report)
            first += len(frame)
            report.events += len(frame)
            yield frame
    if rows.count:
        report.events += rows.count
        yield rows.frame(first)
    elif first == 0:
        why = "".join(f" Line {line.number}: {line.reason}" for line in reasons.bad_lines[:1])
        raise DataError(f"{path} holds no event; one JSON object a line is expected.{why}")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank; one of more than ``MAX_LINE_BYTES`` comes cut."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    opener = cast(Callable[[Path], IO[bytes]], gzip.open if packed else lambda name: name.open("rb"))
    try:
        with opener(path) as lines:
            number = 0
            while line := lines.readline(MAX_LINE_BYTES):
                number += 1
                whole = line
                while len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                    line = lines.readline(MAX_LINE_BYTES)
                if number == 1:
                    whole = whole.removeprefix(b"\xef\xbb\xbf")
                if whole.strip():
                    yield number, whole
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cut off after line {number:,}: {error}") from error


def _parse(line: bytes) -> dict[str, Any]:
    if len(line) == MAX_LINE_BYTES:
        raise ValueError(f"longer than {MAX_LINE_BYTES:,} bytes")
    try:
        event = json.loads(line.decode("utf8"), parse_constant=lambda _: None)  # NaN is no JSON, but written
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON at column {error.colno}: {error.msg}") from None
    if not isinstance(event, dict):
        raise ValueError(f"JSON, but no object: {line[:40].decode('utf8', 'replace').strip()}")
    return event


def _flat(event: dict[str, Any], json_columns: Sequence[str], list_items: int) -> dict[str, Any]:
    """The event flat, the text of some fields taken apart; text that is no JSON stays as it is."""
    for name in json_columns:
        text = event.get(name)
        if isinstance(text, str):
            with suppress(ValueError):
                event[name] = json.loads(text, parse_constant=lambda _: None)
    return flatten(event, list_items=list_items)


# ---------------------------------------------------------------- Parquet


def _read_parquet(
    path: Path,
    chunk_rows: int,
    kinds: Mapping[str, Kind] | None,
    list_items: int,
    json_columns: Sequence[str],
    report: ReadReport,
) -> Iterator[pd.DataFrame]:
    first = 0
    fields = None if kinds is None else {*kinds, *json_columns}
    for count, arrays in read_batches(path, chunk_rows, list_items=list_items, fields=fields):
        columns = {name: _from_arrow(array) for name, array in arrays.items() if name not in json_columns}
        if kinds is not None:
            columns = {name: _as_kind(columns[name], kinds[name], name, report) for name in columns}
        texts = {name: arrays[name].to_pylist() for name in json_columns if name in arrays}
        if texts:
            rows = _Rows(kinds, report)
            for values in zip(*texts.values(), strict=True):
                try:
                    rows.add(_flat(dict(zip(texts, values, strict=True)), json_columns, list_items))
                except RecursionError:  # nobody nests so deeply in earnest
                    rows.add({})
            columns = rows.arrays() | columns if kinds is not None else columns | rows.arrays()
        if kinds is not None:
            for name in kinds.keys() - columns.keys():
                columns[name] = make_column([], [], count, kinds[name])[0]
            columns = {name: columns[name] for name in kinds}
        report.events += count
        yield pd.DataFrame(columns, index=pd.RangeIndex(first, first + count))
        first += count
    if first == 0:
        raise DataError(f"{path} has no rows; check what wrote it")


def _from_arrow(array: Any) -> Any:
    missing = array.is_null().to_numpy(zero_copy_only=False)
    kind = str(array.type)
    if kind == "double":
        numbers = array.to_numpy(zero_copy_only=False).astype(float)
        return np.where(np.isfinite(numbers), numbers, np.nan)
    if kind in ("int64", "bool"):
        content = array.fill_null(0 if kind == "int64" else False).to_numpy(zero_copy_only=False)
        make = pd.arrays.IntegerArray if kind == "int64" else pd.arrays.BooleanArray
        return make(content.copy(), missing)
    return text_array(array)


def _as_kind(array: Any, kind: Kind, name: str, report: ReadReport) -> Any:
    if str(array.dtype) == DTYPES[kind]:
        return array
    there = np.flatnonzero(~pd.isna(array))
    column, misfits = make_column(array[there].tolist(), there, len(array), kind)
    _count_misfits(report, name, misfits)
    return column
