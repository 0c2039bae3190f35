"""Events from files, read by DuckDB into flat columns: JSON, Parquet, packed or not, larger than memory.

The parts of a field's path are joined by dots: ``{"user": {"name": "ann"}}`` becomes ``user.name``. Of a list
the length is a column (``tags.#``), and so are its first two items (``tags.0``, ``tags.1``).
"""

import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from companion.data.download import DataError
from companion.data.events import connect

LIST_ITEMS, MAX_DEPTH, MAX_COLUMNS = 2, 20, 5_000
MAX_LINE_BYTES = 2**24
TIMES = Path(__file__).with_name("times.sql").read_text("utf8")
LISTED = 10  #: bad lines that a report names; the others are counted
ENDINGS = re.compile(r"\.(json|jsonl|ndjson|log|parquet)(\.gz|\.zst)?$", re.IGNORECASE)
KINDS = {"Int64": "HUGEINT", "float64": "DOUBLE", "boolean": "BOOLEAN", "str": "VARCHAR"}
"""Types of a frame's columns, and of DuckDB's while they are read; a mixture is text."""
JSON_KINDS = dict.fromkeys(("BIGINT", "UBIGINT", "HUGEINT"), "Int64")
JSON_KINDS |= {"BOOLEAN": "boolean", "DOUBLE": "float64"}
Base = duckdb.DuckDBPyConnection
Paths = Path | str | Sequence[Path | str]
Columns = dict[str, str]  #: the columns of a frame, by name their types; in DuckDB they are c0, c1, ...


@dataclass
class ReadReport:
    """What was met while reading."""

    events: int = 0  #: how many there are, without those that are left out
    bad: int = 0  #: how many lines hold no event
    reasons: list[str] = field(default_factory=list)  #: of the first of these, with their files and numbers
    untimed: int = 0  #: events without a time that can be read; they are left out
    units: dict[str, int] = field(default_factory=dict)  #: how many times were in which unit
    ignored: int = 0  #: files in folders whose names do not end like those of events

    def lines(self) -> list[str]:
        """For people: what was read, how its times were understood, and what was left out."""
        bad = f"; {self.bad:,} lines hold no event and are left out" if self.bad else ""
        untimed = f"; {self.untimed:,} events without a time are left out" if self.untimed else ""
        ignored = f"; {self.ignored:,} other files are left out" if self.ignored else ""
        more = [f"  and {self.bad - len(self.reasons):,} more"] if self.bad > len(self.reasons) else []
        units = ", ".join(f"{unit} ({count:,})" for unit, count in self.units.items())
        first = f"read {self.events:,} events{bad}{untimed}{ignored}"
        return [first, *map("  {}".format, self.reasons), *more, f"times were given as {units}"]


def read_events(paths: Paths, *, json_columns: Sequence[str] = ()) -> tuple[pd.DataFrame, ReadReport]:
    """Read files of JSON Lines, of JSON arrays or objects, or of Parquet, plain or packed by gzip or zstd.

    ``paths`` are files, told apart by their content, folders (files anywhere in them that end as ``ENDINGS``
    says) and glob patterns. Columns of all files are merged by name. The text of ``json_columns``, top-level
    fields, is JSON and is taken apart like nested fields.

    Gives the frame in the order of times, of the types of ``KINDS``; its index is the row in the files, and
    ``time`` is in milliseconds since 1970, whatever the files have. And what was met.
    """
    batches, report = read_batches(paths, 2**62, json_columns=json_columns)
    return next(batches), report


def read_batches(
    paths: Paths, rows: int = 100_000, *, json_columns: Sequence[str] = ()
) -> tuple[Iterator[pd.DataFrame], ReadReport]:
    """As :func:`read_events`, but frames of at most ``rows`` events, one after another, in bounded memory."""
    stack = ExitStack()
    base, columns, report = stack.enter_context(sorted_events(paths, json_columns))
    return _batches(base, stack, columns, rows), report


