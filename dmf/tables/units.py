"""Whether the columns of a table have one unit, or each its own."""

from __future__ import annotations

import numpy as np

_SPREADS = 30  # ratio of a large and a small standard deviation of columns of one unit; of a matrix of rank 1, 13
_APART = 10  # standard deviations between medians of columns of one unit


def look_alike(matrix: np.ndarray) -> tuple[bool, str]:
    """Whether columns could be of one unit, by their spreads and medians, and the reason in words.

    Parameters
    ----------
    matrix : array, shape (n, d)
        NaN where a cell is missing; columns without any cell say nothing.

    Returns
    -------
    alike : bool
    reason : str
    """
    matrix = matrix[:, ~np.isnan(matrix).all(axis=0)]
    spreads, centers = np.nanstd(matrix, axis=0), np.nanmedian(matrix, axis=0)
    spreads = spreads[spreads > 0]
    if len(spreads) < 2:
        return True, "hardly a column varies"
    low, high = np.quantile(spreads, [0.1, 0.9])
    apart = float(np.ptp(centers) / np.median(spreads))
    if high > _SPREADS * low:
        return False, f"the spreads of columns differ {high / low:.0f} times"
    if apart > _APART:
        return False, f"medians of columns are up to {apart:.0f} standard deviations apart"
    return True, "columns have like medians and spreads"
