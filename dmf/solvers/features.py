"""What the positions of the observed entries alone tell of rows and columns.

Who rates what is no accident: people choose what they like. Rows that were seen in similar columns get similar features.
"""

from __future__ import annotations

from dmf.arrays.backend import Array, namespace
from dmf.arrays.linalg import truncated_svd
from dmf.observations import Entries

_MOST, _SIZE_FOR_EACH = 32, 10  # features; rows and columns there must be for each
_SWEEPS = 4  # of the randomised singular value decomposition: the last features need not be exact


def pattern_features(observations: Entries, seed: int = 0) -> tuple[Array, Array]:
    """Features of rows and of columns: a constant, how many entries are seen, and a spectral embedding of the pattern.

    The embedding holds the singular vectors after the first of the matrix with ``1 / sqrt(n_i n_j)`` at the observed
    positions, for a row of n_i entries and a column of n_j, divided by ``sqrt(n_i)``: the coordinates of correspondence
    analysis.

    Parameters
    ----------
    observations : Entries
    seed : int
        Seed of the randomised singular value decomposition.

    Returns
    -------
    rows (d1, p), columns (d2, p)
        Each column of mean square 1. Rows and columns without entries have zeros in the embedding.

    References
    ----------
    .. [1] Koren, Factorization meets the neighborhood, KDD 2008 (what was rated, whatever the rating, improves predictions).
    """
    shape, like = observations.shape, observations.like
    xp = namespace(like)
    counts = [xp.astype(observations.counts(side), observations.dtype) for side in (0, 1)]
    scales = [(1 / xp.sqrt(xp.where(n > 0, n, xp.ones_like(n))))[:, None] for n in counts]
    dimensions = min(_MOST, min(shape) // _SIZE_FOR_EACH)
    embeddings: list[list[Array]] = [[], []]
    if dimensions:
        u, _, vt = truncated_svd(
            lambda block: scales[0] * observations.pattern_product(0, scales[1] * block),
            lambda block: scales[1] * observations.pattern_product(1, scales[0] * block),
            shape,
            dimensions + 1,
            like=like,
            seed=seed,
            sweeps=_SWEEPS,
        )
        embeddings = [[u[:, 1:] * scales[0]], [xp.matrix_transpose(vt)[:, 1:] * scales[1]]]
    found = []
    for n, embedding in zip(counts, embeddings, strict=True):
        seen = xp.log1p(n)
        columns = [xp.ones_like(n)[:, None], (seen - xp.mean(seen))[:, None], *embedding]
        found.append(_of_mean_square_one(xp.concat(columns, axis=1)))
    return found[0], found[1]


def _of_mean_square_one(features: Array) -> Array:
    """Columns scaled; those of rounding errors only, such as of equal counts, become zeros."""
    xp = namespace(features)
    sizes = xp.sqrt(xp.mean(features**2, axis=0))
    seen = sizes > 8 * float(xp.finfo(features.dtype).eps) * xp.max(sizes)
    return xp.where(seen, features / xp.where(seen, sizes, xp.ones_like(sizes)), xp.zeros_like(features))
