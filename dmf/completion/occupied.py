"""The rows and columns of which any entry is seen: what a fit is made to, since others only dilute its estimates.

Sizes of components are means over rows and columns, and degrees of freedom are counted by them: those without entries would
make every component look small, and a matrix less determined than it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dmf.arrays.backend import to_host
from dmf.models import LowRank
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

    def widened(self, model: LowRank) -> LowRank:
        """`model` of the part as one of the whole matrix, whose other rows and columns are zero."""
        return model.placed(self.rows, self.cols, self.shape)


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
