"""Columns of any table as numbers that need no net: scaled numbers, one-hot categories, shapes of texts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Self

import numpy as np
import pandas as pd

from companion.data.events import ENTITY_COLUMNS, entities
from companion.detection.rates import COUNTS, RATES, kinds

MISSING, UNSEEN = 0, 1  # the first two indices of every categorical column; seen once is unseen
_LISTED, _COUNTED = 50, 1000  # values that get a column of their own, and that are counted one by one
_DAYS = 2  # that training must cover for hours to say anything; weeks for days of the week
_BINS = 10  # quantiles of a number, for those who count
_FAR = 10.0  # standard deviations beyond which a number is as far as another
CODES = ("_id", "_uid", ".code", ".port", "_num", "version")
"""Endings of whole-number fields that name something and count nothing (OCSF's naming of enumerations)."""
_NAMES = ("uid", "id", "pid", "uuid", "guid")  # the last part of the names of identifiers
_SECOND = ("ac", "co", "com", "edu", "gov", "net", "org")  # second-level domains of countries
_TEXT = ["length", "digits", "capitals", "symbols", "entropy", "never seen"]
_CLASSES = (slice(48, 58), slice(65, 91), slice(97, 123))  # bytes of digits, capitals, small letters
_CIRCLES = ["hour, sine", "hour, cosine", "day, sine", "day, cosine"]


@dataclass
class Column:
    """What was learned of one column; plain values, so that they can be saved as they are."""

    name: str
    kind: str  #: "number", "category", "constant", "code" (of many values), "text" or "time"
    missing: bool = False  #: whether training had missing values, and others
    values: list[str] = field(default_factory=list)  #: seen more than once, the most common first
    stems: list[str] = field(default_factory=list)  #: subnets, domains or shapes of a text
    seen: list[int] = field(default_factory=list)  #: hashes of all values seen more than once, rising
    center: list[float] = field(default_factory=list)  #: of the numbers (of a text: six of them)
    scale: list[float] = field(default_factory=list)
    edges: list[float] = field(default_factory=list)  #: of the bins of a number

    @property
    def listed(self) -> list[str]:
        """The values, or the stems of a text, with a number of their own."""
        return self.stems if self.kind == "text" else self.values[:_LISTED]


@dataclass(frozen=True)
class EventRows:
    """Rows as detectors want them."""

    plain: np.ndarray  #: float32 (N, d): see :class:`PlainColumns`
    codes: np.ndarray  #: int32 (N, fields): the category or the bin of each field, 0 missing, 1 unseen
    rates: np.ndarray  #: float64 (N, 4): logarithms of the columns ``COUNTS``; (N, 0) without them
    kinds: np.ndarray  #: text (N,): the type of event
    entities: np.ndarray  #: text (N,): who it is about, all alike if nothing names an entity

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, rows: Any) -> Self:
        return type(self)(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


class PlainColumns:
    """Columns of any table as numbers, without any learning beyond scales and lists of values.

    A number x becomes ``sign(x) log(1 + |x|)`` on the scale of the training's median and quartiles, at most
    10 of them from the median. A column with at most 50 values becomes one-hot; values that training saw once
    count as another value. Other text becomes its length, its shares of digits, capitals and other signs, the
    entropy of its characters, whether training saw it more than once, and the category of its stem: of an
    address the subnet (/24), of a host the registered domain, else the text with its digits made alike. Times
    become the hour and the day of week on circles, local by ``timezone_offset`` (minutes) or ``zone``, where
    training covers two days, or two weeks. Codes (``*_id``, ports) and what does not vary are
    categories; identifiers with nearly one value a row, texts of JSON and columns that say the same as an
    earlier one are left out; of such a constant a new value counts.
    What was learned of each column is in ``columns_``, why one is not among them in ``left_out_``.
    """

    def __init__(
        self, entity: Sequence[str] = ENTITY_COLUMNS, leave_out: Sequence[str] = (), zone: str = "UTC"
    ) -> None:
        self.entity, self.leave_out, self.zone = tuple(entity), tuple(leave_out), zone

    def fit(self, frame: pd.DataFrame) -> Self:
        """Learn from training rows (N, columns)."""
        self.columns_: list[Column] = []
        self.left_out_, known = dict[str, str](), dict[int, str]()
        for name in map(str, frame.columns):
            column, why = self._learn(name, frame[name])
            if column is not None and column.kind != "time":
                codes = pd.factorize(frame[name])[0]  # equal where values can be mapped one to one
                same = known.setdefault(hash(codes.tobytes()), name)
                if same != name and column.kind == "category" and len(column.values) == 1:
                    column = Column(name, "constant", values=column.values)
                elif same != name:
                    column, why = None, f"says the same as {same}"
            if column is None:
                self.left_out_[name] = why
            else:
                self.columns_.append(column)
        if not self.columns_:
            raise ValueError("no column varies in a way that could be used")
        return self

    def _learn(self, name: str, values: pd.Series) -> tuple[Column | None, str]:
        there = values.dropna()
        last = re.split(r"[._ ]", name.lower())[-1]
        if any(fnmatchcase(name, out) or name.startswith(out + ".") for out in self.leave_out):
            return None, "as asked"
        if name == "time" or pd.api.types.is_datetime64_any_dtype(values):
            moments = _moments(there)
            days = (moments.max() - moments.min()) / pd.Timedelta(days=1)
            parts = ["hour"] * (days >= _DAYS) + ["day"] * (days >= 7 * _DAYS)
            return (Column(name, "time", values=parts), "") if parts else (None, "less than two days")
        if name == "timezone_offset" or name.endswith("_time") or last == "pid":
            return None, "an identifier" if last == "pid" else "a time"
        plain = there.dtype != object or all(isinstance(value, (str, int, float)) for value in there)
        found = there.nunique() if plain else 0  # lists have no hash
        if found == 0:
            return None, "says nothing"
        column = Column(name, "number", missing=len(there) < len(values))
        numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        if numeric and found > 1 and not name.endswith(CODES):
            numbers = _signed_log(there)
            low, middle, high = np.quantile(numbers, [0.25, 0.5, 0.75])
            column.center = [float(middle)]
            column.scale = [float((high - low) / 1.349 or numbers.std() or 1.0)]
            column.edges = np.unique(np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1])).tolist()
            column.edges = sorted({*column.edges, *np.quantile(numbers, [0.001, 0.999]).tolist()})
            return column, ""
        if last in _NAMES and found > _LISTED and found > len(there) / 2:
            return None, "an identifier"
        texts = there.astype("str")
        if texts.iloc[0][:1] in "{[" and texts.str.match(r"\s*[\[{].*[\]}]\s*$").all():
            return None, "JSON text"
        counts = texts.value_counts()
        often = counts[counts > 1]
        column.kind = "category" if found <= _LISTED else "code" if numeric else "text"
        column.values = sorted(often.index[:_COUNTED], key=lambda value: (-int(often[value]), value))
        if column.kind == "text":
            column.seen = np.sort(_hashes(often.index)).tolist()
            stems = texts.map({value: _stem(value) for value in counts.index}).value_counts()
            column.stems = [str(stem) for stem in stems[stems > 1].index[:_LISTED]]
            measures = _text_measures(counts.index)
            column.center = np.median(measures, axis=0).tolist()
            column.scale = [float(s) or 1.0 for s in measures.std(axis=0)]
        return column, ""

    def transform(self, frame: pd.DataFrame) -> EventRows:
        """Rows (N) as numbers; unknown columns are ignored, lacking ones are missing."""
        parts, codes = [], []
        for column in self.columns_:
            gone = pd.Series(None, frame.index, dtype=object)
            block, code = self._block(column, frame.get(column.name, gone), frame)
            parts.append(block)
            codes += [code] if column.name not in RATES else []
        who = np.full(len(frame), "", dtype=object)
        if "time" in frame.columns and any(name in frame.columns for name in self.entity):
            who = entities(frame, self.entity).fillna("").to_numpy(dtype=object)
        there = COUNTS if COUNTS[0] in frame.columns else []
        counts = np.log1p(frame[there].to_numpy(dtype=np.float64)) if there else np.empty((len(frame), 0))
        plain, coded = np.concatenate(parts, axis=1), np.concatenate(codes, axis=1)
        return EventRows(plain, coded, counts, kinds(frame), who)

    def _block(self, column: Column, values: pd.Series, frame: pd.DataFrame) -> tuple[np.ndarray, ...]:
        """One column as float32 (N, features), and its codes, int32 (N, 1 or 2)."""
        if column.kind == "time":
            return self._circles(column, values, frame)
        if column.kind == "number":
            numbers = _signed_log(pd.to_numeric(values, errors="coerce"))
            gone = np.isnan(numbers)
            scaled = np.clip((numbers - column.center[0]) / column.scale[0], -_FAR, _FAR)
            scaled[gone] = 0.0
            codes = np.where(gone, MISSING, 2 + np.searchsorted(column.edges, numbers)).astype(np.int32)
            block = np.column_stack([scaled, gone] if column.missing else [scaled])
            return block.astype(np.float32), codes[:, None]
        if column.kind == "constant":  # whether it is missing is told by another column
            places, found = _factorized(values)
            new = np.append(found != column.values[0], False)[places]
            return new[:, None].astype(np.float32), np.where(new, UNSEEN, 2).astype(np.int32)[:, None]
        places, found = _factorized(values)
        stems = [_stem(value) for value in found] if column.kind == "text" else found
        own = [_indices(found, column.values)] + [_indices(stems, column.stems)] * (column.kind == "text")
        slots = own[-1] - 2  # of the listed values, from 0; beyond them another, and missing
        count = len(column.listed)
        slots = np.where((slots < 0) | (slots >= count), count, slots)
        slots[-1] = count + 1
        parts = [np.eye(count + 2, dtype=np.float32)[slots][:, : count + 1 + column.missing]]
        if column.kind == "text":
            scaled = (_text_measures(found) - column.center) / column.scale
            new = ~np.isin(_hashes(found), column.seen)
            measures = np.column_stack([scaled.clip(-_FAR, _FAR), new])
            parts.insert(0, np.pad(measures.astype(np.float32), ((0, 1), (0, 0))))  # last: what is missing
        return np.concatenate(parts, axis=1)[places], np.stack(own, axis=1)[places]

    def _circles(self, column: Column, values: pd.Series, frame: pd.DataFrame) -> tuple[np.ndarray, ...]:
        moments = _moments(values)
        local = moments.dt.tz_convert(self.zone).dt.tz_localize(None)
        if "timezone_offset" in frame.columns:
            minutes = pd.to_numeric(frame["timezone_offset"], errors="coerce").astype("float64")
            shifted = moments.dt.tz_localize(None) + pd.to_timedelta(minutes, unit="min")
            local = shifted.where(minutes.notna(), local)
        hour = (local.dt.hour + local.dt.minute / 60).to_numpy(dtype=np.float64, na_value=np.nan)
        angles = (2 * np.pi * hour / 24, 2 * np.pi * local.dt.day_of_week.to_numpy(dtype=np.float64) / 7)
        circles = [f(angle) for angle in angles[: len(column.values)] for f in (np.sin, np.cos)]
        codes = np.where(np.isnan(hour), MISSING, 2 + np.nan_to_num(hour))
        return np.nan_to_num(np.column_stack(circles)).astype(np.float32), codes.astype(np.int32)[:, None]

    @property
    def coded(self) -> list[tuple[Column, str]]:
        """What each code is of: a column, and of a text its ``"value"`` or its ``"stem"``."""
        coded = [column for column in self.columns_ if column.name not in RATES]
        return [(c, part) for c in coded for part in ("value", "stem")[: 1 + (c.kind == "text")]]

    @property
    def cardinalities(self) -> list[int]:
        """How many codes each may have."""
        sizes = []
        for c, part in self.coded:
            known = len(c.edges) + 1 if c.edges else len(c.stems if part == "stem" else c.values)
            sizes.append(2 + (24 if c.kind == "time" else known))
        return sizes

    @property
    def feature_names(self) -> list[tuple[str, str]]:
        """For each of the d numbers the column that it comes from, and what it says of it."""
        names = []
        for c in self.columns_:
            category = [*(() if c.kind == "constant" else c.listed), "another"]
            told = {"time": _CIRCLES[: 2 * len(c.values)], "number": ["size"], "text": [*_TEXT, *category]}
            names += [(c.name, part) for part in [*told.get(c.kind, category), *["missing"] * c.missing]]
        return names


