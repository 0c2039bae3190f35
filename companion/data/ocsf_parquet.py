"""Parquet files of events as flat columns, whatever is nested in them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from companion.data.ocsf_flat import LENGTH
from companion.data.sources import DataError


def read_batches(
    path: Path, chunk_rows: int, *, list_items: int, fields: Collection[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The file in pieces of at most ``chunk_rows`` rows, flat.

    Structs and lists are named as :mod:`companion.data.ocsf_flat` names them. Times become milliseconds
    since 1970, decimals numbers, maps JSON text, binary values hexadecimal text.

    Args:
        path: of the file.
        chunk_rows: how many rows to hold at once.
        list_items: how many items of each list to keep.
        fields: the flat columns that are wanted; all if not given. Others are not read from the disk.

    Yields:
        The number of rows, and Arrow arrays of that length by name: int64, double, bool or string.

    Raises:
        DataError: if the file cannot be read as Parquet.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            wanted = [name for name in names if fields is None or _leads_to(name, fields)]
            for batch in file.iter_batches(chunk_rows, columns=wanted):
                columns: dict[str, Any] = {}
                for name, array in zip(batch.schema.names, batch.columns, strict=True):
                    columns |= _flatten(name, array, list_items)
                if fields is not None:
                    columns = {name: array for name, array in columns.items() if name in fields}
                yield batch.num_rows, columns
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}; write it again") from error


def _leads_to(name: str, fields: Collection[str]) -> bool:
    return name in fields or any(field.startswith(name + ".") for field in fields)


def _flatten(name: str, array: Any, list_items: int) -> dict[str, Any]:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _flatten(name, array.dictionary_decode(), list_items)
    if pa.types.is_struct(kind):
        flat: dict[str, Any] = {}
        for field, child in zip(kind, array.flatten(), strict=True):
            flat |= _flatten(f"{name}.{field.name}", child, list_items)
        return flat
    if _is_list(kind):
        flat = {f"{name}.{LENGTH}": pc.list_value_length(array).cast(pa.int64())}
        first = pc.list_slice(array, 0, list_items, return_fixed_size_list=True)
        for i in range(list_items):
            flat |= _flatten(f"{name}.{i}", pc.list_element(first, i), list_items)
        return flat
    return {} if pa.types.is_null(kind) else {name: _scalars(array)}


def _is_list(kind: Any) -> bool:
    return any(test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def _scalars(array: Any) -> Any:
    """The array as int64, double, bool or string."""
    kind = array.type
    if pa.types.is_boolean(kind):
        return array
    if pa.types.is_integer(kind):
        too_large = pa.types.is_uint64(kind) and (pc.max(array).as_py() or 0) >= 2**63
        return array.cast(pa.float64(), safe=False) if too_large else array.cast(pa.int64())
    if pa.types.is_timestamp(kind):
        return array.cast(pa.timestamp("ms", kind.tz), safe=False).cast(pa.int64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return array.cast(pa.float64(), safe=False)
    if pa.types.is_map(kind):
        texts = [None if v is None else json.dumps(dict(v), default=str) for v in array.to_pylist()]
        return pa.array(texts, pa.string())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.array([None if v is None else v.hex() for v in array.to_pylist()], pa.string())
    return array.cast(pa.string())
