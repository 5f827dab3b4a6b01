"""Global mean, row and column offsets ("biases"): what a table shows before any interaction of rows and columns."""

from __future__ import annotations

from dataclasses import dataclass

from dmf.arrays.backend import Array, device, namespace, number
from dmf.observations import Entries

_LEAST_VARIANCE = 1e-8  # relative to the mean square of what the mean leaves


@dataclass(frozen=True, eq=False)
class Offsets:
    """The matrix ``mean + row[i] + col[j]``.

    Parameters
    ----------
    mean : float
    row : array, shape (d1,)
    col : array, shape (d2,)
    """

    mean: float
    row: Array
    col: Array

    def plus(self, other: Offsets) -> Offsets:
        """The sum of both."""
        return Offsets(self.mean + other.mean, self.row + other.row, self.col + other.col)

    def factors(self) -> tuple[Array, Array]:
        """The matrix as a product of arrays (d1, 2) and (2, d2)."""
        xp = namespace(self.row, self.col)
        return (
            xp.stack([self.row + self.mean, xp.ones_like(self.row)], axis=1),
            xp.stack([xp.ones_like(self.col), self.col], axis=0),
        )


def fit_offsets(observations: Entries, rounds: int = 10) -> Offsets:
    """Least-squares offsets, each shrunk towards zero as far as the data say.

    The model is ``y_ij = mean + row_i + col_j + noise`` with Gaussian row and column effects; their variances and that of the
    noise are estimated from the data (expectation-maximisation with the posterior variances approximated entry by entry), so
    that rows seen once are trusted less than rows seen often, and nothing is left to tune.

    Parameters
    ----------
    observations : Entries
    rounds : int, >= 0
        Of fitting rows and columns in turn; the first few bring nearly all.

    Returns
    -------
    Offsets
        In the library, dtype and device of the observations.
    """
    xp = namespace(observations.like)
    ones = [
        xp.ones((size, 1), dtype=observations.dtype, device=device(observations.like)) for size in observations.shape
    ]
    mean, centred = observations.centred()
    noise = centred.mean_square
    size = noise / observations.mean_weight  # of the matrix without its mean
    effects = [0 * ones[0], 0 * ones[1]]
    variances, least = [size / 4, size / 4], _LEAST_VARIANCE * noise
    for _ in range(rounds if size > 0 else 0):
        for side in (0, 1):
            pair = (ones[0], effects[1]) if side == 0 else (effects[0], ones[1])
            remaining = centred.minus(pair[0], xp.matrix_transpose(pair[1]))
            penalty = max(noise, least) / max(variances[side], _LEAST_VARIANCE * size)
            weight = xp.asarray([penalty], dtype=observations.dtype, device=device(observations.like))
            fit = remaining.ridge(side, ones[1 - side], weight, 0 * ones[1 - side])
            effects[side] = fit.rows
            variances[side] = number(xp.mean(fit.rows**2 + noise * fit.variances))
            noise = fit.square / observations.n_measurements
    return Offsets(mean, effects[0][:, 0], effects[1][:, 0])
