"""Counting sorts of positions: linear in their number, and stable.

A stable sort by column followed by a stable sort by row is a sort by row, then by column. What is moved is moved once in
each: positions and values themselves, no permutation that would have to be applied afterwards.
"""

from __future__ import annotations

import numpy as np

from dmf.kernels.jit import jit


@jit()
def starts_of(keys, count):
    """Where each key from 0 to `count` - 1 begins in sorted order, and the end of the last, shape (count + 1,)."""
    starts = np.zeros(count + 1, np.int64)
    for k in range(keys.shape[0]):
        starts[keys[k] + 1] += 1
    for key in range(count):
        starts[key + 1] += starts[key]
    return starts


@jit()
def is_sorted(rows, cols):
    """Whether positions are in the order of their rows, then of their columns."""
    ascending = True
    for k in range(1, rows.shape[0]):
        ascending &= rows[k] > rows[k - 1] or (rows[k] == rows[k - 1] and cols[k] >= cols[k - 1])
    return ascending


@jit()
def sort_positions(rows, cols, values, row_starts, col_starts):
    """Positions and their values by row, then by column, then in the order given."""
    count = rows.shape[0]
    by_column, values_by_column = np.empty_like(rows), np.empty_like(values)
    following = col_starts.copy()
    for k in range(count):
        place = following[cols[k]]
        following[cols[k]] = place + 1
        by_column[place] = rows[k]
        values_by_column[place] = values[k]
    sorted_cols, sorted_values = np.empty_like(cols), np.empty_like(values)
    following = row_starts.copy()
    for j in range(col_starts.shape[0] - 1):
        for k in range(col_starts[j], col_starts[j + 1]):
            place = following[by_column[k]]
            following[by_column[k]] = place + 1
            sorted_cols[place] = j
            sorted_values[place] = values_by_column[k]
    for i in range(row_starts.shape[0] - 1):
        for k in range(row_starts[i], row_starts[i + 1]):
            by_column[k] = i
    return by_column, sorted_cols, sorted_values


@jit()
def order_columns(row_starts, cols, col_starts, places):
    """Place of each sorted position in the order of columns (written to `places`), and the rows in that order."""
    rows_by_column = np.empty_like(cols)
    following = col_starts.copy()
    for i in range(row_starts.shape[0] - 1):
        for k in range(row_starts[i], row_starts[i + 1]):
            place = following[cols[k]]
            following[cols[k]] = place + 1
            places[k] = place
            rows_by_column[place] = i
    return rows_by_column


@jit()
def scatter(values, places):
    """Array whose entry ``places[k]`` is ``values[k]``, for a permutation `places`."""
    result = np.empty(values.shape[0], values.dtype)
    for k in range(values.shape[0]):
        result[places[k]] = values[k]
    return result
