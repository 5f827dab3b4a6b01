"""Matrices and their entries in files: npy, npz, Matrix Market, Parquet and delimited text, all read with suspicion."""

from __future__ import annotations

import csv
import itertools
import os
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dmf.errors import FileError, ShapeError
from dmf.io.archive import write_atomically
from dmf.io.delimited import DelimitedText, is_meant_as_number, is_missing, is_number, open_delimited, shown
from dmf.io.formats import Found, load_npy, load_npz, load_parquet, load_text, members_text, read_npz, readable, times
from dmf.io.matrix_market import load_mtx
from dmf.io.tables import Table
from dmf.observations import FullMatrix, SampledEntries

# Headings of ids, perhaps with a type behind a colon, as RecBole writes them.
_HEADING = re.compile(
    r"((row|col|column|user|person|member|customer|client|reader|viewer|item|movie|film|product|book|song|track|artist|station"
    r"|sensor|sample|gene|patient|drug)s?[ _.-]?(id|ids|name|key|code|index|no|nr|number)?|[ui]?id|name|key|index)(:\w+)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class MatrixFile:
    """Observed entries of a matrix, as a file gave them.

    Attributes
    ----------
    observations : SampledEntries
    row_ids, col_ids : tuple of str, or None
        Id of each row and each column; None where the file has none, so that positions from 0 take their place.
    notes : tuple of str
        What was decided while reading, one sentence each.
    table : Table or None
        The layout, if the file was a table in delimited text, for `dmf.io.tables.write_filled`.
    delimited : bool
        Whether the file was delimited text, a table or not.
    n_repeated : int
        Number of entries at the position of another one before them.
    """

    observations: SampledEntries
    row_ids: tuple[str, ...] | None
    col_ids: tuple[str, ...] | None
    notes: tuple[str, ...]
    table: Table | None
    delimited: bool
    n_repeated: int


@dataclass(frozen=True)
class CompleteMatrix:
    """A matrix known at every entry, as a file gave it.

    Attributes
    ----------
    matrix : float32 or float64 array, shape (d1, d2)
    row_ids, col_ids : tuple of str, or None
    notes : tuple of str
    """

    matrix: np.ndarray
    row_ids: tuple[str, ...] | None
    col_ids: tuple[str, ...] | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Pairs:
    """Positions to predict: the ids of row and column of each.

    Attributes
    ----------
    row_ids, col_ids : list of str
    notes : tuple of str
    """

    row_ids: list[str]
    col_ids: list[str]
    notes: tuple[str, ...]


def read_entries(path: str | os.PathLike, layout: str = "auto") -> MatrixFile:
    """Read the observed entries of a matrix.

    Parameters
    ----------
    path : path
        The suffix decides:

        - ``.npy``: a 2-D array of real numbers; NaN marks a missing entry.
        - ``.npz``: what `scipy.sparse.save_npz` writes (coo, csr or csc; stored means observed, zeros included); or members
          ``rows``, ``cols``, ``values`` and perhaps ``shape``; or one 2-D array.
        - ``.mtx``: Matrix Market, coordinate (stored means observed) or array. Rows and columns are counted from 1 there, and so
          are the ids "1", "2", ...; positions in the observations count from 0, as everywhere.
        - ``.parquet``: the first three columns are row id, column id, value.
        - anything else: delimited text, see `dmf.io.delimited.open_delimited`. Either lines of row id, column id, value, where
          the first line is a header when its third field is no number; or a table with missing cells, see
          `dmf.io.tables.read_table`. Ids are any text without the blanks around it.

        Ids are numbered in the order of their first appearance. Further columns are ignored, and the notes say so.
    layout : {"auto", "entries", "table"}
        What delimited text holds; "auto": decided by its first lines, see `dmf.io.tables.is_table`.

    Returns
    -------
    MatrixFile

    Raises
    ------
    FileError
        If the file cannot be read, or holds something else, a value that is no finite number, or no entry; if a layout is
        given and the file is not delimited text.
    MissingPackageError
        If Parquet is asked for and pyarrow is not installed.
    DmfError
        From `SampledEntries`, if what was read is no set of entries.
    """
    found = _load(path, layout)
    notes, repeated = found.notes, 0
    if isinstance(found.data, SampledEntries):
        entries = found.data
        if repeated := _repeated(entries):
            notes += (f"{repeated} entries repeat a position; each counts as a measurement of its own",)
    else:
        entries = SampledEntries.from_dense(found.data)
        missing = found.data.size - entries.n_measurements
        if missing and found.table is None:  # which has said so
            notes += (f"{missing} of {found.data.size} entries are NaN, which marks them as missing",)
    delimited = _reader(Path(path)) is None
    return MatrixFile(entries, found.row_ids, found.col_ids, notes, found.table, delimited, repeated)


def read_matrix(path: str | os.PathLike, layout: str = "auto") -> CompleteMatrix:
    """Read a matrix that is known at every entry.

    Parameters
    ----------
    path : path
        As for `read_entries`; files of entries must cover every position once.
    layout : {"auto", "entries", "table"}
        As for `read_entries`.

    Returns
    -------
    CompleteMatrix

    Raises
    ------
    FileError
        As `read_entries`, and if entries are missing or given twice.
    DmfError
        From `FullMatrix`, if what was read is no matrix of finite numbers.
    """
    found = _load(path, layout)
    if isinstance(found.data, SampledEntries):
        d1, d2 = found.data.shape
        repeated = _repeated(found.data)
        missing = d1 * d2 - (found.data.n_measurements - repeated)
        reason = f"only {d1 * d2 - missing} positions are given"
    else:
        repeated, missing, reason = 0, int(np.count_nonzero(np.isnan(found.data))), "they are NaN"
        d1, d2 = found.data.shape
    if missing:
        raise FileError(
            f"cannot read {path} as a complete matrix: {missing} of {d1 * d2} entries ({d1} x {d2}) are missing ({reason}). "
            "Use `dmf complete` to recover them, or write zeros where entries left out are meant to be zero."
        )
    if repeated:
        raise FileError(
            f"cannot read {path} as a complete matrix: {repeated} entries repeat a position, but each entry has one value. "
            "Remove the repetitions, or use `dmf complete`, which averages them."
        )
    # Sorted by row and column and complete, so the values are the matrix.
    matrix = found.data.values.reshape(d1, d2) if isinstance(found.data, SampledEntries) else found.data
    return CompleteMatrix(FullMatrix(matrix).matrix, found.row_ids, found.col_ids, found.notes)


def read_sensing(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read linear measurements ``y_i = <A_i, X>``.

    Parameters
    ----------
    path : path
        npz file with members ``A``, shape (m, d1, d2), and ``y``, shape (m,).

    Returns
    -------
    A, y : arrays
        Integers converted to float64; whether shapes and dtypes fit is left to `LinearMeasurements`.
    notes : tuple of str

    Raises
    ------
    FileError
        If the file cannot be read, or a member is missing.
    """

    def choose(names):
        if not {"A", "y"} <= set(names):
            raise FileError(
                f"cannot read {path}: it holds {members_text(names)}, but measurements are the members 'A' (m, d1, d2) and "
                "'y' (m,). Write them with numpy.savez(path, A=A, y=y)."
            )
        return ["A", "y"]

    with readable(path) as file:
        members, ignored = read_npz(file, choose)
    A, y = (a if a.dtype.kind == "f" else a.astype(np.float64) for a in (members["A"], members["y"]))
    return A, y, (f"A: {A.dtype} array {times(A.shape)}; y: {y.dtype} array {times(y.shape)}", *ignored)


def read_pairs(path: str | os.PathLike, known_rows: Container[str], known_cols: Container[str]) -> Pairs:
    """Read positions to predict, as lines of row id and column id.

    Parameters
    ----------
    path : path
        Delimited text; see `dmf.io.delimited.open_delimited`. Further columns are ignored.
    known_rows, known_cols : containers of str
        Ids that exist. The first of several lines is a header if neither its row nor its column is known, and either both are
        headings that such files have ("row", "user_id", "movieId", ...), or one of its fields is no number while all below it
        are. Any other line is a pair: new rows and columns are predicted, too, and whether ids are known is not checked here.

    Returns
    -------
    Pairs

    Raises
    ------
    FileError
        If the file cannot be read or has no such lines.
    """

    def plausible(record):
        return record[0].strip() in known_rows and record[1].strip() in known_cols

    rows: list[str] = []
    cols: list[str] = []
    with readable(path) as file, open_delimited(file, ("row id", "column id"), plausible) as text:
        unknown = not text.single and text.first[0] not in known_rows and text.first[1] not in known_cols
        notes: tuple[str, ...] = ()
        if unknown and _is_header(text, 2):
            text.skip_header()
        elif unknown:
            first = " and ".join(map(shown, text.first[:2]))
            notes = (
                f"the first line ({first}) is taken as a pair; if it is a header, call its columns row and column",
            )
        one: dict[str, str] = {}  # so that a million lines hold each id once
        for record in text:
            row, col = record[0].strip(), record[1].strip()
            if not (row and col):
                raise text.error("an id is empty. Give both, or leave the line out.", record)
            rows.append(one.setdefault(row, row))
            cols.append(one.setdefault(col, col))
        if not rows:
            raise text.error("a header, but no pair follows. Give at least one line of row id and column id.")
        return Pairs(rows, cols, (*text.notes(2), *notes))


def read_row_ids(path: str | os.PathLike, known: Container[str]) -> tuple[list[str], tuple[str, ...]]:
    """Read ids of rows, the first column of delimited text.

    Parameters
    ----------
    path : path
        See `dmf.io.delimited.open_delimited`. Further columns are ignored.
    known : container of str
        Ids that exist. The first of several lines is a header if its id is not known, but a heading that such files have; or if
        one of its fields is no number while all below it are. Whether all other ids are known is not checked.

    Returns
    -------
    ids : list of str
    notes : tuple of str

    Raises
    ------
    FileError
        If the file cannot be read or has no such lines.
    """
    with readable(path) as file, open_delimited(file, ("row id",), lambda record: record[0].strip() in known) as text:
        if not text.single and text.first[0] not in known and _is_header(text, 1):
            text.skip_header()
        ids = [record[0].strip() for record in text]
        if not ids:
            raise text.error("a header, but no row id follows. Give at least one.")
        return ids, text.notes(1)


def _is_header(text: DelimitedText, n_ids: int) -> bool:
    """Whether the first record, whose ids are unknown, is a header rather than new ids."""
    if all(map(_HEADING.fullmatch, text.first[:n_ids])):
        return True
    columns = list(zip(*text.sample, strict=True))
    return any(
        not is_missing(name) and not is_meant_as_number(name) and len(below) > 0 and all(map(is_number, below))
        for name, *below in columns
    )


def write_predictions(
    path: str | os.PathLike, row_ids: Sequence[str], col_ids: Sequence[str], values: Mapping[str, np.ndarray]
) -> None:
    """Write predictions as csv with the columns row, column and those of `values`, whole or not at all.

    Parameters
    ----------
    path : path
    row_ids, col_ids : sequences of str, length n
    values : mapping of column names to arrays, shape (n,)
        NaN: an empty cell.

    Raises
    ------
    FileError
        If the file cannot be written.
    ShapeError
        If the lengths differ.
    """
    lines = format_predictions(row_ids, col_ids, values)
    write_atomically(path, lambda file: file.writelines(line.encode() for line in lines))


def format_predictions(
    row_ids: Sequence[str], col_ids: Sequence[str], values: Mapping[str, np.ndarray]
) -> Iterator[str]:
    """Lines that `write_predictions` writes, line ends included.

    Numbers have as many digits as their dtype needs to be read back unchanged.

    Raises
    ------
    ShapeError
        If the lengths differ.
    """
    lengths = len(row_ids), len(col_ids), *map(len, values.values())
    if len(set(lengths)) > 1:
        raise ShapeError(
            f"row_ids, col_ids and values have lengths {lengths}, but each prediction has one of each.",
            argument="row_ids, col_ids, values",
            value=lengths,
        )

    class Line:
        def write(self, line: str) -> str:
            return line  # which writerow hands on

    writer: Any = csv.writer(Line(), lineterminator="\n")
    rows = zip(row_ids, col_ids, *map(_as_text, values.values()), strict=True)
    return map(writer.writerow, itertools.chain([("row", "column", *values)], rows))


def _as_text(values: np.ndarray) -> Iterator[str]:
    number: Callable[[Any], str] = "{:.9g}".format if values.dtype == np.float32 else repr
    return ("" if value != value else number(value) for value in values.tolist())


def _reader(path: Path) -> Callable[[Path], Found] | None:
    """What reads files of this suffix; None: delimited text."""
    return {".npy": load_npy, ".npz": load_npz, ".mtx": load_mtx, ".parquet": load_parquet}.get(path.suffix.lower())


def _load(path: str | os.PathLike, layout: str) -> Found:
    with readable(path) as file:
        reader = _reader(file)
        if reader is None:
            return load_text(file, layout)
        if layout != "auto":
            raise FileError(
                f"cannot read {path} as {layout}: only delimited text comes in two layouts, and {file.suffix} files say "
                "themselves what they hold. Leave the layout out."
            )
        return reader(file)


def _repeated(entries: SampledEntries) -> int:
    rows, cols = entries.rows, entries.cols
    return int(np.count_nonzero((rows[1:] == rows[:-1]) & (cols[1:] == cols[:-1])))
