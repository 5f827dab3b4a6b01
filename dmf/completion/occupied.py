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


def apart(observations: Entries) -> tuple[int, int]:
    """Numbers of rows and of columns with entries that do not hang together with the largest block of them.

    Blocks that share neither a row nor a column can be scaled against each other: what lies between them is not determined.
    """
    components = [to_host(part) for part in observations.connectivity()]
    sizes = [np.bincount(part, minlength=1 + max(int(c.max()) for c in components)) for part in components]
    blocks = np.minimum(*sizes) > 0  # a row or column without entries is no block
    others = blocks & (np.arange(blocks.size) != np.argmax(np.where(blocks, sizes[0] + sizes[1], -1)))
    return int(np.sum(sizes[0][others])), int(np.sum(sizes[1][others]))
