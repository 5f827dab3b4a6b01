"""Entries in partitions, row groups of Parquet files or parts of Dask collections: read and numbered by whoever has them.

Each is read once: what is kept of it are its ids, and its entries with the numbers that its ids have in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dmf.arrays.backend import floating
from dmf.errors import ArgumentError, FileError, ObservationError
from dmf.io.messages import listed, package
from dmf.io.partition_ids import codes_of, merged, shared

Names = tuple[Any, Any, Any]  # of the columns of rows, columns and values


def row_groups(path: Any, names: Sequence[Any]) -> list[tuple[str, int, int]]:
    """File, number and length of each row group of a Parquet file, or of all in a folder.

    Raises
    ------
    FileError
        If there is none, or one is no Parquet file with these columns; the message names it.
    """
    groups = []
    for file in _files(path):
        found, lengths = _schema(file)
        missing = [str(name) for name in names if name not in found]
        if missing:
            raise FileError(f"{file}: no column {', '.join(missing)}; its columns are {', '.join(listed(found))}.")
        groups += [(str(file), number, length) for number, length in enumerate(lengths)]
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


def _schema(file: Path) -> tuple[list[str], list[int]]:
    """Names of columns, and lengths of the row groups."""
    parquet = package("pyarrow.parquet", file, "dask")
    try:
        with parquet.ParquetFile(file) as opened:
            lengths = [opened.metadata.row_group(number).num_rows for number in range(opened.num_row_groups)]
            return opened.schema_arrow.names, lengths
    except Exception as error:
        raise FileError(f"{file}: no Parquet file that can be read: {error}") from error


def read_group(group: tuple[str, int, int], names: Sequence[Any]) -> Any:
    """A row group as a pandas data frame.

    Raises
    ------
    FileError
        If it cannot be read; the message names the file.
    """
    import pyarrow.parquet as parquet

    file, number, _ = group
    try:
        with parquet.ParquetFile(file) as opened:
            return opened.read_row_group(number, columns=list(names)).to_pandas()
    except Exception as error:
        raise FileError(f"{file}: row group {number} cannot be read: {error}") from error


def _frames(partition: Any, names: Names) -> Iterator[tuple[Any, str]]:
    """The data frames of a partition, one after another, and their names in messages: of a list of row groups, or itself."""
    if isinstance(partition, list):
        for group in partition:
            yield read_group(group, names), "{}, row group {}".format(*group)
    else:
        yield partition, f"the partition that begins with {partition.head(1).to_dict('records')}"


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


def partition_ids(partition: Any, names: Names, parts: int) -> tuple[list[Any], Any]:
    """Ids of a partition, and its entries.

    Parameters
    ----------
    partition : list of row groups, or pandas DataFrame
    names : names of columns
    parts : int
        Of the hashes of the ids; see `dmf.io.partition_ids`.

    Returns
    -------
    ids : list of (Ids, Ids)
        Of rows and of columns, for each part.
    entries : (rows, cols, values, orders)
        Whose rows and columns (int32) have the numbers of their ids in the partition; `orders` are those of `shared`.
    """
    codes, values, ids = [], [], []
    for frame, where in _frames(partition, names):
        found = _values(frame, names)
        seen = ~np.isnan(found)
        some, of_frame = codes_of([frame[name] for name in names[:2]], seen, where)
        codes.append(some)
        values.append(found[seen])
        ids.append(of_frame)
    whole = merged(ids)
    rows, cols = (
        np.concatenate([place[code] for place, code in zip(each.places, same, strict=True)])
        for each, same in zip(whole, zip(*codes, strict=True), strict=True)
    )
    both, orders = zip(*(shared(each.found, parts) for each in whole), strict=True)
    return list(zip(*both, strict=True)), (rows, cols, np.concatenate(values), orders)


def numbered_entries(entries: Any, dtype: Any, *pieces: Any) -> tuple[np.ndarray, ...]:
    """Rows, columns (int32) and values of the entries of a partition, of whose ids `pieces` hold the numbers, part by part."""
    *codes, values, orders = entries
    found = []
    for code, order, numbers in zip(codes, orders, zip(*pieces, strict=True), strict=True):
        table = np.empty(order.size, np.int32)
        table[order] = np.concatenate(numbers)
        found.append(table[code])
    return *found, values.astype(dtype)


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
