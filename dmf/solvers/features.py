"""Designs for the prior means of rows and columns: what the positions of the entries alone tell, and what else is known.

Who rates what is no accident: people choose what they like. A row that was seen in the columns N has the prior mean
``|N|^-1/2 sum of y_j over j in N`` besides a constant and a share of ``log(1 + |N|)``, and so have columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dmf.arrays.backend import Array, namespace
from dmf.arrays.linalg import truncated_svd
from dmf.observations import Entries
from dmf.observations.design import Design

_MOST, _SIZE_FOR_EACH = 64, 10  # dimensions that the y lie in; rows and columns there must be for each
_IRRELEVANT, _LEAST = 1e-6, 1e-12  # least relevance, and least number of coefficients it is estimated from
_SWEEPS = 6  # of the randomised singular value decomposition: with 4, predictions of two seeds differ by a tenth of their error


def designs(observations: Entries, seed: int = 0, implicit: bool = True) -> tuple[Design, Design]:
    """Designs of rows and of columns: a constant, how many entries are seen, the implicit term, and what else is known.

    With P the pattern, n its row sums and V an orthonormal basis, the implicit features of rows are ``diag(n)^-1/2 P V``: if
    the coefficients z of all of them have one variance, then the ``y = V z`` have it within the span of V. That is the span
    of the leading right singular vectors of ``diag(n)^-1/2 P diag(n')^-1/2``, n' the column sums, or the left ones for columns.
    On MovieLens-100K, 64 dimensions predict held-out ratings as well as 128, and better than 256 or all.

    Parameters
    ----------
    observations : Entries
    seed : int
        Seed of the randomised singular value decomposition.
    implicit : bool
        Whether the implicit term is part of them.

    Returns
    -------
    rows (d1, p), columns (d2, p)
        The first two columns are of mean square 1, or 0 where all counts are the same; the rows of the implicit term are
        no longer than 1, and zero where nothing is seen.

    References
    ----------
    .. [1] Koren, Factorization meets the neighborhood, KDD 2008 (what was rated, whatever the rating, improves predictions).
    .. [2] Rendle, Zhang, Koren, On the difficulty of evaluating baselines, 2019 (implicit terms in Bayesian models).
    """
    shape, like = observations.shape, observations.like
    xp = namespace(like)
    counts = [xp.astype(observations.counts(side), observations.dtype) for side in (0, 1)]
    scales = [(1 / xp.sqrt(xp.where(n > 0, n, xp.ones_like(n))))[:, None] for n in counts]
    dimensions = min(_MOST, min(shape) // _SIZE_FOR_EACH) if implicit else 0
    terms: list[list[Array]] = [[], []]
    if dimensions:
        u, _, vt = truncated_svd(
            lambda block: scales[0] * observations.pattern_product(0, scales[1] * block),
            lambda block: scales[1] * observations.pattern_product(1, scales[0] * block),
            shape,
            dimensions,
            like=like,
            seed=seed,
            sweeps=_SWEEPS,
        )
        bases = xp.matrix_transpose(vt), u
        terms = [[scales[side] * observations.pattern_product(side, bases[side])] for side in (0, 1)]
    rows, cols = (
        Design.of([xp.ones_like(n)[:, None], _relative(xp.log1p(n))[:, None], *more]).beside(known)
        for n, more, known in zip(counts, terms, observations.known, strict=True)
    )
    return rows, cols


def regression(
    moments: np.ndarray,
    gram: np.ndarray,
    groups: Sequence[int],
    relevance: np.ndarray,
    spread: np.ndarray,
    units: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of a Bayesian regression, and a better estimate of how much each group of columns matters.

    That estimate is the fixed point of MacKay, which needs a few rounds where that of expectation-maximisation needs hundreds,
    for most of many coefficients are near their prior.

    Parameters
    ----------
    moments : array, shape (p, k)
        ``X^T Y`` of the design X (n, p) and the targets Y (n, k).
    gram : array, shape (p, p)
        ``X^T X``.
    groups : sequence of int
        Numbers of columns that have one prior variance.
    relevance : array, shape (number of groups,)
        Prior variances of the coefficients, in units of the variance of the target.
    spread : array, shape (k,)
        Variances of the targets around their means.
    units : array, shape (k,)
        Units of squares of the targets: one whose spread is small beside them has little say.

    Returns
    -------
    coefficients : array, shape (p, k)
    relevance : array, shape (number of groups,)

    References
    ----------
    .. [1] MacKay, Bayesian interpolation, Neural Computation 4 (1992).
    """
    each = np.repeat(relevance, groups)
    covariance = np.linalg.inv(gram + np.diag(1 / each))
    coefficients = covariance @ moments
    squares = np.sum(coefficients**2 / units, axis=1) / np.sum(spread / units)
    determined = 1 - np.diag(covariance) / each  # effective number of coefficients
    first = np.cumsum((0, *groups[:-1]))
    squares, determined = (np.add.reduceat(numbers, first) for numbers in (squares, determined))
    return coefficients, np.maximum(squares / np.maximum(determined, _LEAST), _IRRELEVANT)


def _relative(numbers: Array) -> Array:
    """The numbers with mean 0 and mean square 1; zeros if they are equal up to rounding."""
    xp = namespace(numbers)
    deviations = numbers - xp.mean(numbers)
    size = xp.sqrt(xp.mean(deviations**2))
    differ = size > 8 * float(xp.finfo(numbers.dtype).eps) * xp.max(numbers)
    return xp.where(differ, deviations / xp.where(differ, size, xp.ones_like(size)), xp.zeros_like(numbers))
