"""Entries in partitions, row groups of Parquet files or parts of Dask collections: read and numbered by whoever has them.

Partitions are looked at twice: for their ids, and to cut their entries into pieces for blocks of rows and of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dmf.arrays.backend import floating
from dmf.errors import ArgumentError, FileError, ObservationError
from dmf.io.messages import listed, package
from dmf.io.partition_ids import ids_of, numbered

Names = tuple[Any, Any, Any]  # of the columns of rows, columns and values


def row_groups(path: Any, names: Sequence[Any]) -> list[tuple[str, int]]:
    """Files and numbers of the row groups of a Parquet file, or of all in a folder.

    Raises
    ------
    FileError
        If there is none, or one is no Parquet file with these columns; the message names it.
    """
    groups = []
    for file in _files(path):
        found, count = _schema(file)
        missing = [str(name) for name in names if name not in found]
        if missing:
            raise FileError(f"{file}: no column {', '.join(missing)}; its columns are {', '.join(listed(found))}.")
        groups += [(str(file), number) for number in range(count)]
    return groups


def column_names(path: Any, least: int) -> list[str]:
    """Names of the columns of a Parquet file, or of the first one in a folder; FileError where there are fewer than `least`."""
    file = _files(path)[0]
    names = _schema(file)[0]
    if len(names) < least:
        raise FileError(f"{file}: there are {len(names)} columns, but the first {least} are read.")
    return names


def _files(path: Any) -> list[Path]:
    path = Path(path)
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise FileError(f"{path}: the folder holds no .parquet file. Name the folder that does.")
    return files


def _schema(file: Path) -> tuple[list[str], int]:
    """Names of columns, and number of row groups."""
    parquet = package("pyarrow.parquet", file, "dask")
    try:
        with parquet.ParquetFile(file) as opened:
            return opened.schema_arrow.names, opened.num_row_groups
    except Exception as error:
        raise FileError(f"{file}: no Parquet file that can be read: {error}") from error


def frame_of(partition: Any, names: Sequence[Any]) -> Any:
    """A partition as a pandas data frame: itself, or one that is read where it is a file and the number of a row group.

    Raises
    ------
    FileError
        If it cannot be read; the message names the file.
    """
    if not isinstance(partition, tuple):
        return partition
    import pyarrow.parquet as parquet

    file, number = partition
    try:
        with parquet.ParquetFile(file) as opened:
            return opened.read_row_group(number, columns=list(names)).to_pandas()
    except Exception as error:
        raise FileError(f"{file}: row group {number} cannot be read: {error}") from error


def check_columns(columns: list[Any], names: Names) -> None:
    """Raise ArgumentError unless a frame has these columns."""
    for argument, name in zip(("row", "column", "value"), names, strict=True):
        if columns.count(name) != 1:
            raise ArgumentError(
                f"{argument}={name!r}, but the columns are {', '.join(listed(list(map(str, columns))))}. Name one of them.",
                argument=argument,
                value=name,
                limit=tuple(columns),
            )


def partition_ids(partition: Any, names: Names, parts: int) -> list[Any]:
    """Ids of a partition by parts of their hashes, see `dmf.io.partition_ids`; the last one is the dtype of its values."""
    frame = frame_of(partition, names)
    values = _values(frame, names)
    if isinstance(partition, tuple):
        where = "{}, row group {}".format(*partition)
    else:
        where = f"the partition that begins with {frame.head(1).to_dict('records')}"
    return [*ids_of([frame[name] for name in names[:2]], ~np.isnan(values), parts, where), values.dtype]


def numbered_entries(partition: Any, names: Names, dtype: Any, *pieces: Any) -> tuple[np.ndarray, ...]:
    """Rows, columns (int32) and values of the entries of a partition, of whose ids `pieces` hold the numbers."""
    frame = frame_of(partition, names)
    values = _values(frame, names).astype(dtype)
    seen = ~np.isnan(values)
    rows, cols = (numbered(frame[name], side, pieces)[seen] for side, name in enumerate(names[:2]))
    return rows, cols, values[seen]


def chunk_counts(chunk: Any, first: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Number of entries in each row and in each column of a chunk of a matrix with NaN, which begins at `first`.

    Raises
    ------
    ObservationError
        If an entry is infinite; the message names its place.
    """
    chunk = np.asarray(chunk)
    infinite = np.isinf(chunk)
    if infinite.any():
        row, col = (int(at[0]) + begin for at, begin in zip(np.nonzero(infinite), first, strict=True))
        raise ObservationError(
            f"the array is infinite at row {row}, column {col} (from 0), but entries are finite, and missing ones NaN.",
            argument="array",
            value=(row, col),
        )
    seen = ~np.isnan(chunk)
    return np.count_nonzero(seen, axis=1), np.count_nonzero(seen, axis=0)


def chunk_entries(chunk: Any, first: tuple[int, int], dtype: Any) -> tuple[np.ndarray, ...]:
    """Rows, columns (int32) and values of the entries of a chunk."""
    chunk = np.asarray(chunk)
    rows, cols = np.nonzero(~np.isnan(chunk))
    values = chunk[rows, cols].astype(dtype)
    return (rows + first[0]).astype(np.int32), (cols + first[1]).astype(np.int32), values


def pieces(entries: tuple[np.ndarray, ...], bounds: tuple[np.ndarray, np.ndarray]) -> list[tuple[np.ndarray, ...]]:
    """Entries by blocks: those of rows, then those of columns, each (own number, the other one, value)."""
    parts = []
    for side, inner in enumerate(bounds):
        own, other = entries[side], entries[1 - side]
        blocks = np.arange(inner.size - 1, dtype=np.min_scalar_type(inner.size))  # few bits: a radix sort
        block = np.repeat(blocks, np.diff(inner))[own]
        order = np.argsort(block, kind="stable")
        ends = np.cumsum(np.bincount(block, minlength=blocks.size))[:-1]
        cut = [np.split(array[order], ends) for array in (own, other, entries[2])]
        parts += list(zip(*cut, strict=True))
    return parts


def _values(frame: Any, names: Names) -> np.ndarray:
    try:
        values = floating(
            frame[names[2]].to_numpy(dtype=None if frame.dtypes[names[2]].kind in "iufb" else float), "value"
        )
    except (TypeError, ValueError) as error:
        raise ObservationError(
            f"column {names[2]!r} does not hold numbers: {error}.", argument="value", value=names[2]
        ) from error
    if np.isinf(values).any():
        raise ObservationError(
            f"column {names[2]!r} holds infinite values, but all must be finite. Leave missing ones empty.",
            argument="value",
            value=names[2],
        )
    return values