@contextmanager
def sorted_events(
    paths: Paths, json_columns: Sequence[str] = ()
) -> Iterator[tuple[Base, Columns, ReadReport]]:
    """The events on disk, DuckDB's table ``sorted``: their ``row`` in the files, and ``c0``, ``c1``, ..."""
    report = ReadReport()
    files = _files(paths, report)
    with TemporaryDirectory(prefix="companion-events-") as folder, connect(f"{folder}/events.duckdb") as base:
        try:
            columns = _load(base, files, json_columns, report)
            _sort(base, columns, report)
        except duckdb.Error as error:
            raise DataError(f"{', '.join(map(str, files[:3]))} cannot be read: {error}") from error
        yield base, columns, report


def _batches(base: Base, opened: ExitStack, columns: Columns, rows: int) -> Iterator[pd.DataFrame]:
    text = pd.StringDtype(na_value=np.nan)
    kinds = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype(), pa.string(): text}
    with opened:
        (count,) = base.execute("SELECT count(*) FROM sorted").fetchall()[0]
        for start in range(0, count, rows):
            part = base.sql(f"SELECT * FROM sorted WHERE rowid >= {start} AND rowid < {start + rows}")
            frame = part.to_arrow_table().to_pandas(types_mapper=kinds.get).set_index("row")
            yield frame.set_axis(list(columns), axis="columns").rename_axis(None)


def _files(paths: Paths, report: ReadReport) -> list[Path]:
    found: list[Path] = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        path = Path(path).expanduser()
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            events = [file for file in inside if ENDINGS.search(file.name)]
            report.ignored += len(inside) - len(events)
        else:
            events = [path] if path.is_file() else sorted(map(Path, glob(str(path), recursive=True)))
        if not events:
            raise DataError(f"there is no file of events {path}; check its name and the folder you are in")
        found += events
    return found


def _form(path: Path) -> tuple[str, str]:
    """What a file is and how it is packed, in DuckDB's words, told by its first bytes."""
    with path.open("rb") as file:
        magic = file.read(4)
    packed = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}.get(magic[:2], "none")
    if magic == b"PAR1":
        return "parquet", packed
    try:
        with pa.input_stream(str(path), compression=None if packed == "none" else packed) as stream:
            start = stream.read(2**16).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise DataError(f"{path} is damaged or cut off: {error}") from error
    if b"\0" in start:
        raise DataError(f"{path} is neither JSON (plain, gzip or zstd) nor Parquet")
    line, more, _ = start.partition(b"\n")
    if start[:1] == b"{" and more and not line.rstrip().endswith(b"}"):
        return "unstructured", packed  # an object over many lines
    return "array" if start[:1] == b"[" else "newline_delimited", packed


@dataclass
class _Source:
    """Files of one form as a subquery, whose leaves are flat columns: name, type in a frame, value in SQL."""

    query: str
    leaves: list[tuple[str, str, str]] = field(default_factory=list)


