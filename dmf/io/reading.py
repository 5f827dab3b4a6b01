"""What files hold, as plain values, and what all readers of files share."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dmf.errors import FileError
from dmf.io.messages import ignored, times
from dmf.io.words import Words


@dataclass(frozen=True)
class Entries:
    """Observed entries of a matrix.

    Attributes
    ----------
    rows, cols : integer arrays, shape (m,)
        Positions, from 0.
    values : float32 or float64 array, shape (m,)
        Finite.
    shape : (int, int)
        (d1, d2) of the matrix.
    row_ids, col_ids : tuple of str, or None
        Id of each row and each column; None where there are none, so that positions from 0 take their place.
    notes : tuple of str
        What was found and assumed while reading, one sentence each.
    text : dmf.io.filling.Text, dmf.io.arrow.KeptColumns or None
        The text or columns that the entries come from, if they were to be kept; `write_filled` writes them with their missing
        entries filled.
    times : float64 array, shape (m,), or None
        When each entry was observed, if a column of times was named.
    hole_times : float64 array or None
        The same of lines without a value, in the order of the holes of `text`.
    """

    rows: np.ndarray
    cols: np.ndarray
    values: np.ndarray
    shape: tuple[int, int]
    row_ids: tuple[str, ...] | None = None
    col_ids: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    text: Any = None
    times: np.ndarray | None = None
    hole_times: np.ndarray | None = None


@dataclass(frozen=True)
class Matrix:
    """A matrix, NaN where an entry is missing.

    Attributes
    ----------
    matrix : float32 or float64 array, shape (d1, d2)
        Without infinities.
    row_ids, col_ids, notes, text
        As of `Entries`.
    words : tuple of Words
        Columns of text with few different cells that stand beside, in the order of the file.
    """

    matrix: np.ndarray
    row_ids: tuple[str, ...] | None = None
    col_ids: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    text: Any = None
    words: tuple[Words, ...] = ()

    def entries(self) -> Entries:
        """The entries that are not missing, without columns of text."""
        rows, cols = np.nonzero(~np.isnan(self.matrix))
        values, (d1, d2) = self.matrix[rows, cols], self.matrix.shape
        return Entries(rows, cols, values, (d1, d2), self.row_ids, self.col_ids, self.notes_with(()), self.text)

    def notes_with(self, words: Sequence[Words]) -> tuple[str, ...]:
        """The notes, and which columns of text are ignored: all but `words`."""
        return (*self.notes, *ignored("columns of text", [w.name for w in self.words if w not in words]))


@contextlib.contextmanager
def readable(path: str | os.PathLike, folder: bool = False) -> Iterator[Path]:
    """The path, with the errors of the operating system as FileError; `folder`: one of Parquet files will do."""
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode) and not (folder and any(path.rglob("*.parquet"))):
            raise FileError(f"cannot read {path}: it is a folder{' without Parquet files' * folder}. Name a file.")
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            raise FileError(f"cannot read {path}: it is empty (0 bytes). Name a file with something in it.")
    except ValueError as error:  # a NUL byte
        raise FileError(f"cannot read {str(path)!r}: {error}.") from error
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}. Name a file that exists.") from error
    try:
        yield path
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}. Name a file that can be read.") from error


def check_extent(where: object, shape: Sequence[int], count: int) -> None:
    """Raise if a shape is far beyond what `count` entries can tell about; its rows alone would fill the memory."""
    most = 1_000_000 + 100 * count
    if max(shape, default=0) > most:
        raise FileError(
            f"cannot read {where}: a matrix {times(shape)} with {count} entries, so that almost all rows or columns are empty "
            f"(at most {most} are read). Number rows and columns without gaps, or write text, where ids may be anything."
        )


def real(values: np.ndarray, where: object) -> np.ndarray:
    """Numbers of any kind as float32 or float64."""
    if values.dtype.kind not in "fiub":
        raise FileError(f"cannot read {where}: its dtype is {values.dtype}, but real numbers are needed. Convert it.")
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return values.astype(np.float32 if values.dtype == np.float32 else np.float64, copy=False)


def check_positions(
    where: object, rows: np.ndarray, cols: np.ndarray, values: np.ndarray, shape: Sequence[int]
) -> None:
    """Raise unless these are finite values at positions in a matrix of this shape."""
    if not (rows.ndim == cols.ndim == values.ndim == 1 and rows.size == cols.size == values.size):
        raise FileError(
            f"cannot read {where}: rows, columns and values have the shapes {rows.shape}, {cols.shape} and {values.shape}, but "
            "they are three vectors of one length. Write one row, column and value for each entry."
        )
    if not values.size:
        raise FileError(f"cannot read {where}: it holds no entry, but at least 1 is needed.")
    if len(shape) != 2 or any(not isinstance(n, int) or n < 1 for n in shape):
        raise FileError(f"cannot read {where}: its shape is {tuple(shape)}, but a matrix has 2 whole numbers from 1.")
    check_extent(where, shape, values.size)
    for name, index, size in (("row", rows, shape[0]), ("column", cols, shape[1])):
        if index.dtype.kind not in "iu":
            raise FileError(
                f"cannot read {where}: {name}s have dtype {index.dtype}, but positions are integers from 0."
            )
        if not 0 <= int(index.min()) <= int(index.max()) < size:
            raise FileError(
                f"cannot read {where}: {name}s go from {index.min()} to {index.max()}, but there are {size}, from 0 to "
                f"{size - 1}."
            )
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        k = int(bad[0])
        raise FileError(
            f"cannot read {where}: the entry at row {rows[k]}, column {cols[k]} (from 0) is {values[k]}, but entries are finite. "
            "Leave it out if it is missing."
        )


def checked(matrix: np.ndarray, where: object) -> np.ndarray:
    """The matrix in float32 or float64; raises if it has other than two dimensions, or infinite or no known entries."""
    if matrix.ndim != 2:
        raise FileError(f"cannot read {where}: an array of shape {matrix.shape}, but a matrix has 2 dimensions.")
    matrix = real(matrix, where)
    infinite = np.argwhere(np.isinf(matrix))
    if len(infinite):
        i, j = infinite[0].tolist()
        raise FileError(
            f"cannot read {where}: {len(infinite)} entries are infinite, the first at row {i}, column {j} (from 0), but entries "
            "are finite. Write NaN where one is missing."
        )
    if np.isnan(matrix).all():
        raise FileError(f"cannot read {where}: all entries are NaN, which marks them as missing. At least 1 is needed.")
    return matrix
