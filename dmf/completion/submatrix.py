"""Some rows and columns of a matrix as a problem of their own: those that are seen at all, and those that are seen most.

A fit is made to the rows and columns that have entries: sizes of components are means over rows and columns, and degrees of
freedom are counted by them, so that the others would make every component look small, and a matrix less determined than it is.

Of ratings, few rows and columns hold most: a twentieth of both may hold a fifth of the entries, more for each unknown than all
of them do. The solution of this dense core is a good start for all of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dmf.arrays.backend import from_host, host_dtype, to_host
from dmf.models import LowRank
from dmf.observations import Entries

LARGE_TABLE = 1_000_000  # entries; all of fewer are fitted in a second or two
CORE_SHARE = 0.2  # of the entries, at most: a fit to the core costs as much less
SHRINKAGE, LEVELS = 0.8, 30  # shares of rows and columns that are tried: powers of the first


@dataclass(frozen=True)
class Submatrix:
    """Entries in some of the rows and columns, as a matrix of their own.

    Parameters
    ----------
    observations : Entries
    rows, cols : int64 arrays
        Their places in the whole matrix, ascending.
    shape : (int, int)
        Of the whole matrix.
    mean : float, optional
        Of all entries, which the offsets of the whole matrix refer to; that of the submatrix's model unless given.
    """

    observations: Entries
    rows: np.ndarray
    cols: np.ndarray
    shape: tuple[int, int]
    mean: float | None = None

    def widened(self, model: LowRank) -> LowRank:
        """`model` of the submatrix as one of the whole matrix, whose other rows and columns have neither factors nor offsets."""
        offsets = model.offsets
        if offsets is not None and self.mean is not None:
            offsets = replace(offsets, mean=self.mean, row=offsets.row + (offsets.mean - self.mean))
        return replace(model, offsets=offsets).placed(self.rows, self.cols, self.shape)

    def outside(
        self, rows: Sequence[int] | np.ndarray, cols: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows and columns of the whole matrix that are no part of the submatrix, or are among these of it."""
        known = np.delete(self.rows, np.asarray(rows, np.int64)), np.delete(self.cols, np.asarray(cols, np.int64))
        return np.delete(np.arange(self.shape[0]), known[0]), np.delete(np.arange(self.shape[1]), known[1])


def occupied_part(observations: Entries) -> Submatrix | None:
    """The part of a matrix whose rows and columns have entries; None if that is all of it."""
    rows, cols = (np.flatnonzero(to_host(observations.counts(side))) for side in (0, 1))
    if (rows.size, cols.size) == observations.shape:
        return None
    return Submatrix(observations.restricted(rows, cols), rows, cols, observations.shape)


def dense_core(observations: Entries) -> Submatrix | None:
    """Entries of the fullest rows and columns, if they say more about each unknown than all entries do.

    Parameters
    ----------
    observations : Entries

    Returns
    -------
    Submatrix or None
        At most a fifth of the entries, with at least as many for each row and column as on the whole. None if there is no such
        core, as when positions are uniformly random, or if the entries are so few that it would save no time.
    """
    m, shape = observations.n_measurements, observations.shape
    if m < LARGE_TABLE:
        return None
    levels = [_levels(to_host(observations.counts(side))) for side in (0, 1)]
    # Which rows, and columns, are in the core of a level.
    inside = [own[:, None] >= np.arange(LEVELS + 1) for own in levels]
    dtype = host_dtype(observations.like)
    met = to_host(observations.pattern_product(0, from_host(inside[1].astype(dtype), observations.like)))
    held = np.sum(met, axis=0, where=inside[0], dtype=np.float64)
    sizes = sum(np.sum(part, axis=0) for part in inside)
    good = np.flatnonzero((held <= CORE_SHARE * m) & (held * sum(shape) >= m * sizes) & (held > 0))
    if good.size == 0:
        return None
    rows, cols = (np.flatnonzero(part[:, good[0]]) for part in inside)
    return Submatrix(observations.restricted(rows, cols), rows, cols, shape, observations.centred()[0])


def _levels(counts: np.ndarray) -> np.ndarray:
    """For each row or column the last of the shrinking shares, fullest first, that it belongs to."""
    size = counts.size
    order = np.argsort(-counts, kind="stable")
    levels = np.empty(size, np.int8)
    shares = np.arange(1, size + 1) / size
    levels[order] = np.minimum(np.log(shares) / math.log(SHRINKAGE) + 1e-9, LEVELS).astype(np.int8)
    return levels
