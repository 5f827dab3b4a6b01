"""Matrices and their entries in files of all forms, all read with suspicion."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from dmf.errors import FileError
from dmf.io.arrays import open_npz
from dmf.io.arrow import load_parquet
from dmf.io.cells import Cells, Stated
from dmf.io.databases import load_duckdb, load_sqlite
from dmf.io.delimited import DelimitedText, open_delimited
from dmf.io.excel import WORKBOOKS, open_sheet
from dmf.io.formats import load_npy, load_npz, members_text
from dmf.io.lines import TRIPLET, read_lines
from dmf.io.matrix_market import load_mtx
from dmf.io.messages import Progress, ignored, silent, times
from dmf.io.reading import Entries, Matrix, readable, real
from dmf.io.tables import is_table, read_table

_READERS: dict[str, Callable[[Path], Entries | Matrix]]
_READERS = {".npy": load_npy, ".npz": load_npz, ".mtx": load_mtx}
_COLUMNS: dict[str, Callable[[Path, Stated, bool, Progress], Entries | Matrix]] = {
    ".parquet": load_parquet,
    ".duckdb": load_duckdb,
    ".sqlite": load_sqlite,
    ".sqlite3": load_sqlite,
    ".db": load_sqlite,
}


def read_entries(
    path: str | os.PathLike,
    layout: str = "auto",
    *,
    keep_text: bool = False,
    progress: Progress = silent,
    **stated: Any,
) -> Entries:
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
        - ``.parquet``, or a folder of such files: see below.
        - ``.duckdb``; ``.sqlite``, ``.sqlite3``, ``.db``: what `query` gives, or the only table.
        - ``.xlsx``: a sheet, the first unless `sheet` names another.
        - anything else: delimited text, perhaps compressed by gzip or zstd, see `dmf.io.delimited.open_delimited`.

        The last four hold either a row id, a column id and a value in each line, see `dmf.io.lines.read_lines`, or a table with
        missing cells, see `dmf.io.tables.read_table`.
    layout : {"auto", "entries", "table", "matrix"}
        Which of these two; "auto": decided by the first lines, see `dmf.io.tables.is_table`.
    keep_text : bool
        Keep the text or the columns of the file with the entries, to write them with their missing entries filled.
    progress : callable
        ``progress(lines, share)`` is called while text, Parquet or a database is read: the lines read so far, and the share of
        the file that they are, 0 where that is not known. What it raises ends the reading.
    **stated
        What the file does not say itself: `columns`, `value`, `time`, `index_column`, `header`, `missing`, `decimal`,
        `thousands`, `skip`, `sheet` and `query`, as in `dmf.io.cells.Stated`. What is left open is inferred, and told in the
        notes.

    Returns
    -------
    Entries

    Raises
    ------
    ArgumentError
        If what is stated contradicts itself.
    FileError
        If the file cannot be read, or holds something else, a value that is no finite number, or no entry; if roles of columns
        cannot be guessed without risk; if something is stated that this kind of file does not need.
    MissingPackageError
        If the file needs a package that is not installed: pyarrow, openpyxl or duckdb.
    """
    found = read(path, layout, keep_text=keep_text, progress=progress, **stated)
    return found.entries() if isinstance(found, Matrix) else found


def read(
    path: str | os.PathLike,
    layout: str = "auto",
    *,
    keep_text: bool = False,
    progress: Progress = silent,
    **stated: Any,
) -> Entries | Matrix:
    """What `read_entries` reads, as a matrix where the file holds one."""
    return _load(path, Stated(layout, **stated), keep_text, progress)


def read_matrix(path: str | os.PathLike, layout: str = "auto", *, progress: Progress = silent, **stated: Any) -> Matrix:
    """Read a matrix that is known at every entry.

    Parameters
    ----------
    path : path
        As for `read_entries`; files of entries must cover every position once.
    layout, progress, **stated
        As for `read_entries`.

    Returns
    -------
    Matrix

    Raises
    ------
    FileError
        As `read_entries`, and if entries are missing or given twice.
    """
    found = _load(path, Stated(layout, **stated), progress=progress)
    matrix = found.matrix if isinstance(found, Matrix) else _filled(path, found)
    if missing := int(np.count_nonzero(np.isnan(matrix))):
        raise _incomplete(path, missing, matrix.shape, "they are NaN or empty")
    notes = found.notes_with(()) if isinstance(found, Matrix) else found.notes
    return Matrix(matrix, found.row_ids, found.col_ids, notes, found.text)


