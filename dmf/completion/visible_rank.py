"""How many singular values stand out of noise."""

from __future__ import annotations

import math

import numpy as np

from dmf.arrays.backend import Array, namespace, to_host

_ROUNDING = 8.0  # singular values below this many units in the last place of the largest are zero


def visible_rank(singular_values: Array, shape: tuple[int, int]) -> tuple[int, float]:
    """Rank and noise level of a fully observed matrix, by empirical variational Bayes.

    The global optimum of variational Bayesian matrix factorisation is known in closed form: a component is kept if its
    singular value exceeds a threshold given by the noise level, which itself minimises the free energy.

    Parameters
    ----------
    singular_values : array, shape (min(d1, d2),)
        All of them, descending.
    shape : (int, int)
        (d1, d2).

    Returns
    -------
    rank : int
        0 if nothing stands out of noise.
    noise : float
        Standard deviation of the entries' noise; 0 if the matrix is of lower rank to rounding.

    References
    ----------
    .. [1] Nakajima, Sugiyama, Babacan, Tomioka, Global analytic solution of fully-observed variational Bayesian matrix
       factorization, JMLR 14 (2013), theorems 2 and 3.
    """
    epsilon = float(namespace(singular_values).finfo(singular_values.dtype).eps)
    values = to_host(singular_values).astype(np.float64)
    if values[0] == 0:
        return 0, 0.0
    numerical = int(np.sum(values > _ROUNDING * max(shape) * epsilon * values[0]))
    if numerical < values.shape[0]:
        return numerical, 0.0
    small, large = min(shape), max(shape)
    if small == 1:
        return 1, 0.0
    ratio = small / large
    threshold = 2.5129 * math.sqrt(ratio)  # the paper's approximation of the zero of its equation (21)
    edge = (1 + threshold) * (1 + ratio / threshold)
    squares = values**2 / large

    def free_energy(logarithm: float) -> float:
        x = squares / math.exp(logarithm)
        inside, outside = x[x <= edge], x[x > edge]
        gap = outside - (1 + ratio)
        tau = (gap + np.sqrt(np.maximum(gap**2 - 4 * ratio, 0))) / 2
        above = outside - tau + np.log((tau + 1) / outside) + ratio * np.log(tau / ratio + 1)
        return float(np.sum(inside - np.log(inside)) + np.sum(above))

    most = math.ceil(small / (1 + ratio)) - 1  # of components: the noise needs the others to be seen
    least = max(squares[min(most, small - 1)] / edge, float(np.mean(squares[min(most, small - 1) :])))
    bounds = math.log(max(least, squares[0] * epsilon**2)), math.log(float(np.sum(squares)) / small)
    grid = np.linspace(*bounds, 65)
    best = int(np.argmin([free_energy(g) for g in grid]))
    bracket = grid[max(best - 1, 0)], grid[min(best + 1, 64)]
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(free_energy, bounds=bracket, method="bounded") if bracket[0] < bracket[1] else None
    variance = math.exp(found.x if found is not None else grid[best])
    return int(np.sum(squares > edge * variance)), math.sqrt(variance)
