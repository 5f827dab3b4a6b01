"""Margins: monotone transforms of single columns, towards a normal distribution, and the way back to their units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SPACES = (0.0, 0.5, 1.0)  # how far a column goes from its own units towards a normal distribution
_MOST_KNOTS = 500  # of a transform; columns of more distinct values are interpolated
_OUTER = 0.1  # share of the distinct values whose slope goes on beyond the ends
_REACH = 12.0  # standard deviations that the slope goes on for
_WIDENED = 0.5  # of the observed range, on either side: the bounds of what is filled in
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(11)
_NODE_WEIGHTS = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()


@dataclass(frozen=True)
class Margins:
    """Transforms of the columns of a table, in one space.

    Attributes
    ----------
    space : float, 0 <= space <= 1
        0: the standardised columns themselves; 1: normal scores; between: a mean of both.
    values, scores : tuples of array
        Knots of the piecewise linear transform of each column, both increasing; empty in space 0, and for constant columns.
    low, high : arrays, shape (d,)
        Bounds of what is filled in, in the units of `values`.
    """

    space: float
    values: tuple[np.ndarray, ...]
    scores: tuple[np.ndarray, ...]
    low: np.ndarray
    high: np.ndarray

    def latent(self, table: np.ndarray) -> np.ndarray:
        """A table of standardised columns in this space; NaN stay."""
        result = np.array(table)
        for j, (values, scores) in enumerate(zip(self.values, self.scores, strict=True)):
            if len(values):
                result[:, j] = np.interp(table[:, j], values, scores)  # NaN give NaN
        return result

    def restored(self, latent: np.ndarray) -> np.ndarray:
        """Values of a table in this space, in units of the standardised columns, within the bounds."""
        result = np.array(latent)
        for j, (values, scores) in enumerate(zip(self.values, self.scores, strict=True)):
            if len(values):
                result[:, j] = np.interp(latent[:, j], scores, values)
        return np.clip(result, self.low, self.high)

    def expected(self, column: int, means: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance, in units of the standardised column, of what is normal with these moments in this space."""
        values, scores = self.values[column], self.scores[column]
        if len(values) == 0:
            return np.clip(means, self.low[column], self.high[column]), variances
        points = np.interp(means[:, None] + np.sqrt(variances)[:, None] * _NODES, scores, values)
        points = np.clip(points, self.low[column], self.high[column])
        mean = points @ _NODE_WEIGHTS
        return mean, np.maximum(points**2 @ _NODE_WEIGHTS - mean**2, 0)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file holds of them."""
        ends = np.cumsum([len(values) for values in self.values])
        return {
            "space": np.array(self.space), "ends": ends, "low": self.low, "high": self.high,
            "values": np.concatenate([*self.values, np.empty(0)]), "scores": np.concatenate([*self.scores, np.empty(0)]),
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Margins:
        """The margins that `arrays` came from."""
        cuts = arrays["ends"][:-1]
        values, scores = (tuple(np.split(arrays[name], cuts)) for name in ("values", "scores"))
        return cls(float(arrays["space"]), values, scores, arrays["low"], arrays["high"])


def fit_margins(
    table: np.ndarray, space: float, weights: np.ndarray | None = None, bounds: np.ndarray | None = None
) -> Margins:
    """Transforms of the columns of a table into a space.

    Parameters
    ----------
    table : array, shape (n, d)
        Standardised columns; NaN where nothing is observed.
    space : float, 0 <= space <= 1
    weights : array, shape (n,), optional
        How often each row counts.
    bounds : array, shape (2, d), optional
        Least and largest value of each column, infinite where there is none; the observed range, widened by half of it on
        either side, bounds what is filled in as well.

    Returns
    -------
    Margins

    References
    ----------
    .. [1] Liu, Lafferty, Wasserman, JMLR 2009 (Gaussian copulas with nonparametric margins).
    """
    d = table.shape[1]
    values, scores, ends = [], [], np.zeros((2, d))
    for j in range(d):
        seen = ~np.isnan(table[:, j])
        counts = None if weights is None else weights[seen]
        column = table[seen, j] if counts is None else table[seen, j][counts > 0]
        if column.size:
            low, high = column.min(), column.max()
            ends[:, j] = low - _WIDENED * (high - low), high + _WIDENED * (high - low)
        knots = np.empty((2, 0))
        if space > 0 and column.size and high > low:
            knots = _knots(column, space, None if counts is None else counts[counts > 0])
        values.append(knots[0])
        scores.append(knots[1])
    if bounds is not None:
        ends = np.clip(ends, bounds[0], bounds[1])
    return Margins(space, tuple(values), tuple(scores), ends[0], ends[1])


def _knots(column: np.ndarray, space: float, weights: np.ndarray | None) -> np.ndarray:
    """Distinct values and their scores, of mean 0 and variance 1 over the column, with one point beyond each end."""
    from scipy.special import ndtri  # here: the import takes a tenth of a second

    distinct, place = np.unique(column, return_inverse=True)
    counts = np.bincount(place, weights, minlength=len(distinct))
    shares = counts / counts.sum()
    scores = _standard(ndtri(np.cumsum(shares) - shares / 2), shares)
    if space < 1:
        scores = _standard((1 - space) * _standard(distinct, shares) + space * scores, shares)
    outer = max(int(_OUTER * len(distinct)), 1)
    if len(distinct) > _MOST_KNOTS:
        kept = np.unique(np.linspace(0, len(distinct) - 1, _MOST_KNOTS).round().astype(int))
    else:
        kept = np.arange(len(distinct))
    points = np.stack([distinct, scores])
    first = points[:, 0] - (points[:, outer] - points[:, 0]) * _REACH / (scores[outer] - scores[0])
    last = points[:, -1] + (points[:, -1] - points[:, -1 - outer]) * _REACH / (scores[-1] - scores[-1 - outer])
    return np.column_stack([first, points[:, kept], last])


def _standard(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    centered = values - shares @ values
    return centered / np.sqrt(shares @ centered**2)
