"""Matrix Market files.

Not read by `scipy.io.mmread`: that ends the process with a segmentation fault on files cut off within a number (seen with
SciPy 1.17.1; scipy issue 19949 is of the same kind).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dmf.errors import FileError
from dmf.io.messages import shown
from dmf.io.reading import Entries, Matrix, check_extent, check_positions, checked

_SIGNS = {"general": 0, "symmetric": 1, "skew-symmetric": -1}  # of the mirrored entries


def load_mtx(path: Path) -> Entries | Matrix:
    """Read a Matrix Market file; its numbers from 1 become the ids.

    Raises
    ------
    FileError
        If it is none, is complex or a pattern, or holds something else than it declares.
    """
    # Comments may be in any encoding, the numbers are ASCII.
    with path.open(encoding="latin-1") as file:
        layout, field, symmetry = _banner(file.readline(200), path)
        lines = (line for line in file if line.strip() and not line.startswith("%"))
        d1, d2, count = _size(next(lines, ""), layout, path)
        sign = _SIGNS[symmetry]
        if sign and d1 != d2:
            raise FileError(f"cannot read {path}: it is declared {symmetry}, but {d1} x {d2}. Write it as general.")
        if layout == "array":
            count = d1 * d2 if not sign else d1 * (d1 + sign) // 2
        else:
            check_extent(path, (d1, d2), count)
        # Before anything is allocated: an entry takes at least 2 bytes ("0\n"), with its position 6 ("1 1 0\n").
        least, size = (2 if layout == "array" else 6) * count, path.stat().st_size
        if least > size:
            raise FileError(
                f"cannot read {path}: {count} entries of a {d1} x {d2} matrix are declared, which take at least {least} "
                f"bytes, but the file has {size}. It was cut off; write it again."
            )
        table = _table(lines, count, 1 if layout == "array" else 3, path)
    row_ids, col_ids = (tuple(map(str, range(1, n + 1))) for n in (d1, d2))
    notes = (f"Matrix Market, {layout} {field} {symmetry}, {d1} x {d2}; ids are numbers from 1",)
    if layout == "array":
        return Matrix(checked(_dense(table[:, 0], d1, d2, sign), path), row_ids, col_ids, notes)
    rows, cols, values = _positions(table, d1, d2, sign, path)
    check_positions(path, rows, cols, values, (d1, d2))
    return Entries(rows, cols, values, (d1, d2), row_ids, col_ids, notes)


def _banner(line: str, path: Path) -> tuple[str, str, str]:
    words = line.lower().split()
    if len(words) != 5 or words[:2] != ["%%matrixmarket", "matrix"] or words[2] not in ("coordinate", "array"):
        raise FileError(
            f"cannot read {path}, line 1: {shown(line.strip())}, but a Matrix Market file starts with "
            "'%%MatrixMarket matrix coordinate real general' or the like."
        )
    if words[3] not in ("real", "double", "integer", "unsigned-integer") or words[4] not in _SIGNS:
        raise FileError(
            f"cannot read {path}: its entries are {words[3]} {words[4]}, but dmf reads real or integer matrices that are "
            f"{', '.join(_SIGNS)}. Write the numbers as real."
        )
    return words[2], words[3], words[4]


def _size(line: str, layout: str, path: Path) -> tuple[int, int, int]:
    words = line.split()
    fine = all(word.isdecimal() and len(word) < 19 and int(word) > 0 for word in words)
    if len(words) != (3 if layout == "coordinate" else 2) or not fine:
        needed = "rows, columns and number of entries" if layout == "coordinate" else "rows and columns"
        raise FileError(
            f"cannot read {path}: the size line is {shown(line.strip())}, but it gives {needed}, each at least 1."
        )
    return int(words[0]), int(words[1]), int(words[-1])


def _table(lines: Iterator[str], count: int, columns: int, path: Path) -> np.ndarray:
    first = next(lines, None)  # NumPy warns where there is nothing to read
    try:
        table = (
            np.zeros((0, columns))
            if first is None
            else np.loadtxt(itertools.chain([first], lines), comments=None, ndmin=2)
        )
    except ValueError as error:
        raise FileError(f"cannot read {path}: {error} (rows count from the first entry).") from error
    if table.shape != (count, columns):
        raise FileError(
            f"cannot read {path}: {count} entries in lines of {columns} numbers are declared, but there are "
            f"{table.shape[0]} lines of {table.shape[1]}. Write it again."
        )
    return table


def _dense(values: np.ndarray, d1: int, d2: int, sign: int) -> np.ndarray:
    if not sign:
        return values.reshape((d1, d2), order="F")
    matrix = np.zeros((d1, d2))
    cols, rows = np.triu_indices(d1, 0 if sign > 0 else 1)  # of the transpose: the lower triangle, column by column
    matrix[cols, rows] = sign * values
    matrix[rows, cols] = values
    return matrix


def _positions(table: np.ndarray, d1: int, d2: int, sign: int, path: Path) -> tuple[np.ndarray, ...]:
    rows, cols, values = table.T
    with np.errstate(invalid="ignore"):  # of infinities, which are refused
        wrong = ~((rows >= 1) & (rows <= d1) & (cols >= 1) & (cols <= d2) & (rows % 1 == 0) & (cols % 1 == 0))
    if wrong.any():
        k = int(np.argmax(wrong))
        raise FileError(
            f"cannot read {path}: entry {k + 1} is at ({rows[k]:g}, {cols[k]:g}), but positions in this matrix are whole "
            f"numbers from 1 to {d1} and 1 to {d2}."
        )
    rows, cols = rows.astype(np.int64) - 1, cols.astype(np.int64) - 1
    if sign:
        off = rows != cols
        rows, cols = np.concatenate([rows, cols[off]]), np.concatenate([cols, rows[off]])
        values = np.concatenate([values, sign * values[off]])
    import scipy.sparse  # here: the import takes a tenth of a second

    coo = scipy.sparse.coo_array((values, (rows, cols)), (d1, d2))
    coo.sum_duplicates()  # the sum of what is written for a position is the entry there
    return *coo.coords, coo.data
