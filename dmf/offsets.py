"""Global mean, row and column offsets ("biases"): what a table shows before any interaction of rows and columns."""

from __future__ import annotations

from dataclasses import dataclass

from dmf.backend import Array, device, namespace, number
from dmf.linalg import conjugate_gradient
from dmf.observations import Observations

_ROUNDS = 6  # of the variance estimates; they change by less than a percent afterwards


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

    def factors(self) -> tuple[Array, Array]:
        """The matrix as a product of arrays (d1, 2) and (2, d2)."""
        xp = namespace(self.row, self.col)
        return (
            xp.stack([self.row + self.mean, xp.ones_like(self.row)], axis=1),
            xp.stack([xp.ones_like(self.col), self.col], axis=0),
        )


def fit_offsets(observations: Observations) -> Offsets:
    """Least-squares offsets, each shrunk towards zero as far as the data say.

    The model is ``y = A(mean + row_i + col_j) + noise`` with Gaussian row and column effects; their variances and that of
    the noise are estimated from the data (expectation-maximisation with the posterior variances approximated entry by
    entry), so that rows seen once are trusted less than rows seen often, and nothing is left to tune.

    Parameters
    ----------
    observations : Observations

    Returns
    -------
    Offsets
        In the library, dtype and device of the observations.
    """
    xp = namespace(observations.values)
    d1, d2 = observations.shape

    def ones(*shape):
        return xp.ones(shape, dtype=observations.dtype, device=device(observations.values))

    left, right = ones(d1, 1), ones(1, d2)
    unit = observations.predict(left, right)  # A(1 1^T)
    square = number(xp.sum(unit * unit))
    mean = number(xp.sum(unit * observations.values)) / square if square > 0 else 0.0
    target = observations.values - mean * unit
    counts = observations.adjoint(unit, left, right)  # samples of each row and column, if entries were sampled
    counts = xp.concat([xp.abs(counts[0][:, 0]), xp.abs(counts[1][0, :])])
    is_row = xp.concat([ones(d1), 0 * ones(d2)])

    def image(effects):
        factors = xp.stack([effects[:d1], ones(d1)], axis=1), xp.stack([ones(d2), effects[d1:]], axis=0)
        return observations.predict(*factors)

    def back(weights):
        by_row, by_col = observations.adjoint(weights, left, right)
        return xp.concat([by_row[:, 0], by_col[0, :]])

    def solve(ridge, start):
        return conjugate_gradient(lambda x: back(image(x)) + ridge * x, goal, start, tolerance=1e-6, iterations=200)

    goal = back(target)
    total = number(xp.sum(target * target)) / observations.n_measurements
    noise, row_variance, col_variance = total, total / 4, total / 4
    effects = 0 * counts
    if total > 0:
        for _ in range(_ROUNDS):
            floor = 1e-8 * total
            ridge = max(noise, floor) / (max(row_variance, floor) * is_row + max(col_variance, floor) * (1 - is_row))
            effects = solve(ridge, effects)
            residual = target - image(effects)
            spread = effects * effects + max(noise, floor) / (counts + ridge)
            noise = number(xp.sum(residual * residual)) / observations.n_measurements
            row_variance = number(xp.sum(spread * is_row)) / d1
            col_variance = number(xp.sum(spread * (1 - is_row))) / d2
    return Offsets(mean, effects[:d1], effects[d1:])
