"""How large a step of gradient descent may be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dmf.arrays.checks import check_option, layer_factors, positive_integer
from dmf.errors import ArgumentError
from dmf.theory.checks import checked_values
from dmf.theory.times import inner_weight, outer_square


def stable_step_size(
    singular_values: Sequence[float] | np.ndarray,
    depth: int,
    outer_scale: float = 1.0,
    weight_decay: float = 0.0,
    scale: float = 0.0,
) -> float:
    """Largest step size at which gradient descent stays at the solution that the spectral start leads to.

    2 over the largest eigenvalue of the Hessian there, layers scaled by their rates: for alpha = 1 and no decay
    ``2 / (L s_1^{2 - 2/L})``. From half of it on the solution is approached from alternating sides. At alpha = 1, and for small
    scales, it is also the flattest of the solutions, so that larger steps end nowhere; otherwise they may end at a flatter one.

    Parameters
    ----------
    singular_values : sequence of floats, >= 0
        Only the largest counts.
    depth : int, >= 1
    outer_scale : float, > 0
        alpha.
    weight_decay : float, >= 0
        lambda, for the loss "sum". In the end it balances the layers, whatever the scale; where that is less sharp than
        the solution that the scale leads to first, the latter counts.
    scale : float, >= 0
        eps, at most s_1^{1/L}: where the flow ends depends on it if alpha is not 1.

    Returns
    -------
    float
        For the loss "sum"; times m for the loss "mean" over m entries (with ``weight_decay * m``).

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    """
    value = float(np.max(checked_values(singular_values)))
    depth = positive_integer(depth, "depth")
    alpha = check_option("outer_scale", outer_scale, strictly=True)
    decay = check_option("weight_decay", weight_decay)
    eps = check_option("scale", scale)
    factors = layer_factors(depth, alpha)
    ends = []
    if decay:
        ends.append(np.sqrt(factors) * _balanced_end(value, depth, alpha, decay))
    if eps or not decay:
        ends.append(_end(value, depth, alpha, eps))
    curvature = max(_sharpness(weights, value, factors, decay) for weights in ends)
    return 2 / curvature if curvature > 0 else np.inf


def two_period_orbit(singular_value: float, depth: int, step_size: float) -> tuple[float, float]:
    """The two values between which a component jumps for ever, for steps a little above the largest stable one.

    A component of the spectral start with alpha = 1 follows ``w <- w - eta (w^L - s) w^(L-1)``. Beyond `stable_step_size` it
    leaves ``w^L = s`` for an orbit of period two, which is stable up to a second threshold.

    Parameters
    ----------
    singular_value : float, > 0
        s.
    depth : int, >= 2
        L; a network of one layer diverges instead.
    step_size : float, > 0
        eta, for the loss "sum".

    Returns
    -------
    low, high : float
        ``w^L`` on the orbit; both are s up to the largest stable step.

    Raises
    ------
    ArgumentError
        If an argument is out of range, or the step is so large that no orbit of period two is stable.

    References
    ----------
    .. [1] Ghosh et al., 2025 (arXiv 2502.20531): deep matrix factorization beyond the edge of stability.
    """
    from scipy.optimize import brentq

    value = check_option("singular_value", singular_value, strictly=True)
    depth = int(check_option("depth", depth, least=2, whole=True))
    eta = check_option("step_size", step_size, strictly=True)
    limit = stable_step_size([value], depth)
    if eta <= limit:
        return value, value
    rest = value ** (1 / depth)

    def step(w: float) -> float:
        return w - eta * (w**depth - value) * w ** (depth - 1)

    def slope(w: float) -> float:
        return 1 - eta * ((2 * depth - 1) * w ** (2 * depth - 2) - value * (depth - 1) * w ** (depth - 2))

    # From just below the unstable rest two steps lead further down; from below the orbit, up to it.
    grid = rest * (1 - np.geomspace(1e-6, 1 - 1e-6, 2_000))
    outside = [w for w in grid.tolist() if step(step(w)) > w]
    if outside:
        inside = grid[np.flatnonzero(grid > outside[0])[-1:]].tolist() or [rest]
        low = brentq(lambda w: step(step(w)) - w, outside[0], inside[0], xtol=1e-15 * rest, rtol=1e-15)
        high = step(low)
        if abs(slope(low) * slope(high)) < 1:
            return low**depth, high**depth
    raise ArgumentError(
        f"step_size={eta:g} with the singular value {value:g} at depth {depth}, but this is {eta / limit:.3g} times the largest "
        "stable step, and no orbit of period two is stable there. Take a step closer to it.",
        argument="step_size",
        value=eta,
        limit=limit,
    )


def _sharpness(weights: np.ndarray, value: float, factors: np.ndarray, decay: float) -> float:
    """Largest eigenvalue of the Hessian of ``1/2 (prod_l w_l - s)^2``, layers scaled by their rates, plus lambda."""
    depth = len(weights)
    residual = float(np.prod(weights)) - value
    others = np.array([np.prod(np.delete(weights, k)) for k in range(depth)])
    hessian = np.outer(others, others)
    for j in range(depth):
        for k in range(depth):
            if j != k:
                hessian[j, k] += residual * np.prod(np.delete(weights, [j, k]))
    root = np.sqrt(factors)
    return float(np.linalg.eigvalsh(root[:, None] * hessian * root)[-1]) + decay


def _end(value: float, depth: int, alpha: float, eps: float) -> np.ndarray:
    """Weights (L,) at which the flow without decay ends."""
    if depth <= 2:
        return np.full(depth, value ** (1 / depth))
    inner = inner_weight(value, depth, alpha, eps)
    weights = np.full(depth, inner)
    weights[0] = weights[-1] = math.sqrt(outer_square(inner, alpha, eps))
    return weights


def _balanced_end(value: float, depth: int, alpha: float, decay: float) -> float:
    """``w_l / sqrt(alpha_l)`` at the end of the flow with decay, which is the same for all layers; 0 if decay wins."""
    if depth == 1:
        return math.sqrt(alpha) * value / (alpha + decay)
    if depth == 2:
        return math.sqrt(max(value - decay / alpha, 0.0) / alpha)

    from scipy.optimize import brentq

    # Where decay balances the gradient: (s - p) p = lambda b^2 with p = alpha b^L, so (s - alpha b^L) alpha b^{L-2} = lambda.
    def pull(b: float) -> float:
        return (value - alpha * b**depth) * alpha * b ** (depth - 2) - decay

    best = (value * (depth - 2) / (alpha * (2 * depth - 2))) ** (1 / depth)  # where pull is largest
    if value == 0 or pull(best) < 0:
        return 0.0
    top = (value / alpha) ** (1 / depth)
    return brentq(pull, best, top, rtol=1e-14) if pull(top) < 0 else top  # not, by rounding, if lambda is tiny
