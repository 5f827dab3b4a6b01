"""Columns as Arrow holds them: Parquet files, folders of them, and what a database gives. Entries, or a table."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from dmf.errors import FileError
from dmf.io.arrays import most_bytes
from dmf.io.cells import Cells, Column, Stated
from dmf.io.ids import Numbering, Stack, distinct
from dmf.io.lines import TRIPLET, entries_and_holes
from dmf.io.messages import Progress, ignored, listed, package, shown
from dmf.io.parquet_pages import unpacked_bytes
from dmf.io.reading import Entries, Matrix
from dmf.io.roles import entry_columns
from dmf.io.sheets import Sheet
from dmf.io.tables import index_column, is_table, table_of
from dmf.io.words import Levels
from dmf.io.writing import write_atomically

SAMPLE = 1_000  # records by which columns are told apart
BATCH = 2**18  # records that are decoded at once
_INTEGER = re.compile("u?int(8|16|32|64)")
_IN_A_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_BATCHES_AHEAD = 4  # batches that are decoded while one is numbered


@dataclass(frozen=True)
class Columns:
    """Records of named columns.

    Attributes
    ----------
    path : path
    dialect : str
        What it is, for messages.
    first : list of str
        Names of the columns.
    sample : list of lists of str
        The names, and the first records as text.
    scan : callable
        Called with names of columns; iterates over record batches of Arrow, of all records.
    whole : callable
        Called without arguments; gives an Arrow table of all records and columns.
    index : list of str
        Columns that pandas wrote as the index of a frame.
    """

    path: object
    dialect: str
    first: list[str]
    sample: list[list[str]]
    scan: Callable[[list[str]], Iterable[Any]]
    whole: Callable[[], Any]
    index: Sequence[str] = ()

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.first)


def load_parquet(path: Path, stated: Stated, keep: bool, progress: Progress) -> Entries | Matrix:
    """Read a Parquet file or a folder of them: entries, see `dmf.io.roles.entry_columns`, or a table."""
    pyarrow, dataset = package("pyarrow", path, "parquet"), package("pyarrow.dataset", path, "parquet")
    with errors_of(path, pyarrow):
        folders = "hive" if path.is_dir() else None
        source = dataset.dataset(path, format="parquet", partitioning=folders)
        fragments = list(source.get_fragments())
        n_rows = sum(fragment.metadata.num_rows for fragment in fragments)
        if not n_rows:
            raise FileError(f"cannot read {path}: a table without rows. Give at least one entry.")
        _check_size(path, fragments, n_rows)
        # Ids stay dictionaries: repeated long texts would otherwise unpack to any size.
        kinds = pyarrow.types
        texts = {field.name for field in source.schema if kinds.is_string(field.type) or kinds.is_binary(field.type)}
        reading = dataset.ParquetFileFormat(read_options=dataset.ParquetReadOptions(dictionary_columns=texts))
        source = dataset.dataset(path, format=reading, partitioning=folders)

        def scan(names: list[str]) -> Iterator[Any]:
            options = {"batch_size": BATCH, "batch_readahead": _BATCHES_AHEAD, "fragment_readahead": 1}
            read = 0
            for batch in source.scanner(columns=names, **options).to_batches():
                yield batch
                read += len(batch)
                progress(read, read / n_rows)

        dialect = "Parquet" if len(fragments) == 1 else f"Parquet, {len(fragments)} files"
        names = source.schema.names
        sample = sample_of(names, source.head(SAMPLE, batch_readahead=0, fragment_readahead=0))
        plain = dataset.dataset(path, format="parquet", partitioning=folders)
        found = Columns(path, dialect, names, sample, scan, plain.to_table, pandas_index(source.schema))
        return from_columns(found, stated, keep, pyarrow)


def from_columns(columns: Columns, stated: Stated, keep: bool, pyarrow: Any) -> Entries | Matrix:
    """Entries, or a table, of columns: as stated, or by what they look like."""
    how = Cells(stated)
    if len(set(columns.first)) < columns.width:
        raise FileError(
            f"cannot read {columns.path}: column names repeat ({', '.join(listed(columns.first))}). Rename them."
        )
    if stated.is_table or (not stated.is_entries and is_table(columns, replace(stated, header=True), how)):
        return _table(columns, stated, how, keep, pyarrow)
    if columns.width < len(TRIPLET):
        raise FileError(
            f"cannot read {columns.path}: {columns.width} columns {columns.first}, but {len(TRIPLET)} are needed: "
            f"{', '.join(TRIPLET)}."
        )
    samples = [Column(cells, how) for cells in zip(*columns.sample[1:], strict=True)]
    places = entry_columns(columns.first, samples, stated, columns.path)
    row, col, value, *time = chosen = [columns.first[k] for k in places]
    rows, cols, begin, where = Numbering(), Numbering(), 0, f"{columns.path}, column"
    stack: Stack | None = None
    times = Stack(np.float64)
    for batch in columns.scan(chosen):
        batch.validate(full=True)  # dictionaries of damaged files lead anywhere
        values = _numbers(batch.column(value), pyarrow, f"{where} {shown(value)}")
        _check_finite(values, begin, f"{where} {shown(value)}")
        if stack is None:
            stack = Stack(values.dtype)
        stack.add(how.unmarked(values))
        for name in time:
            times.add(_times(batch.column(name), pyarrow, f"{where} {shown(name)}", begin))
        for ids, name in ((rows, row), (cols, col)):
            _number_ids(ids, batch.column(name), pyarrow, f"{where} {shown(name)}", begin)
        begin += len(batch)
    if stack is None or np.isnan(stack.result()).all():
        raise FileError(f"cannot read {where} {shown(value)}: no value in any row. Give at least one.")
    found, holes = entries_and_holes(rows, cols, stack, places[2], times.result() if time else None)
    notes = [
        f"{columns.dialect}; row ids in column {shown(row)}, column ids in {shown(col)}, values in {shown(value)}"
        f"{''.join(f', times in {shown(name)}' for name in time)} (--columns changes it)",
        *ignored("columns", [name for name in columns.first if name not in chosen]),
        *found.notes,
    ]
    return replace(found, notes=tuple(notes), text=KeptColumns(columns.whole(), holes) if keep else None)


def _table(columns: Columns, stated: Stated, how: Cells, keep: bool, pyarrow: Any) -> Matrix:
    sheet = Sheet(columns.path, columns.dialect, columns.first, columns.width, "row")
    marks = {"", *(mark.strip().lower() for mark in stated.missing)}
    written = [columns.first.index(name) for name in columns.index]
    index = index_column(sheet, stated) or (written[0] if len(written) == 1 else 0)
    begin = 1
    for batch in columns.scan(columns.first):
        batch.validate(full=True)
        cells = [
            how.unmarked(_numbers(column, pyarrow, "")) if _is_numeric(pyarrow, column.type) else None
            for column in batch.columns
        ]
        names = ["" if name is None else name.strip() for name in _texts(batch.column(index), pyarrow)]
        sheet.add_columns(range(begin, begin + len(batch)), cells, names)
        if begin == 1:
            sheet.levels = {k: Levels() for k, column in enumerate(batch.columns) if _is_text(pyarrow, column.type)}
        for k, levels in sheet.levels.items():
            if levels.are_few:
                levels.add(*_distinct_texts(batch.column(k), pyarrow), lambda text: text.strip().lower() in marks)
        begin += len(batch)
    found = table_of(sheet, stated, how, [], written)
    kept = KeptColumns(columns.whole(), found.holes, found.n_left_empty) if keep else None
    return replace(found.matrix, text=kept)


class KeptColumns:
    """The columns of a file as they were, and where their missing entries stand.

    Attributes
    ----------
    holes, n_left_empty
        As of `dmf.io.filling.Text`.
    """

    def __init__(self, table: Any, holes: np.ndarray, n_left_empty: int = 0) -> None:
        self._table, self.holes, self.n_left_empty = table, holes, n_left_empty

    def write_filled(
        self, path: str | os.PathLike, values: np.ndarray, texts: Iterable[tuple[int, int, str]] = ()
    ) -> None:
        """Write the columns with their missing cells filled, as Parquet or as text with commas or tabs, as the suffix says.

        Columns keep their types; whole numbers are rounded. Record, column and text are given of cells in columns of text.
        """
        table = self._table
        for k in np.unique(self.holes[:, 1]).tolist():
            here = self.holes[:, 1] == k
            table = with_cells(table, k, self.holes[here, 0], values[here])
        by_column: dict[int, dict[int, Any]] = {}
        for record, k, cell in texts:
            by_column.setdefault(k, {})[record] = cell
        for k, cells in by_column.items():
            if import_module("pyarrow").types.is_boolean(table.schema.field(k).type):
                cells = {record: cell == "true" for record, cell in cells.items()}
            table = with_objects(table, k, cells)
        suffix = Path(path).suffix.lower()
        if suffix == ".parquet":
            write_atomically(path, lambda file: import_module("pyarrow.parquet").write_table(table, file))
            return
        text = import_module("pyarrow.csv")
        options = text.WriteOptions(delimiter="\t" if suffix == ".tsv" else ",", quoting_style="needed")
        write_atomically(path, lambda file: text.write_csv(table, file, options))


def pandas_index(schema: Any) -> list[str]:
    """Columns of an Arrow schema that pandas wrote as the index of a frame."""
    written = (schema.pandas_metadata or {}).get("index_columns", [])
    return [name for name in written if isinstance(name, str) and name in schema.names]


def as_cells(numbers: np.ndarray, dtype: Any) -> np.ndarray:
    """Numbers for a column of this dtype: for one of integers rounded, and within their range, as int64."""
    kind = _INTEGER.match(str(dtype).lower())
    if kind is None:
        return numbers
    limits = np.iinfo(kind[0])
    # The largest float64 below 2^63 is within int64.
    return np.clip(np.rint(numbers), limits.min, min(limits.max, np.nextafter(2.0**63, 0))).astype(np.int64)


def with_cells(table: Any, k: int, rows: np.ndarray, cells: np.ndarray) -> Any:
    """An Arrow table with `cells` in column `k` at `rows`, positions or a mask; all others stay as they are."""
    pyarrow, field = import_module("pyarrow"), table.schema.field(k)
    cells = as_cells(cells, field.type)
    column, is_given = np.zeros(table.num_rows, cells.dtype), np.zeros(table.num_rows, bool)
    column[rows], is_given[rows] = cells, True
    given = pyarrow.array(column).cast(field.type)
    choose = import_module("pyarrow.compute").if_else
    return table.set_column(k, field, choose(pyarrow.array(is_given), given, table.column(k)))


def with_objects(table: Any, k: int, cells: Mapping[int, Any]) -> Any:
    """An Arrow table with texts or truth values at rows of column `k`; all others stay as they are."""
    field, found = table.schema.field(k), table.column(k).to_pylist()
    for row, cell in cells.items():
        found[row] = cell
    return table.set_column(k, field, [import_module("pyarrow").array(found, field.type)])


def sample_of(names: list[str], head: Any) -> list[list[str]]:
    cells = [["" if cell is None else str(cell) for cell in column.to_pylist()] for column in head.columns]
    return [names, *map(list, zip(*cells, strict=True))]


def _check_size(path: Path, fragments: Sequence[Any], n_rows: int) -> None:
    """Raise if what is read may take more memory than the files account for, by what their pages say."""
    most = sum(most_bytes(fragment.path) for fragment in fragments)
    size = 16 * n_rows + sum(unpacked_bytes(fragment.path, fragment.metadata) for fragment in fragments)
    if size > most:
        raise FileError(
            f"cannot read {path}: {n_rows} rows take {size} bytes, but at most {most} are read from files of this size. Remove "
            "repeated rows, and shorten ids."
        )


def _number_ids(ids: Numbering, column: Any, pyarrow: Any, where: str, begin: int) -> None:
    """Number the ids of a column of a batch, whose first record is the one after `begin`."""
    kinds = pyarrow.types
    if column.null_count:
        first = begin + 1 + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise FileError(
            f"cannot read {where}: {column.null_count} ids are null, the first in row {first}. Give every id."
        )
    if kinds.is_floating(column.type):
        numbers = column.to_numpy()
        if (numbers % 1 == 0).all() and np.abs(numbers).max(initial=0) < 2**53:
            column = column.cast(pyarrow.int64())
    if kinds.is_integer(column.type):
        ids.add_integers(column.to_numpy().astype(np.int64, copy=False))
        return
    if not kinds.is_dictionary(column.type):
        column = column.dictionary_encode()
    codes, which = distinct(column.indices.to_numpy())
    texts = [text or "" for text in column.dictionary.take(pyarrow.array(codes)).cast(pyarrow.string()).to_pylist()]
    if not ids.add(texts, which):
        row = begin + 1 + int(np.flatnonzero(which == [text.strip() for text in texts].index(""))[0])
        raise FileError(f"cannot read {where}: an id is empty, in row {row}. Give every id.")


def _is_numeric(pyarrow: Any, kind: Any) -> bool:
    kinds = pyarrow.types  # all of a column may be null
    return kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind) or kinds.is_null(kind)


def _is_text(pyarrow: Any, kind: Any) -> bool:
    """Whether cells are texts or truth values."""
    kinds = pyarrow.types
    kind = kind.value_type if kinds.is_dictionary(kind) else kind
    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_boolean(kind)


def _distinct_texts(column: Any, pyarrow: Any) -> tuple[list[str], np.ndarray]:
    """The different cells of a column as text, "" for null, and which of them each is."""
    if not pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    codes, which = np.unique(column.indices.cast(pyarrow.int64()).fill_null(-1).to_numpy(), return_inverse=True)
    taken = column.dictionary.take(pyarrow.array(codes, mask=codes < 0)).cast(pyarrow.string())
    return [text or "" for text in taken.to_pylist()], which


def _numbers(column: Any, pyarrow: Any, where: str) -> np.ndarray:
    """The numbers of a column in float32 or float64, NaN for null."""
    if not _is_numeric(pyarrow, column.type):
        kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
        raise FileError(f"cannot read {where}: values of type {kind}, but numbers are needed. Convert the column.")
    if column.type not in (pyarrow.float32(), pyarrow.float64()):
        column = column.cast(pyarrow.float32() if column.type == pyarrow.float16() else pyarrow.float64(), safe=False)
    return column.to_numpy(zero_copy_only=False)


def _times(column: Any, pyarrow: Any, where: str, begin: int) -> np.ndarray:
    """The numbers of a column, or seconds since 1970 of its dates, in float64; raises if one is missing."""
    kinds = pyarrow.types
    if kinds.is_date(column.type):
        column = column.cast(pyarrow.timestamp("ms"))
    if kinds.is_timestamp(column.type):
        unit = _IN_A_SECOND[column.type.unit]
        times = column.cast(pyarrow.int64()).to_numpy(zero_copy_only=False) / unit
    else:
        times = _numbers(column, pyarrow, where).astype(np.float64)
    gone = np.flatnonzero(~np.isfinite(times))
    if len(gone):
        raise FileError(
            f"cannot read {where}: no time in row {begin + gone[0] + 1}, but each entry has one. Give it, or leave the row out."
        )
    return times


def _check_finite(values: np.ndarray, begin: int, where: str) -> None:
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise FileError(
            f"cannot read {where}: {len(infinite)} values are infinite (the first in row {begin + infinite[0] + 1}), but entries "
            "are finite. Write null where one is missing."
        )


def _texts(column: Any, pyarrow: Any) -> list[str | None]:
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pyarrow.string()).to_pylist()


@contextlib.contextmanager
def errors_of(path: object, pyarrow: Any) -> Iterator[None]:
    """What Arrow raises as FileError."""
    try:
        yield
    except (FileError, MemoryError):
        raise
    except (pyarrow.ArrowException, ValueError, TypeError, KeyError, IndexError, OSError, OverflowError) as error:
        raise FileError(f"cannot read {path}: {error}. Write it again.") from error
