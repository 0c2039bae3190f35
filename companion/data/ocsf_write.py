"""Flat frames of events into files."""

from __future__ import annotations

import gzip
import io
import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from companion.data.ocsf_flat import LENGTH, unflatten, with_lists_of
from companion.files import atomic_path

ENDINGS = (".parquet", ".jsonl", ".jsonl.gz")


class EventWriter:
    """Writes frames of flat columns, one after another, as one file.

    Parquet keeps the columns flat, under their dotted names; JSON Lines nests them. The file appears when
    the block ends without an error.

    Args:
        path: ends in ``.parquet``, ``.jsonl`` or ``.jsonl.gz``.

    Raises:
        ValueError: if it ends in something else.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "events.jsonl"
        >>> with EventWriter(target) as writer:
        ...     writer.write(pd.DataFrame({"name": ["a", None], "tags.#": [1, 0], "tags.0": ["a", None]}))
        >>> target.read_text().splitlines()
        ['{"name":"a","tags":["a"]}', '{"tags":[]}']
    """

    def __init__(self, path: Path) -> None:
        if not path.name.endswith(ENDINGS):
            raise ValueError(f"{path} should end in one of {', '.join(ENDINGS)}")
        self.path = path
        self._stack = ExitStack()
        self._parquet: Any = None
        self._lines: IO[str] | None = None

    def __enter__(self) -> EventWriter:
        part = self._stack.enter_context(atomic_path(self.path))
        if self.path.suffix == ".parquet":
            self._part = part
        elif self.path.suffix == ".gz":
            # without name and time, so that the same events give the same file
            raw = self._stack.enter_context(part.open("wb"))
            packed = self._stack.enter_context(gzip.GzipFile("", "wb", 6, raw, 0))
            self._lines = self._stack.enter_context(io.TextIOWrapper(packed, encoding="utf8", newline="\n"))
        else:
            self._lines = self._stack.enter_context(part.open("w", encoding="utf8", newline="\n"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, frame: pd.DataFrame) -> None:
        """Append the rows of a frame; in Parquet all frames must have the columns of the first.

        Raises:
            ValueError: if they have not, or if columns contradict each other.
        """
        if self._lines is not None:
            self._lines.writelines(json_lines(frame))
            return
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        if self._parquet is None:
            self._parquet = self._stack.enter_context(
                pq.ParquetWriter(self._part, table.schema, compression="zstd")
            )
        self._parquet.write_table(table)


def json_lines(frame: pd.DataFrame) -> list[str]:
    """The rows as nested JSON, one a line, ended; what is missing is left out.

    Raises:
        ValueError: if a column is both a value and the beginning of another one's name.
    """
    names = [str(name) for name in frame.columns]
    beginnings = {name[:i] for name in names for i, letter in enumerate(name) if letter == "."}
    if beginnings & set(names):  # a field that is a value in some events and an object in others
        columns = [_plain(frame[name], np.arange(len(frame))) for name in frame.columns]
        rows = [
            {name: value for name, value in zip(names, values, strict=True) if value is not None}
            for values in zip(*columns, strict=True)
        ]
        events = [unflatten(row) for row in rows]
    else:
        events = _nest(frame, names)
    return [json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n" for event in events]


def _nest(frame: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """What :func:`unflatten` makes of each row, column by column, which is several times as fast."""
    events: list[dict[str, Any]] = [{} for _ in range(len(frame))]
    with_lists = {name.partition(".")[0] for name in names if name.endswith(f".{LENGTH}")}
    for name in names:
        *parents, last = name.split(".")
        there = np.flatnonzero(frame[name].notna().to_numpy())
        for row, value in zip(there.tolist(), _plain(frame[name], there), strict=True):
            node = events[row]
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
    for name in with_lists:
        for event in events:
            if name in event:
                event[name] = with_lists_of(event[name])
    return events


def _plain(column: pd.Series, rows: np.ndarray) -> list[Any]:
    """Python's own str, int, float, bool and None of some rows."""
    column = column.iloc[rows]
    missing = column.isna().to_numpy()
    values = column.astype(object).tolist()
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    return [None if gone else value for value, gone in zip(plain, missing, strict=True)]
