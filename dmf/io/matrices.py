"""Matrices and their entries in files: npy, npz, Matrix Market, Parquet and delimited text, all read with suspicion."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dmf.errors import FileError
from dmf.io.arrays import open_npz
from dmf.io.formats import load_npy, load_npz, members_text
from dmf.io.lines import load_text
from dmf.io.matrix_market import load_mtx
from dmf.io.messages import ignored, times
from dmf.io.parquet import load_parquet
from dmf.io.reading import Entries, Matrix, readable, real

_READERS: dict[str, Callable[[Path], Entries | Matrix]]
_READERS = {".npy": load_npy, ".npz": load_npz, ".mtx": load_mtx, ".parquet": load_parquet}


def read_entries(path: str | os.PathLike, layout: str = "auto") -> Entries:
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
    Entries

    Raises
    ------
    FileError
        If the file cannot be read, or holds something else, a value that is no finite number, or no entry; if a layout is
        given and the file is not delimited text.
    MissingPackageError
        If Parquet is asked for and pyarrow is not installed.
    """
    found = _load(path, layout)
    return found.entries() if isinstance(found, Matrix) else found


def read_matrix(path: str | os.PathLike, layout: str = "auto") -> Matrix:
    """Read a matrix that is known at every entry.

    Parameters
    ----------
    path : path
        As for `read_entries`; files of entries must cover every position once.
    layout : {"auto", "entries", "table"}
        As for `read_entries`.

    Returns
    -------
    Matrix

    Raises
    ------
    FileError
        As `read_entries`, and if entries are missing or given twice.
    """
    found = _load(path, layout)
    matrix = found.matrix if isinstance(found, Matrix) else _filled(path, found)
    if missing := int(np.count_nonzero(np.isnan(matrix))):
        raise _incomplete(path, missing, matrix.shape, "they are NaN or empty")
    return Matrix(matrix, found.row_ids, found.col_ids, found.notes, found.table)


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
    return Path(path).suffix.lower() not in _READERS


def _load(path: str | os.PathLike, layout: str) -> Entries | Matrix:
    with readable(path) as file:
        if is_delimited(file):
            return load_text(file, layout)
        if layout != "auto":
            raise FileError(
                f"cannot read {path} as {layout}: only delimited text comes in two layouts, and {file.suffix} files say "
                "themselves what they hold. Leave the layout out."
            )
        return _READERS[file.suffix.lower()](file)
