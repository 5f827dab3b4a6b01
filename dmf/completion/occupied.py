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
from dmf.observations import Entries


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

    observations: Entries
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


def occupied_part(observations: Entries) -> OccupiedPart | None:
    """The part of a matrix whose rows and columns have entries; None if that is all of it."""
    rows, cols = (np.flatnonzero(to_host(observations.counts(side))) for side in (0, 1))
    if (rows.size, cols.size) == observations.shape:
        return None
    return OccupiedPart(observations.restricted(rows, cols), rows, cols, observations.shape)


def short_of(observations: Entries, rank: int) -> tuple[int, int]:
    """Numbers of rows and of columns with fewer different entries than `rank`, which do not determine their factors."""
    rows, cols = (to_host(observations.counts(side, distinct=True)) for side in (0, 1))
    return int(np.sum(rows < rank)), int(np.sum(cols < rank))


def _spread(array: Array, index: np.ndarray, size: int, axis: int = 0) -> Array:
    """Array of `size` along an axis that has the given one at `index` and zeros elsewhere."""
    known = np.moveaxis(to_host(array), axis, 0)
    whole = np.zeros((size, *known.shape[1:]), known.dtype)
    whole[index] = known
    return from_host(np.ascontiguousarray(np.moveaxis(whole, 0, axis)), array)