def _moments(values: pd.Series) -> pd.Series:
    """Moments in UTC; numbers are milliseconds."""
    if pd.api.types.is_datetime64_any_dtype(values):
        return pd.to_datetime(values, utc=True)
    return pd.to_datetime(pd.to_numeric(values, errors="coerce"), unit="ms", utc=True)


def _signed_log(values: pd.Series) -> np.ndarray:
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(np.sign(numbers) * np.log1p(np.abs(numbers)))


def _as_texts(values: pd.Series) -> pd.Series:
    if pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")  # whole numbers that a missing one made floats
    return values.astype("str")


def _factorized(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """The code of each value, int64 (N,), -1 where missing, and each code's text."""
    places, found = pd.factorize(_as_texts(values) if values.dtype == object else values)
    return places, _as_texts(pd.Series(found)).to_numpy(dtype=object)


def _hashes(values: Any) -> np.ndarray:
    hashes = pd.util.hash_array(np.asarray(values, dtype=object), categorize=False)
    return np.asarray((hashes >> np.uint64(1)).astype(np.int64))


def _stem(text: str) -> str:
    """What a text has in common with its like: 10.1.2 of 10.1.2.3, example.co.uk of a7.cdn.example.co.uk."""
    if re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}", text):
        return text.rpartition(".")[0]
    if re.fullmatch(r"[\w-]+(\.[\w-]+)+\.?", text):
        parts = text.rstrip(".").split(".")
        return ".".join(parts[-3 if len(parts) > 2 and parts[-2] in _SECOND else -2 :])
    return re.sub(r"\d+", "0", text)[:80]


