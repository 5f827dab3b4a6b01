"""Positions of entries: checked, numbered anew, and what hangs together through them."""

from __future__ import annotations

import numpy as np

from dmf.arrays.backend import Array, from_host, is_numpy, namespace, number
from dmf.arrays.checks import random_generator
from dmf.errors import DTypeError, ObservationError

_AT_ONCE = 2**20  # entries, whose indices NumPy converts to machine words


def checked_index(index: Array, argument: str, size: int) -> Array:
    """`index` as 32-bit integers.

    Raises
    ------
    DTypeError, ObservationError
        If it holds anything but integers from 0 to `size` - 1.
    """
    xp = namespace(index)
    if not xp.isdtype(index.dtype, "integral"):
        raise DTypeError(
            f"{argument} has dtype {index.dtype}, but positions are integers from 0. Convert them with astype(int) if "
            "they are whole numbers.",
            argument=argument,
            value=str(index.dtype),
            limit="integer",
        )
    least, most = number(xp.min(index)), number(xp.max(index))
    if least < 0 or most >= size:
        wrong = least if least < 0 else most
        where = int(xp.argmax(xp.astype((index < 0) | (index >= size), xp.int64)))
        raise ObservationError(
            f"{argument}[{where}] = {int(index[where])} (the range found is {least:.0f} to {most:.0f}), but the matrix has "
            f"{size} {argument}, so indices run from 0 to {size - 1}. "
            "Pass a larger shape, or subtract 1 if your indices start at 1.",
            argument=argument,
            value=int(wrong),
            limit=(0, size - 1),
        )
    if is_numpy(index):
        return np.ascontiguousarray(index, dtype=np.int32)
    return xp.astype(index, xp.int32)


def numbered(places: np.ndarray, size: int) -> np.ndarray:
    """For each of `size` rows or columns its number among those at `places`, -1 if it is none of them."""
    numbers = np.full(size, -1, np.int32)
    numbers[places] = np.arange(places.size)
    return numbers


def looked_up(table: np.ndarray, index: Array) -> Array:
    """``table[index]`` for a table on the host, in the library of `index`."""
    if not is_numpy(index):
        return namespace(index).take(from_host(table, index), index)
    found = np.empty(index.shape, table.dtype)
    for first in range(0, index.shape[0], _AT_ONCE):
        found[first : first + _AT_ONCE] = table[index[first : first + _AT_ONCE]]
    return found


def draws(rows: np.ndarray, cols: np.ndarray, n_columns: int, seed: int) -> np.ndarray:
    """A random number for each position, which depends on the position and the seed alone, whatever else is observed.

    So whoever holds a part of the entries, in any order, makes the same choice of them. Different positions never draw alike.

    Parameters
    ----------
    rows, cols : integer arrays, shape (m,)
    n_columns : int
        Of the matrix.
    seed : int

    Returns
    -------
    uint64 array, shape (m,)

    References
    ----------
    .. [1] Steele, Lea, Flood, OOPSLA 2014: SplitMix64, whose output at this place of its sequence a position gets.
    """
    state = rows.astype(np.uint64)
    state *= np.uint64(n_columns)
    state += cols.astype(np.uint64)
    state *= np.uint64(0x9E3779B97F4A7C15)
    state += random_generator(seed).integers(2**64, dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        state ^= state >> np.uint64(shift)
        state *= np.uint64(factor)
    return state


def components(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Number of the connected component of each row, then of each column, of the graph with an edge for each position.

    Edges are added some at a time to the graph of the components so far, which soon has few nodes left to join.
    """
    import scipy.sparse
    from scipy.sparse.csgraph import connected_components  # slow to import, seldom needed

    d1, d2 = shape
    labels = np.arange(d1 + d2)
    for first in range(0, rows.size, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        one, other = labels[rows[part]], labels[d1 + cols[part]]
        apart = one != other
        if apart.any():
            size = int(labels.max()) + 1
            edges = scipy.sparse.coo_array((apart[apart], (one[apart], other[apart])), shape=(size, size))
            labels = connected_components(edges, directed=False)[1][labels]
    return labels
