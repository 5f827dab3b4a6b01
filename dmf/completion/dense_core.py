"""The rows and columns of which most entries are seen: a small problem whose solution is a good start for all of it.

Of ratings, few rows and columns hold most: a twentieth of both may hold a fifth of the entries, more for each unknown than
all of them do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dmf.arrays.backend import from_host, namespace, to_host
from dmf.models import DeepLinearNetwork
from dmf.observations import SampledEntries, WeightedEntries

_LARGE = 1_000_000  # entries; all of fewer are fitted in a second or two
_MOST = 0.2  # share of the entries in a core: a fit to it costs as much less
_SHRINK, _LEVELS = 0.8, 30  # shares of rows and columns that are tried: powers of the first


@dataclass(frozen=True)
class DenseCore:
    """Entries of the fullest rows and columns, as a matrix of their own.

    Parameters
    ----------
    observations : SampledEntries
    rows, cols : int64 arrays
        Their places in the whole matrix, ascending.
    shape : (int, int)
        Of the whole matrix.
    mean : float
        Of all entries.
    """

    observations: SampledEntries
    rows: np.ndarray
    cols: np.ndarray
    shape: tuple[int, int]
    mean: float

    def widened(self, network: DeepLinearNetwork) -> DeepLinearNetwork:
        """`network` of the core as one of the whole matrix, whose other rows and columns have no factors and no offsets.

        As in `dmf.solvers.hierarchical`, the last two components are the offsets of rows (with the mean) and of columns.
        """
        left, right = (to_host(factor) for factor in network.factors())
        factors = []
        for known, index, size, offsets in (
            (left, self.rows, self.shape[0], (self.mean, 1)),
            (right.T, self.cols, self.shape[1], (1, 0)),
        ):
            factor = np.zeros((size, known.shape[1]), known.dtype)
            factor[:, -2:] = offsets
            factor[index] = known
            factors.append(from_host(factor, network.weights[0]))
        return DeepLinearNetwork((namespace(factors[1]).matrix_transpose(factors[1]), factors[0]))


def dense_core(observations: SampledEntries) -> DenseCore | None:
    """Entries of the fullest rows and columns, if they say more about each unknown than all entries do.

    Parameters
    ----------
    observations : SampledEntries

    Returns
    -------
    DenseCore or None
        At most a fifth of the entries, with at least as many for each row and column as on the whole. None if there is no such
        core, as when positions are uniformly random, or if the entries are so few that it would save no time.
    """
    m, shape = observations.n_measurements, observations.shape
    if m < _LARGE:
        return None
    index = [to_host(observations.rows), to_host(observations.cols)]
    levels = [_levels(part, size) for part, size in zip(index, shape, strict=True)]
    level = np.minimum(levels[0][index[0]], levels[1][index[1]])
    held = np.cumsum(np.bincount(level, minlength=_LEVELS + 1)[::-1])[::-1]
    sizes = sum(np.cumsum(np.bincount(part, minlength=_LEVELS + 1)[::-1])[::-1] for part in levels)
    good = np.flatnonzero((held <= _MOST * m) & (held * sum(shape) >= m * sizes) & (held > 0))
    if good.shape[0] == 0:
        return None
    kept = np.flatnonzero(level >= good[0])
    places, numbers = [], []
    for part, own in zip(index, levels, strict=True):
        inside = own >= good[0]
        places.append(np.flatnonzero(inside))
        numbers.append((np.cumsum(inside) - 1)[part[kept]])
    xp, like = namespace(observations.values), observations.values
    rows, cols = (from_host(part, like) for part in numbers)
    kept = from_host(kept, like)
    values, weights = xp.take(observations.unweighted.values, kept), observations.weights
    shape = places[0].shape[0], places[1].shape[0]
    if weights is None:
        core = SampledEntries(rows, cols, values, shape)
    else:
        core = WeightedEntries(rows, cols, values, shape, xp.take(weights, kept))
    return DenseCore(core, places[0], places[1], observations.shape, observations.centred()[0])


def _levels(index: np.ndarray, size: int) -> np.ndarray:
    """For each row or column the last of the shrinking shares, fullest first, that it belongs to."""
    order = np.argsort(-np.bincount(index, minlength=size), kind="stable")
    levels = np.empty(size, np.int8)
    shares = np.arange(1, size + 1) / size
    levels[order] = np.minimum(np.log(shares) / math.log(_SHRINK) + 1e-9, _LEVELS).astype(np.int8)
    return levels