def _filled(path: str | os.PathLike, found: Entries) -> np.ndarray:
    """The matrix of entries that cover each position once."""
    (d1, d2), count = found.shape, found.values.size
    if count < d1 * d2:  # before anything of that size is made
        position = found.rows.astype(np.int64) * d2 + found.cols
        given = np.unique(position).size
        raise _incomplete(path, d1 * d2 - given, found.shape, f"only {given} positions are given")
    times_given = np.zeros((d1, d2), np.int64)
    np.add.at(times_given, (found.rows, found.cols), 1)
    if missing := int(np.count_nonzero(times_given == 0)):
        raise _incomplete(path, missing, found.shape, f"only {d1 * d2 - missing} positions are given")
    if count > d1 * d2:
        raise FileError(
            f"cannot read {path} as a complete matrix: {count - d1 * d2} entries repeat a position, but each entry has one "
            "value. Remove the repetitions, or use `dmf complete`, which averages them."
        )
    matrix = np.empty((d1, d2), found.values.dtype)
    matrix[found.rows, found.cols] = found.values
    return matrix


def _incomplete(path: str | os.PathLike, missing: int, shape: tuple[int, ...], reason: str) -> FileError:
    d1, d2 = shape
    return FileError(
        f"cannot read {path} as a complete matrix: {missing} of {d1 * d2} entries ({d1} x {d2}) are missing ({reason}). "
        "Use `dmf complete` to recover them, or write zeros where entries left out are meant to be zero."
    )


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
    with readable(path) as file, open_npz(file) as archive:
        if not {"A", "y"} <= set(archive.names):
            raise FileError(
                f"cannot read {path}: it holds {members_text(archive.names)}, but measurements are the members 'A' (m, d1, d2) "
                "and 'y' (m,). Write them with numpy.savez(path, A=A, y=y)."
            )
        A, y = (real(archive.read(name), f"{path}, member {name!r}") for name in ("A", "y"))
        left_out = ignored("members", [name for name in archive.names if name not in ("A", "y")])
    return A, y, (f"A: {A.dtype} array {times(A.shape)}; y: {y.dtype} array {times(y.shape)}", *left_out)


def is_delimited(path: str | os.PathLike) -> bool:
    """Whether a file of this name is read as delimited text."""
    path = Path(path)
    return path.suffix.lower() not in (*_READERS, *_COLUMNS, *WORKBOOKS) and not path.is_dir()


def _load(
    path: str | os.PathLike, stated: Stated, keep_text: bool = False, progress: Progress = silent
) -> Entries | Matrix:
    with readable(path, folder=True) as file:
        suffix = ".parquet" if file.is_dir() else file.suffix.lower()
        _check_stated(file, suffix, stated)
        if suffix in _COLUMNS:
            return _COLUMNS[suffix](file, stated, keep_text, progress)
        return _READERS[suffix](file) if suffix in _READERS else _load_text(file, stated, keep_text, progress)


def _check_stated(path: Path, suffix: str, stated: Stated) -> None:
    """Raise if something is stated that a file of this suffix does not need."""
    allowed: tuple[str, ...] = ()
    if suffix in _COLUMNS:
        allowed = (
            "layout",
            "columns",
            "texts",
            "value",
            "time",
            "index_column",
            "missing",
            *["query"] * (suffix != ".parquet"),
        )
    elif suffix not in _READERS:
        allowed = tuple(field.name for field in fields(Stated) if field.name != "query")
        allowed = tuple(name for name in allowed if name != "sheet" or suffix in WORKBOOKS)
    for field in fields(Stated):
        if field.name not in allowed and getattr(stated, field.name) != field.default:
            raise FileError(
                f"cannot read {path} with {field.name}={getattr(stated, field.name)!r}: such a file does not need it, and says "
                "itself what it holds. Leave it out."
            )


def _load_text(path: Path, stated: Stated, keep_text: bool, progress: Progress) -> Entries | Matrix:
    how = Cells(stated)
    needed = ("first column", "second column") if stated.is_table else TRIPLET

    def plausible(record: list[str]) -> bool:
        return any(how.is_missing(field) or how.is_meant(field) for field in record[len(needed) - 1 :])

    workbook = path.suffix.lower() in WORKBOOKS
    opened: AbstractContextManager[DelimitedText]
    opened = (
        nullcontext(open_sheet(path, needed, plausible, stated))
        if workbook
        else open_delimited(path, needed, plausible, stated.skip)
    )
    with opened as text:
        text.progress = progress
        if stated.is_table or (not stated.is_entries and is_table(text, stated, how)):
            return read_table(text, stated, keep_text)
        return read_lines(text, stated, keep_text)
