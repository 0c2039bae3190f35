"""Nested events as flat columns, and back.

A field is named by its path, its parts joined by dots: ``{"user": {"name": "ann"}}`` becomes ``user.name``.
A list becomes its length, under ``path.#``, and its first items, under ``path.0``, ``path.1``. What is null
or an empty object is missing: it has no entry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

LIST_ITEMS = 2
"""How many items of a list are kept, unless told otherwise."""
LENGTH = "#"
"""The part of a path that names the length of a list; no attribute of the schema is called so."""

Kind = Literal["integer", "number", "flag", "text"]
DTYPES: dict[Kind, str] = {"integer": "Int64", "number": "float64", "flag": "boolean", "text": "str"}
"""The pandas type of each kind of column; each of them can say that a value is missing."""

_KIND_OF: dict[type, Kind] = {bool: "flag", int: "integer", float: "number", str: "text"}
_INT64 = range(-(2**63), 2**63)


def flatten(event: Mapping[str, Any], *, list_items: int = LIST_ITEMS) -> dict[str, Any]:
    """A nested event as one level of paths and scalars.

    Args:
        event: as JSON has it.
        list_items: how many items of each list to keep; its length tells how many there were.

    Returns:
        Scalars by path, in the event's order; nulls and empty objects are left out.

    Example:
        >>> flatten({"user": {"name": "ann", "uid": None}, "tags": ["a", "b", "c"]})
        {'user.name': 'ann', 'tags.#': 3, 'tags.0': 'a', 'tags.1': 'b'}
    """
    flat: dict[str, Any] = {}
    _flatten_into(event, "", flat, list_items)
    return flat


def _flatten_into(node: Mapping[str, Any], prefix: str, flat: dict[str, Any], list_items: int) -> None:
    for name, value in node.items():
        path = prefix + name
        if isinstance(value, dict):
            _flatten_into(value, path + ".", flat, list_items)
        elif isinstance(value, list):
            flat[f"{path}.{LENGTH}"] = len(value)
            items = {str(i): item for i, item in enumerate(value[:list_items])}
            _flatten_into(items, path + ".", flat, list_items)
        elif value is not None:
            flat[path] = value


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested event of :func:`flatten`'s paths and scalars.

    It is the event that was flattened, as long as no list was longer than ``list_items``, no name held a
    dot, and nothing was null or an empty object. Items that were not kept come back as null.

    Raises:
        ValueError: if a path is both a value and the beginning of another path.

    Example:
        >>> unflatten({"user.name": "ann", "tags.#": 2, "tags.0": "a", "tags.1": "b"})
        {'user': {'name': 'ann'}, 'tags': ['a', 'b']}
    """
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"{path!r} goes through a field that has a value of its own")
        if isinstance(node.get(name), dict):
            raise ValueError(f"{path!r} has a value and is also the beginning of another path")
        node[name] = value
    return {name: with_lists_of(node) for name, node in tree.items()}


def with_lists_of(node: Any) -> Any:
    """A tree of objects with lists in the place of objects that hold a length and numbered items."""
    if not isinstance(node, dict):
        return node
    if LENGTH in node:
        return [with_lists_of(node.get(str(i))) for i in range(int(node[LENGTH]))]
    return {name: with_lists_of(child) for name, child in node.items()}


# ---------------------------------------------------------------- columns


def kind_of(values: Sequence[Any]) -> Kind:
    """The one kind that holds all of these scalars; whole numbers among others are numbers, a mix is text.

    Example:
        >>> kind_of([1, 2]), kind_of([1, 2.5]), kind_of([True]), kind_of([1, "a"])
        ('integer', 'number', 'flag', 'text')
    """
    kinds = {_KIND_OF.get(kind, "text") for kind in set(map(type, values))}
    if kinds == {"integer"} and not (min(values) in _INT64 and max(values) in _INT64):
        return "number"
    return merge_kinds(*kinds)


def merge_kinds(*kinds: Kind) -> Kind:
    """The kind that can hold columns of all these kinds."""
    distinct = set(kinds)
    if len(distinct) == 1:
        return distinct.pop()
    return "number" if distinct == {"integer", "number"} else "text"