def _indices(values: Any, known: list[str]) -> np.ndarray:
    """int32 (N + 1,): 2 and on for known values, else ``UNSEEN``; the last is ``MISSING``."""
    index = {value: i for i, value in enumerate(known, start=2)}
    return np.array([*(index.get(value, UNSEEN) for value in values), MISSING], dtype=np.int32)


def _text_measures(texts: Any, chunk: int = 4096) -> np.ndarray:
    """Length, shares of digits, capitals and signs, and the entropy of bytes: float64 (N, 5)."""
    found = [np.zeros((0, 5))]
    for start in range(0, len(texts), chunk):
        data = [str(text).encode("utf8", "replace")[:512] for text in texts[start : start + chunk]]
        sizes = np.array([len(each) for each in data])
        places = np.repeat(np.arange(len(data)), sizes) * 256 + np.frombuffer(b"".join(data), dtype=np.uint8)
        counts = np.bincount(places, minlength=256 * len(data)).reshape(len(data), 256)
        shares = counts / np.maximum(sizes, 1)[:, None]
        digits, capitals, small = (shares[:, part].sum(axis=1) for part in _CLASSES)
        entropy = -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1)
        signs = (sizes > 0) - digits - capitals - small
        found.append(np.column_stack([np.log1p(sizes), digits, capitals, signs, entropy]))
    return np.concatenate(found)