def _load(base: Base, files: Sequence[Path], json_columns: Sequence[str], report: ReadReport) -> Columns:
    """Fill the table ``events``; its columns have the widest type that a name has anywhere."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in files:
        groups.setdefault(_form(path), []).append(path)
    sources = []
    for (form, packed), group in groups.items():
        names = "[" + ", ".join(map(_text, group)) + "]"
        if form == "parquet":
            source = _native(base, f"(SELECT * FROM read_parquet({names}, union_by_name = true))")
        else:
            options = f"format = '{form}', compression = '{packed}', maximum_object_size = {MAX_LINE_BYTES}"
            options += ", ignore_errors = true, filename = true" * (form == "newline_delimited")
            every = f"(SELECT * FROM read_json_objects({names}, {options}))"
            _report_bad(base, every, group, packed, report)
            source = _Source(f"(SELECT json FROM {every} WHERE json_type(json) = 'OBJECT')")
            _open(base, source, "json", "")
        for name, kind, sql in list(source.leaves):
            if name in json_columns and kind == "str":
                source.leaves.remove((name, kind, sql))
                opened = f"json_type(TRY_CAST({sql} AS JSON)) IN ('OBJECT', 'ARRAY')"
                inner = f"CASE WHEN {opened} THEN {sql}::JSON END"
                _open(base, source, inner, name)
                source.leaves.append((name, kind, f"CASE WHEN ({inner}) IS NULL THEN {sql} END"))
        sources.append(source)
    columns: Columns = {}
    for source in sources:
        for name, kind, _ in source.leaves:
            columns[name] = _widest(columns.get(name, kind), kind)
    if len(columns) > MAX_COLUMNS:
        raise DataError(f"more than {MAX_COLUMNS:,} different fields; do values stand where names should?")
    if not columns:
        why = f" {report.reasons[0]}" if report.reasons else ""
        raise DataError(f"{files[0]} holds no event; JSON objects, or Parquet, are expected.{why}")
    if "time" not in columns:
        raise DataError(f"the events of {files[0]} have no field 'time'")
    sql_types = ", ".join(f"c{i} {KINDS[kind]}" for i, kind in enumerate(columns.values()))
    base.execute(f"CREATE TABLE events ({sql_types})")
    for source in sources:
        values: dict[str, list[str]] = {name: ["NULL"] for name in columns}
        for name, _, sql in source.leaves:  # a name may be there twice, nested and with a dot in it
            values[name].insert(-1, f"({sql})::{KINDS[columns[name]]}")
        cells = ", ".join(f"coalesce({', '.join(parts)})::{KINDS[columns[n]]}" for n, parts in values.items())
        base.execute(f"INSERT INTO events SELECT {cells} FROM {source.query}")
    return columns


def _native(base: Base, query: str) -> _Source:
    """The leaves of Parquet's columns."""
    relation, source = base.sql(f"SELECT * FROM {query}"), _Source(query)

    def walk(name: str, sql: str, kind: Any) -> None:
        if kind.id == "struct":
            for key, child in kind.children:
                walk(f"{name}.{key}", f"struct_extract({sql}, {_text(key)})", child)
        elif kind.id == "list":
            source.leaves.append((f"{name}.#", "Int64", f"len({sql})"))
            for i in range(LIST_ITEMS):
                walk(f"{name}.{i}", f"({sql})[{i + 1}]", kind.children[0][1])
        elif kind.id == "map":
            _open(base, source, f"to_json({sql})", name)
        elif kind.id.startswith("timestamp"):
            source.leaves.append((name, "Int64", f"epoch_ms({sql})"))
        elif kind.id == "blob":
            source.leaves.append((name, "str", f"lower(hex({sql}))"))
        elif kind.id != "sqlnull":
            target = "float64" if kind.id in ("float", "double", "decimal") else "str"
            whole = kind.id.endswith(("int", "integer"))
            target = "Int64" if whole else "boolean" if kind.id == "boolean" else target
            source.leaves.append((name, target, sql))

    for name, kind in zip(relation.columns, relation.types, strict=True):
        if not re.fullmatch(r"__index_level_\d+__", name):  # pandas' numbers of rows
            walk(name, '"' + name.replace('"', '""') + '"', kind)
    return source


def _open(base: Base, source: _Source, sql: str, prefix: str) -> None:
    """Add the leaves of a JSON value to a source: all its pointers are followed in one pass."""
    found = base.execute(f"SELECT DISTINCT json_structure({sql})::VARCHAR FROM {source.query}").fetchall()
    kinds: dict[tuple[str, str], str] = {}
    try:
        for (structure,) in found:
            for name, pointer, kind in _leaves(json.loads(structure or '"NULL"'), prefix, "", 0):
                kinds[name, pointer] = _widest(kinds.get((name, pointer), kind), kind)
    except RecursionError:
        raise DataError("an event is nested too deeply to be read") from None
    alias = f"v{source.query.count('json_extract_string')}"
    nested = {name[:i] for name, _ in kinds for i in range(len(name)) if name[i] == "."}
    for number, ((name, _), kind) in enumerate(kinds.items(), 1):
        value = f"{alias}[{number}]"
        if kind == "length":
            length = f"CASE WHEN left({value}, 1) = '[' THEN json_array_length(TRY_CAST({value} AS JSON)) END"
            source.leaves.append((name, "Int64", length))
        else:
            empty = f"{value} IN ('{{}}', '[]')" + f" OR left({value}, 1) IN ('{{', '[')" * (name in nested)
            text = f"CASE WHEN NOT ({empty}) THEN {value} END"
            cell = text if kind == "str" else f"TRY_CAST({value} AS {KINDS[kind]})"
            source.leaves.append((name, kind, cell))
    if kinds:
        pointers = "[" + ", ".join(_text(pointer) for _, pointer in kinds) + "]"
        source.query = f"(SELECT *, json_extract_string({sql}, {pointers}) AS {alias} FROM {source.query})"


