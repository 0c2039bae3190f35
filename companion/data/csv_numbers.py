"""Files of numbers, read right or refused: CSV as spreadsheets, R and pandas write it, Parquet, and NPY."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

GAPS = ("", "na", "n/a", "#n/a", "nan", "-nan", "null", "none", "?", "-")
"""Words, in small letters or capitals, that stand for a number that is not known."""
DECIMAL = r"[+-]?(\d*,)?\d+([eE][+-]?\d+)?"


@dataclass(frozen=True)
class Numbers:
    """What a file holds."""

    values: np.ndarray  #: float64 (rows, columns), NaN in gaps; of an NPY file any shape
    names: list[str] | None  #: of the columns; ``None`` if the file has none
    told: str  #: what was read and what was left out, in a line


def read_numbers(path: Path, columns: Sequence[str] | None = None) -> Numbers:
    """The numbers of a CSV, Parquet or NPY file: the named columns, in this order, or all.

    A file that is damaged, can be read in two ways, or lacks a column is refused with a ``ValueError``.
    """
    suffix, left_out = path.suffix.lower(), ""
    if suffix not in (".csv", ".tsv", ".txt", ".npy", ".parquet"):
        raise ValueError(f"{path} is none of .csv, .tsv, .txt, .parquet, .npy")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        if suffix == ".npy":
            return _read_npy(path, columns)
        frame, left_out = (pd.read_parquet(path), "") if suffix == ".parquet" else _read_csv(path)
    except Exception as error:  # whatever a damaged file makes of the readers
        raise ValueError(f"{path} cannot be read: {error or type(error).__name__}") from error
    names = None if pd.api.types.is_integer_dtype(frame.columns) else [str(name) for name in frame.columns]
    if columns is not None:
        if names is None:
            raise ValueError(f"{path} does not name its columns, and {', '.join(columns)} are asked for")
        missing = [name for name in columns if names.count(name) != 1]
        if missing:
            raise ValueError(f"{path} has not one column {missing[0]!r}; it has: {', '.join(names)}")
        others = [name for name in names if name not in columns]
        left_out += f"; left out: {', '.join(others[:9])}" if others else ""
        frame, names = frame.iloc[:, [names.index(name) for name in columns]], list(columns)
    for place, dtype in enumerate(frame.dtypes):
        if dtype.kind not in "iuf":
            name, found = names[place] if names else place + 1, frame.iloc[:, place].dropna()
            told = f"holds {next(iter(found), None)!r}, no number; name the columns to read"
            raise ValueError(f"column {name} of {path} {told}")
    values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    shown = "" if names is None else f" ({', '.join(names[:9])}{', ...' if len(names) > 9 else ''})"
    told = f"{path.name}: {len(values):,} rows, {values.shape[1]:,} columns{shown}{left_out}"
    return Numbers(values, names, told)


def _read_npy(path: Path, columns: Sequence[str] | None) -> Numbers:
    if columns is not None:
        raise ValueError("an NPY file does not name its columns")
    array = np.load(path, allow_pickle=False)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"it holds {array.dtype}, and real numbers are needed")
    return Numbers(array.astype(np.float64), None, f"{path.name}: an array {array.shape}")


def _read_csv(path: Path) -> tuple[pd.DataFrame, str]:
    """The fields, as numbers where they are some, and what was left out."""
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = content.decode(encoding).strip("\r\n")
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
    empty_end = empty_end and (not header or len(first) < width or not first[-1])
    used = width - empty_end
    if width == 0:
        raise ValueError("it holds no row of numbers")
    if header and len(first) not in (used, width):
        raise ValueError(
            f"the first line names {len(first)} columns, and the lines below have {used} fields; "
            "numbers need a decimal point, and every column a name"
        )
    frame = pd.read_csv(
        io.StringIO(text), sep=mark, header=0 if header else None, names=range(width), usecols=range(used),
        index_col=False, na_values=GAPS, skipinitialspace=True, low_memory=False,
    )  # fmt: skip
    notes = f"; left out: {blank} empty lines" if blank else ""
    notes += "; left out: an empty field behind each row" if empty_end else ""
    if mark != "," and _read_decimal_commas(frame):
        notes += "; with decimal commas"
    if header and first[0] in ("", "Unnamed: 0") and used > 1:
        frame, first, used = frame.iloc[:, 1:], first[1:], used - 1
        notes += "; left out: a first column without a name"
    counted = first[:used] == [str(place) for place in range(used)]  # pandas' own
    frame.columns = first[:used] if header and not counted else pd.RangeIndex(used)
    return frame, notes


def _read_decimal_commas(frame: pd.DataFrame) -> bool:
    """Turn columns of numbers with decimal commas into numbers; whether there are any."""
    texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    words = {name: frame[name].dropna().astype(str).str.strip() for name in texts}
    found = [name for name in texts if words[name].str.fullmatch(DECIMAL).all()]
    points = [name for name in frame if name not in texts and (frame[name].dropna() % 1 != 0).any()]
    if found and points:
        raise ValueError("some of its numbers have a decimal comma, others a decimal point")
    for name in found:
        frame[name] = frame[name].str.replace(",", ".").astype(np.float64)
    return bool(found)


def _is_header(words: list[str]) -> bool:
    """Whether the first line names columns; one with both names and numbers is refused."""
    known = [word for word in words if word.lower() not in GAPS]
    numbers = [word for word in known if _is_number(word)]
    rest = words[1:] if not words or not _is_number(words[0]) else words
    if len(rest) > 1 and rest == [str(place) for place in range(len(rest))]:
        return True
    if numbers and len(numbers) < len(known):
        other = next(word for word in known if word not in numbers)
        raise ValueError(f"its first line holds the number {numbers[0]} beside {other!r}; give it names")
    return len(known) > len(numbers)


def _is_number(word: str) -> bool:
    try:
        float(word.replace(",", "."))
    except ValueError:
        return False
    return True
