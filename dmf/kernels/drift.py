"""Points of time of many rows: neighbours of others among them, and how likely values at them are."""

from __future__ import annotations

import numpy as np

from dmf.kernels.jit import jit


@jit()
def neighbours(starts, times, index, wanted):
    """For each of some times the points of a row around it: the last that is not after, and the first that is not before.

    Parameters
    ----------
    starts : int64 array, shape (d + 1,)
        Where the points of each row begin.
    times : float64 array, shape (n,)
        Ascending in each row.
    index : int64 array, shape (m,)
        Rows.
    wanted : float64 array, shape (m,)

    Returns
    -------
    last, first : int64 arrays, shape (m,)
        One before the first point of the row, or one after its last, where there is none.
    """
    last, first = np.empty(index.shape[0], np.int64), np.empty(index.shape[0], np.int64)
    for k in range(index.shape[0]):
        low, end = starts[index[k]], starts[index[k] + 1]
        high = end
        while low < high:
            middle = (low + high) // 2
            if times[middle] < wanted[k]:
                low = middle + 1
            else:
                high = middle
        first[k] = low
        last[k] = low if low < end and times[low] == wanted[k] else low - 1
    return last, first


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