def _leaves(kind: Any, name: str, pointer: str, depth: int) -> Iterator[tuple[str, str, str]]:
    """Names, JSON pointers and types of the leaves of what DuckDB calls the structure of a JSON value."""
    inner = f"{name}." if name else ""
    if isinstance(kind, dict) and depth < MAX_DEPTH:
        for key, child in kind.items():
            path = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            yield from _leaves(child, inner + key, path, depth + 1)
    elif isinstance(kind, list) and depth < MAX_DEPTH:
        yield f"{inner}#", pointer, "length"
        for i in range(LIST_ITEMS):
            yield from _leaves(kind[0], f"{inner}{i}", f"{pointer}/{i}", depth + 1)
    elif kind != "NULL":
        yield name, pointer, JSON_KINDS.get(str(kind), "str")


def _widest(one: str, other: str) -> str:
    return one if one == other else "float64" if {one, other} == {"Int64", "float64"} else "str"


def _report_bad(base: Base, every: str, files: Sequence[Path], packed: str, report: ReadReport) -> None:
    """Count the lines that hold no JSON object, and say of the first ones where they are and why."""
    bad = "json IS NULL OR json_type(json) <> 'OBJECT'"
    report.bad += base.execute(f"SELECT count(*) FROM {every} WHERE {bad}").fetchall()[0][0]
    for path in files if report.bad > len(report.reasons) and "filename" in every else ():
        places = base.execute(
            f"SELECT n FROM (SELECT row_number() OVER () AS n, json FROM {every} "
            f"WHERE filename = {_text(path)}) WHERE {bad} LIMIT {LISTED - len(report.reasons)}"
        ).fetchall()
        wanted, count = {n for (n,) in places}, 0
        with pa.input_stream(str(path), compression=None if packed == "none" else packed) as stream:
            for number, line in enumerate(io.TextIOWrapper(stream, "utf8", "replace") if wanted else (), 1):
                count += bool(line.strip())  # DuckDB does not count empty lines
                if count in wanted and line.strip():
                    report.reasons.append(f"{path.name}, line {number}: no JSON object: {line.strip()[:40]}")


def _sort(base: Base, columns: Columns, report: ReadReport) -> None:
    """The table ``sorted``: in the order of time, in milliseconds; events without a time are left out."""
    place = list(columns).index("time")
    base.execute(f"CREATE TABLE times AS {TIMES.format(text=f'c{place}::VARCHAR')}")
    counts = dict(base.execute("SELECT unit, count(*) FROM times GROUP BY unit ORDER BY unit").fetchall())
    report.untimed, report.units = counts.pop(None, 0), counts
    columns["time"] = "Int64"
    report.events = sum(counts.values())
    if not report.events:
        raise DataError("no event has a time that can be read, in seconds or parts of them or as ISO 8601")
    whole = [kind == "Int64" and i != place for i, kind in enumerate(columns.values())]
    sizes = [f"max(abs(c{i}))" if large else f"count(c{i})" for i, large in enumerate(whole)]
    (found,) = base.execute(f"SELECT {', '.join(sizes)} FROM events").fetchall()
    types, cells = KINDS | {"Int64": "BIGINT"}, []
    for i, (name, size) in enumerate(zip(list(columns), found, strict=True)):
        if size is None or (size == 0 and columns[name] != "Int64"):
            del columns[name]  # nowhere a value
            continue
        columns[name] = "str" if size >= 2**63 and columns[name] == "Int64" else columns[name]
        finite = f"CASE WHEN isfinite(c{i}) THEN c{i} END" if columns[name] == "float64" else f"c{i}"
        cells.append(f"({'ms' if i == place else finite})::{types[columns[name]]} AS c{i}")
    base.execute(
        f"CREATE TABLE sorted AS SELECT times.row, {', '.join(cells)} "
        "FROM events JOIN times ON events.rowid = times.row WHERE ms IS NOT NULL ORDER BY ms, times.row"
    )
    base.execute("DROP TABLE events")


def _text(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"
