"""Orders of positions: by row, then by column; and the same positions by column, then by row.

NumPy and SciPy do what is done once for some thousand entries. Of many entries the first sort is a pair of counting sorts,
which move positions and values themselves: three to four times as fast as to sort a permutation and to apply it.
"""

from __future__ import annotations

import numpy as np

from dmf.kernels.jit import jit

_FEW = 200_000  # positions, below which a sort by NumPy takes some ten milliseconds


@jit()
def move(keys, following, index, values, moved_index, moved_values):
    """One pass of a stable counting sort; `following`: where the next entry of each key goes."""
    for k in range(keys.shape[0]):
        place = following[keys[k]]
        following[keys[k]] = place + 1
        moved_index[place] = index[k]
        moved_values[place] = values[k]


def starts_of(keys: np.ndarray, count: int) -> np.ndarray:
    """Where each of `count` keys begins in a sorted array, and the end of the last; int64, shape (count + 1,)."""
    return np.searchsorted(keys, np.arange(count + 1, dtype=keys.dtype)).astype(np.int64)


def is_sorted(rows: np.ndarray, cols: np.ndarray) -> bool:
    """Whether positions are in the order of their rows, then of their columns."""
    before, after = rows[:-1], rows[1:]
    return bool(np.all((after > before) | ((after == before) & (cols[1:] >= cols[:-1]))))


def sort_positions(rows: np.ndarray, cols: np.ndarray, values: np.ndarray, shape: tuple[int, int]):
    """Positions and their values by row, then by column, then in the order given."""
    if rows.shape[0] < _FEW:
        order = np.lexsort((cols, rows))
        return rows[order], cols[order], values[order]
    for _ in range(
        2
    ):  # by column, then by row: each time the key goes to the back, and what it was is known by its counts
        count = shape[1]
        starts = np.concatenate([[0], np.cumsum(np.bincount(cols, minlength=count))])
        moved, moved_values = np.empty_like(rows), np.empty_like(values)
        move(cols, starts[:-1].copy(), rows, values, moved, moved_values)
        in_order = np.repeat(np.arange(count, dtype=cols.dtype), np.diff(starts))
        rows, cols, values, shape = in_order, moved, moved_values, shape[::-1]
    return rows, cols, values


def by_column(starts: np.ndarray, cols: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order of columns, for positions in the order of rows, which begin at `starts`.

    Returns the number of each position in the order of rows, its row, and where each of `count` columns begins.
    """
    from scipy.sparse import csr_array

    dtype = np.int32 if cols.shape[0] < 2**31 else np.int64
    numbers = np.arange(cols.shape[0], dtype=dtype)
    sorted_by_row = csr_array((numbers, cols, starts.astype(dtype)), shape=(starts.shape[0] - 1, count))
    found = sorted_by_row.tocsc()
    return found.data, found.indices, found.indptr.astype(np.int64)
