"""Parquet files with one entry of a matrix in each row."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from dmf.errors import FileError, MissingPackageError
from dmf.io.arrays import most_bytes
from dmf.io.messages import ignored, listed, shown
from dmf.io.reading import Entries
from dmf.io.roles import Cells, Column, Stated, entry_columns

_TRIPLET = ("row id", "column id", "value")
_SAMPLE = 1_000  # rows by which columns are told apart


def load_parquet(path: Path, stated: Stated) -> Entries:
    """Read a row id, a column id and a value from each row; see `dmf.io.roles.entry_columns` for which columns these are."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackageError(
            f"cannot read {path}: Parquet needs the package pyarrow. Run: pip install 'dmf[parquet]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(names) < 3:
                raise FileError(
                    f"cannot read {path}: {len(names)} columns {names}, but 3 are needed: {', '.join(_TRIPLET)}."
                )
            if len(set(names)) < len(names):
                raise FileError(f"cannot read {path}: column names repeat ({', '.join(listed(names))}). Rename them.")
            if not file.metadata.num_rows:
                raise FileError(f"cannot read {path}: a table without rows. Give at least one entry.")
            _check_size(path, file.metadata, names)
            first = next(file.iter_batches(_SAMPLE))
            how = Cells(stated)
            samples = [
                Column(["" if cell is None else str(cell) for cell in column.to_pylist()], how) for column in first
            ]
            places = entry_columns(names, samples, stated, path)
        row, col, value = chosen = [names[k] for k in places]
        # Ids stay dictionaries: repeated long texts would otherwise unpack to any size.
        with parquet.ParquetFile(path, read_dictionary=[row, col]) as file:
            table = file.read(columns=chosen)
            table.validate(full=True)  # dictionaries of damaged files lead anywhere
        (rows, row_ids), (cols, col_ids) = (
            _number_ids(table.column(name), pyarrow, f"{path}, column {shown(name)}") for name in (row, col)
        )
        values = _values(table.column(value), pyarrow, f"{path}, column {shown(value)}")
    except MemoryError:
        raise
    except (pyarrow.ArrowException, ValueError, TypeError, KeyError, IndexError, OSError, OverflowError) as error:
        raise FileError(f"cannot read {path}: {error}. Write it again.") from error
    told = f"Parquet; row ids in column {shown(row)}, column ids in {shown(col)}, values in {shown(value)} (--columns changes it)"
    notes = (told, *ignored("columns", [name for name in names if name not in chosen]))
    return Entries(rows, cols, values, (len(row_ids), len(col_ids)), row_ids, col_ids, notes)


def _check_size(path: Path, metadata: Any, names: list[str]) -> None:
    """Raise if the columns read may take more memory than the file accounts for, by what its footer says."""
    most, size = most_bytes(path), 16 * metadata.num_rows
    for group in range(metadata.num_row_groups):
        chunks = [metadata.row_group(group).column(k) for k in range(metadata.num_columns)]
        size += sum(max(c.total_uncompressed_size, 0) for c in chunks if c.path_in_schema.split(".")[0] in names)
    if size > most:
        raise FileError(
            f"cannot read {path}: {metadata.num_rows} rows take {size} bytes, but at most {most} are read from a file of "
            f"{path.stat().st_size} bytes. Remove repeated rows, and shorten ids."
        )


def _number_ids(column: Any, pyarrow: Any, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Positions (m,) and ids of a column, numbered in the order of first appearance."""
    ids: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    parts = [np.zeros(0, np.int32)]
    for chunk in column.chunks:
        if chunk.null_count:
            raise FileError(f"cannot read {where}: {chunk.null_count} ids are null. Give every id.")
        if not pyarrow.types.is_dictionary(chunk.type):
            chunk = chunk.dictionary_encode()
        names = chunk.dictionary.cast(pyarrow.string()).to_pylist()
        codes = chunk.indices.to_numpy()
        used, first = np.unique(codes, return_index=True)
        number = np.zeros(len(names), np.int32)
        for code in used[np.argsort(first)]:
            if not (name := (names[code] or "").strip()):
                raise FileError(f"cannot read {where}: an id is empty. Give every id.")
            number[code] = ids[name]
        parts.append(number[codes])
    return np.concatenate(parts), tuple(ids)


def _values(column: Any, pyarrow: Any, where: str) -> np.ndarray:
    kind = column.type
    if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_decimal(kind)):
        raise FileError(f"cannot read {where}: values of type {kind}, but numbers are needed. Convert the column.")
    if not pyarrow.types.is_floating(kind):
        column = column.cast(pyarrow.float64(), safe=False)
    values = column.to_numpy()  # null becomes NaN
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise FileError(
            f"cannot read {where}: {bad.size} values are null, NaN or infinite (the first in row {bad[0] + 1}), but entries are "
            "finite. Leave the rows out if the entries are missing."
        )
    return values
