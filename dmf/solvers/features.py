"""What the positions of the observed entries alone tell of rows and columns.

Who rates what is no accident: people choose what they like. A row that was seen in the columns N has the prior mean
``|N|^-1/2 sum of y_j over j in N`` besides a constant and a share of ``log(1 + |N|)``, and so have columns.
"""

from __future__ import annotations

from dmf.arrays.backend import Array, namespace
from dmf.arrays.linalg import truncated_svd
from dmf.observations import Entries

OWN = 2  # features that are no part of the implicit term: a constant and how many entries are seen
_MOST, _SIZE_FOR_EACH = 64, 10  # dimensions that the y lie in; rows and columns there must be for each
_SWEEPS = 6  # of the randomised singular value decomposition: with 4, predictions of two seeds differ by a tenth of their error


def pattern_features(observations: Entries, seed: int = 0) -> tuple[Array, Array]:
    """Features of rows and of columns: a constant, how many entries are seen, and the implicit term.

    With P the pattern, n its row sums and V an orthonormal basis, the implicit features of rows are ``diag(n)^-1/2 P V``: if
    the coefficients z of all of them have one variance, then the ``y = V z`` have it within the span of V. That is the span
    of the leading right singular vectors of ``diag(n)^-1/2 P diag(n')^-1/2``, n' the column sums, or the left ones for columns.
    On MovieLens-100K, 64 dimensions predict held-out ratings as well as 128, and better than 256 or all.

    Parameters
    ----------
    observations : Entries
    seed : int
        Seed of the randomised singular value decomposition.

    Returns
    -------
    rows (d1, p), columns (d2, p)
        The first two columns are of mean square 1, or 0 where all counts are the same; the rows of the others are no longer
        than 1, and zero where nothing is seen.

    References
    ----------
    .. [1] Koren, Factorization meets the neighborhood, KDD 2008 (what was rated, whatever the rating, improves predictions).
    .. [2] Rendle, Zhang, Koren, On the difficulty of evaluating baselines, 2019 (implicit terms in Bayesian models).
    """
    shape, like = observations.shape, observations.like
    xp = namespace(like)
    counts = [xp.astype(observations.counts(side), observations.dtype) for side in (0, 1)]
    scales = [(1 / xp.sqrt(xp.where(n > 0, n, xp.ones_like(n))))[:, None] for n in counts]
    dimensions = min(_MOST, min(shape) // _SIZE_FOR_EACH)
    implicit: list[list[Array]] = [[], []]
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
        implicit = [[scales[side] * observations.pattern_product(side, bases[side])] for side in (0, 1)]
    rows, cols = (
        xp.concat([xp.ones_like(n)[:, None], _relative(xp.log1p(n))[:, None], *more], axis=1)
        for n, more in zip(counts, implicit, strict=True)
    )
    return rows, cols


def _relative(numbers: Array) -> Array:
    """The numbers with mean 0 and mean square 1; zeros if they are equal up to rounding."""
    xp = namespace(numbers)
    deviations = numbers - xp.mean(numbers)
    size = xp.sqrt(xp.mean(deviations**2))
    differ = size > 8 * float(xp.finfo(numbers.dtype).eps) * xp.max(numbers)
    return xp.where(differ, deviations / xp.where(differ, size, xp.ones_like(size)), xp.zeros_like(numbers))