def kind_of_column(column: pd.Series) -> Kind:
    """The kind that holds a column of any frame.

    Example:
        >>> [kind_of_column(pd.Series(values)) for values in ([1], [1.5], [True], ["a"])]
        ['integer', 'number', 'flag', 'text']
    """
    if pd.api.types.is_bool_dtype(column):
        return "flag"
    if pd.api.types.is_integer_dtype(column):
        return "integer"
    return "number" if pd.api.types.is_numeric_dtype(column) else "text"


def text_array(texts: Any) -> Any:
    """Texts and ``None`` as a pandas array of type ``str``; by way of Arrow, which is 20 times as fast."""
    return pd.array(pa.array(texts, pa.large_string()), dtype="str")


def make_column(
    values: Sequence[Any], rows: Sequence[int] | np.ndarray, num_rows: int, kind: Kind | None = None
) -> tuple[Any, int]:
    """A pandas array of scalars that stand in some of the rows.

    Args:
        values: str, int, float or bool; none is ``None``.
        rows: the row of each value.
        num_rows: length of the column; the rows without a value are missing.
        kind: of the column; the values' own if not given. Values that are not of this kind are read as it
            where they can be (``"12"`` as an integer, anything as text) and are missing where they cannot.

    Returns:
        The array, of the type that :data:`DTYPES` names, and the number of values that did not fit.
        Numbers that are not finite are missing too.
    """
    own = kind_of(values) if len(values) else "text"
    kind = kind or own
    misfits = 0
    if {own, kind} != {"integer", "number"} or kind == "integer":
        values, rows, misfits = _read_as(values, rows, kind)
    if kind == "number":
        return _numbers(values, rows, num_rows), misfits
    if kind == "text":
        texts = np.full(num_rows, None, dtype=object)
        texts[rows] = values
        try:
            return text_array(texts), misfits
        except UnicodeEncodeError:  # half a surrogate pair, which JSON may hold and Unicode may not
            texts[rows] = [value.encode("utf8", "replace").decode("utf8") for value in values]
            return text_array(texts), misfits
    missing = np.ones(num_rows, dtype=bool)
    missing[rows] = False
    content = np.zeros(num_rows, dtype=np.int64 if kind == "integer" else bool)
    content[rows] = values
    array = pd.arrays.IntegerArray if kind == "integer" else pd.arrays.BooleanArray
    return array(content, missing), misfits


def _read_as(
    values: Sequence[Any], rows: Sequence[int] | np.ndarray, kind: Kind
) -> tuple[Sequence[Any], Sequence[int] | np.ndarray, int]:
    """The values as a kind, the rows of those that can be read so, and the number of those that cannot."""
    if not len(values) or ({_KIND_OF.get(t) for t in set(map(type, values))} == {kind_of(values)} == {kind}):
        return values, rows, 0
    read = [_as_kind(value, kind) for value in values]
    fits = [i for i, value in enumerate(read) if value is not None]
    return [read[i] for i in fits], np.asarray(rows)[fits], len(read) - len(fits)


def _as_kind(value: Any, kind: Kind) -> Any:
    """One value as another kind; ``None`` if it is not one."""
    if kind == "text":
        return value if isinstance(value, str) else json.dumps(value)
    if kind == "flag" or isinstance(value, bool):
        return value if kind == "flag" and isinstance(value, bool) else None
    try:
        if kind == "number":
            return float(value)
        whole = int(value)
    except (ValueError, OverflowError):
        return None
    return whole if whole in _INT64 and (isinstance(value, str) or whole == value) else None


def _numbers(values: Sequence[Any], rows: Sequence[int] | np.ndarray, num_rows: int) -> np.ndarray:
    numbers = np.full(num_rows, np.nan)
    try:
        numbers[rows] = values
    except OverflowError:  # whole numbers of more than 308 digits
        numbers[rows] = [value if abs(value) < 1e308 else np.nan for value in values]
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers
