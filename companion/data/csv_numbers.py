"""Files of numbers, read right or refused: CSV as spreadsheets and programs write it, Parquet, arrays, sound.

DuckDB's and pandas' own sniffers pad or drop the ends of uneven rows, and know no decimal commas.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

GAPS = ("", "na", "n/a", "#n/a", "nan", "-nan", "null", "none", "?", "-")
"""Words, in small letters or capitals, that stand for a number that is not known."""
DATE = r"\s*\d+([-/.:]\d+){2}.*|\s*\d+:\d\d\s*"  # or a time of day
TIMES = ("time", "timestamp", "ts", "t", "date", "datetime", "unix", "epoch")  # of a column that rises
SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".npy", ".npz", ".wav")


@dataclass(frozen=True)
class Numbers:
    """What a file holds."""

    values: np.ndarray  #: float64 (rows, columns), NaN in gaps; of an NPY file any shape
    names: list[str] | None  #: of the columns; ``None`` if the file has none
    told: str  #: what was read and what was left out, in a line
    times: pd.Series | None = None  #: (rows,), as the file tells them; of sound in seconds


def read_numbers(path: Path, columns: Sequence[str] | None = None) -> Numbers:
    """The numbers of a file: the named columns, in this order, or all but one that holds times.

    An NPZ file holds one array, or columns (rows,). A file that is damaged, can be read in two ways, or lacks
    a column is refused with a ``ValueError``.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} is none of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        frame, notes, times = _read(path)
    except Exception as error:  # whatever a damaged file makes of the readers
        raise ValueError(f"{path} cannot be read: {error or type(error).__name__}") from error
    if isinstance(frame, np.ndarray):
        if columns is not None:
            raise ValueError(f"{path} does not name its columns")
        if frame.dtype.kind not in "fiu":
            raise ValueError(f"{path} holds {frame.dtype}, and real numbers are needed")
        return Numbers(frame.astype(np.float64), None, f"{path.name}: an array {frame.shape}", times)
    names, kept = [str(name) for name in frame.columns], list(range(frame.shape[1]))
    for place in kept:
        if times is None and _is_time(frame.iloc[:, place], columns or ()):
            times, notes = frame.iloc[:, place], f"{notes}; times: {names[place]}"
            kept = [other for other in kept if other != place]
    if not kept:
        raise ValueError(f"{path} holds no column of numbers")
    if names[kept[0]] in ("", "Unnamed: 0") and len(kept) > 1:
        kept, notes = kept[1:], f"{notes}; left out: a first column without a name"
    named = [names[place] for place in kept] != [str(place) for place in range(len(kept))]  # pandas' own
    named = named and not pd.api.types.is_integer_dtype(frame.columns)
    if columns is not None:
        if not named:
            raise ValueError(f"{path} does not name its columns, and {', '.join(columns)} are asked for")
        for name in columns:
            if names.count(name) != 1:
                have = ", ".join(names[place] for place in kept)
                raise ValueError(f"{path} has not one column {name!r}; it has: {have}")
        others = [names[place] for place in kept if names[place] not in columns]
        notes += f"; left out: {', '.join(others[:9])}" if others else ""
        kept = [names.index(name) for name in columns]
    frame, names = frame.iloc[:, kept], [names[place] for place in kept]
    for name, (_, column) in zip(names, frame.items(), strict=True):
        if column.dtype.kind not in "iuf":
            told = f"holds {next(iter(column.dropna()), None)!r}, no number; name the columns (--columns)"
            raise ValueError(f"column {name} of {path} {told}")
    values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    shown = f" ({', '.join(names[:9])}{', ...' if len(names) > 9 else ''})" if named else ""
    told = f"{path.name}: {len(values):,} rows, {values.shape[1]:,} columns{shown}{notes}"
    return Numbers(values, names if named else None, told, times)


def _read(path: Path) -> tuple[Any, str, pd.Series | None]:
    """A frame or an array, what was left out, and times that are no column."""
    suffix = path.suffix.lower()
    if suffix == ".wav":
        from scipy.io import wavfile

        rate, sound = wavfile.read(path)
        return pd.DataFrame(sound), f" at {rate:,} Hz", pd.Series(np.arange(len(sound)) / rate)
    if suffix == ".parquet":
        frame = pd.read_parquet(path)
        return frame.reset_index() if isinstance(frame.index, pd.DatetimeIndex) else frame, "", None
    if suffix in (".npy", ".npz"):
        found = np.load(path, allow_pickle=False)
        arrays = dict(found) if suffix == ".npz" else {"": found}
        if len(arrays) > 1 and any(array.ndim > 1 for array in arrays.values()):
            raise ValueError(f"it holds the arrays {', '.join(arrays)}; save one of them alone")
        return next(iter(arrays.values())) if len(arrays) == 1 else pd.DataFrame(arrays), "", None
    return *_read_csv(path), None


def _is_time(column: pd.Series, wanted: Sequence[str]) -> bool:
    """Whether a column that nobody asks for holds dates or times of day, or rises and is called a time."""
    if str(column.name) in wanted or pd.api.types.is_bool_dtype(column):
        return False
    if pd.api.types.is_numeric_dtype(column):
        return str(column.name).lower() in TIMES and column.is_monotonic_increasing and column.nunique() > 1
    known = column.dropna().astype(str)
    dates = len(known) > 0 and bool(known.str.fullmatch(DATE).all())
    return dates or pd.api.types.is_datetime64_any_dtype(column)


def _read_csv(path: Path) -> tuple[pd.DataFrame, str]:
    """The fields, as numbers where they are some, and what was left out."""
    content = path.read_bytes()
    encoding, notes = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", ""
    try:
        text = content.decode(encoding).strip("\r\n")
    except UnicodeDecodeError:
        text, notes = content.decode("cp1252").strip("\r\n"), "; read as Windows-1252, for it is not UTF-8"
    start = text[:20_000].splitlines()[:50]
    mark = next((mark for mark in ";\t," if any(mark in line for line in start)), " ")
    if mark == " ":  # as NumPy writes them
        text = "\n".join(" ".join(line.split()) for line in text.splitlines())
    reader = csv.reader(io.StringIO(text), delimiter=mark, skipinitialspace=True)
    first = [word.strip() for word in next(reader, [])]
    header = _is_header(first)
    width, empty_end, blank = 0, True, 0
    for row in reader if header else chain([first], reader):
        if not row or (row == [""] and width > 1):
            blank += 1
            continue
        width = width or len(row)
        if len(row) != width:
            raise ValueError(f"line {reader.line_num} has {len(row)} fields, the lines before have {width}")
        empty_end = empty_end and len(row) > 1 and not row[-1].strip()
    used = width - (empty_end and (not header or len(first) < width or not first[-1]))
    if width == 0:
        raise ValueError("it holds no row of numbers")
    if header and len(first) not in (used, width):
        raise ValueError(
            f"the first line names {len(first)} columns, and the lines below have {used} fields; "
            "numbers need a decimal point, and every column a name"
        )
    frame, comma = (
        pd.read_csv(
            io.StringIO(text), sep=mark, header=0 if header else None, names=range(width),
            usecols=range(used), index_col=False, na_values=GAPS, skipinitialspace=True, low_memory=False,
            decimal=decimal,
        )
        for decimal in (".", "," if mark != "," else ".")
    )  # fmt: skip
    numeric = [set(each.select_dtypes("number")) for each in (frame, comma)]
    if numeric[0] - numeric[1] and numeric[1] - numeric[0]:
        raise ValueError("some of its numbers have a decimal comma, others a decimal point")
    notes += f"; left out: {blank} empty lines" if blank else ""
    notes += "; left out: an empty field behind each row" if used < width else ""
    if numeric[1] - numeric[0]:
        frame, notes = comma, notes + "; with decimal commas"
    frame.columns = first[:used] if header else pd.RangeIndex(used)
    return frame, notes


def _is_header(words: list[str]) -> bool:
    """Whether the first line names columns; one with both names and numbers is refused."""
    known = pd.Series([word for word in words if word.lower() not in GAPS], dtype=str)
    numbers = pd.to_numeric(known.str.replace(",", "."), errors="coerce").notna() | known.str.fullmatch(DATE)
    rest = words[1:] if not words or not words[0].isdigit() else words
    if len(rest) > 1 and rest == [str(place) for place in range(len(rest))]:
        return True
    if numbers.any() and not numbers.all():
        one, other = known[numbers].iloc[0], known[~numbers].iloc[0]
        raise ValueError(f"its first line holds the number {one} beside {other!r}; give it names")
    return len(known) > 0 and not numbers.any()
