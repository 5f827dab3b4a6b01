"""The rows and columns of which any entry is seen: what a fit is made to, since others only dilute its estimates.

Sizes of components are means over rows and columns, and degrees of freedom are counted by them: those without entries would
make every component look small, and a matrix less determined than it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dmf.arrays.backend import Array, from_host, to_host
from dmf.models import DeepLinearNetwork
from dmf.models.offsets import Offsets
from dmf.observations import SampledEntries, WeightedEntries

_AT_ONCE = 2**20  # indices, converted to machine words by NumPy


@dataclass(frozen=True)
class OccupiedPart:
    """Entries of the rows and columns that have any, as a matrix of their own.

    Parameters
    ----------
    observations : SampledEntries
    rows, cols : int64 arrays
        Their places in the whole matrix, ascending.
    shape : (int, int)
        Of the whole matrix.
    """

    observations: SampledEntries
    rows: np.ndarray
    cols: np.ndarray
    shape: tuple[int, int]

    def widened(self, network: DeepLinearNetwork) -> DeepLinearNetwork:
        """`network` of the part as one of the whole matrix, whose other rows and columns are zero."""
        weights = list(network.weights)
        weights[0] = _spread(weights[0], self.cols, self.shape[1], axis=1)
        weights[-1] = _spread(weights[-1], self.rows, self.shape[0], axis=0)
        return DeepLinearNetwork(tuple(weights))

    def widened_offsets(self, offsets: Offsets) -> Offsets:
        """`offsets` of the part as those of the whole matrix; zero in its other rows and columns."""
        row, col = _spread(offsets.row, self.rows, self.shape[0]), _spread(offsets.col, self.cols, self.shape[1])
        return replace(offsets, row=row, col=col)


def occupied_part(observations: SampledEntries) -> OccupiedPart | None:
    """The part of a matrix whose rows and columns have entries; None if that is all of it."""
    d1, d2 = observations.shape
    index_rows, index_cols = to_host(observations.rows), to_host(observations.cols)
    rows, cols = np.flatnonzero(_seen(index_rows, d1)), np.flatnonzero(_seen(index_cols, d2))
    shape = rows.shape[0], cols.shape[0]
    if shape == (d1, d2):
        return None
    values, weights = observations.unweighted.values, observations.weights
    mine = from_host(_numbered(rows, d1)[index_rows], values), from_host(_numbered(cols, d2)[index_cols], values)
    part = SampledEntries(*mine, values, shape) if weights is None else WeightedEntries(*mine, values, shape, weights)
    return OccupiedPart(part, rows, cols, (d1, d2))


def short_of(observations: SampledEntries, rank: int) -> tuple[int, int]:
    """Numbers of rows and of columns with fewer different entries than `rank`, which do not determine their factors."""
    new, (d1, d2) = observations.new_positions(), observations.shape
    rows = np.bincount(to_host(observations.rows)[new], minlength=d1)
    cols = np.bincount(to_host(observations.cols)[new], minlength=d2)
    return int(np.sum(rows < rank)), int(np.sum(cols < rank))


def _seen(index: np.ndarray, size: int) -> np.ndarray:
    seen = np.zeros(size, bool)
    for first in range(0, index.shape[0], _AT_ONCE):
        seen[index[first : first + _AT_ONCE]] = True
    return seen


def _numbered(place: np.ndarray, size: int) -> np.ndarray:
    """For each of `size` rows or columns its number among those at `place`."""
    number = np.zeros(size, np.int64)
    number[place] = np.arange(place.shape[0])
    return number


def _spread(array: Array, index: np.ndarray, size: int, axis: int = 0) -> Array:
    """Array of `size` along an axis that has the given one at `index` and zeros elsewhere."""
    known = np.moveaxis(to_host(array), axis, 0)
    whole = np.zeros((size, *known.shape[1:]), known.dtype)
    whole[index] = known
    return from_host(np.ascontiguousarray(np.moveaxis(whole, 0, axis)), array)
