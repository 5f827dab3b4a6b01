"""How likely values at points of time are, by a filter that goes through the points once."""

from __future__ import annotations

import numpy as np

from dmf.kernels.jit import jit


@jit()
def filtered(gaps, weights, sums, variances, scales, least):
    """What two Ornstein-Uhlenbeck processes explain of squares of values, and the logarithm of the determinant that goes with it.

    Parameters
    ----------
    gaps : float64 array, shape (2, n)
        To the point before, for each process in its own unit; infinite where another row begins.
    weights, sums : float64 arrays, shape (n,)
        Sums of weights, which are positive, and of weighted values at each point.
    variances, scales : float64 arrays, shape (2,)
        Of the processes, in units of the variance of the noise, and in those of the gaps.
    least : float
        Least share of a variance that is new at the next point.

    Returns
    -------
    explained, determinant : float
        With K the covariance of the values in units of that of the noise, W the weights and y the means ``sums / weights``:
        ``sum(weights y^2) - y^T (K + 1 / W)^-1 y`` and ``log det(K W + 1)``.
    """
    one, two, first, both, second = 0.0, 0.0, 0.0, 0.0, 0.0  # means and covariances
    explained, determinant = 0.0, 0.0
    for i in range(sums.shape[0]):
        new_one = max(-np.expm1(-2 * gaps[0, i] / scales[0]), least)
        new_two = max(-np.expm1(-2 * gaps[1, i] / scales[1]), least)
        kept_one, kept_two = np.sqrt(1 - new_one), np.sqrt(1 - new_two)
        one, two = kept_one * one, kept_two * two
        first = kept_one * kept_one * first + variances[0] * new_one
        both = kept_one * kept_two * both
        second = kept_two * kept_two * second + variances[1] * new_two
        spread = first + 2 * both + second + 1 / weights[i]
        mean = sums[i] / weights[i]
        off = mean - one - two
        explained += sums[i] * mean - off * off / spread
        determinant += np.log(spread * weights[i])
        gain_one, gain_two = (first + both) / spread, (both + second) / spread
        one, two = one + gain_one * off, two + gain_two * off
        first -= gain_one * gain_one * spread
        both -= gain_one * gain_two * spread
        second -= gain_two * gain_two * spread
    return explained, determinant
