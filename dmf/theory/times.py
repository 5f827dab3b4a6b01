"""When each component is learned, and which scale of the start separates components.

All of it for the spectral start of scale eps (`dmf.theory.reduced_dynamics`), without weight decay, for the loss "sum"; for
"mean" over m entries divide `step_size` by m. Layers start equal, so W_1 and W_L stay equal to a, the inner ones to b, and
``a^2 - alpha b^2 = (1 - alpha) eps^2`` under the flow. Eliminating a leaves one integral over b,

    t(b) = int_eps^b dx / ((s - a(x)^2 x^{L-2}) a(x)^2 x^{L-3}),    a(x)^2 = alpha x^2 + (1 - alpha) eps^2,

which for alpha = 1 is ``(eps^{2-L} - b^{2-L}) / ((L-2) s) + F(b) - F(eps)`` with
``F(x) = x^2 / (2 s^2) 2F1(1, 2/L; 1 + 2/L; x^L / s)``. As eps falls it grows like

    t* = 2F1(1, L/2 - 1; L/2; (alpha - 1) / alpha) / (alpha (L - 2) s eps^{L-2}),    L >= 3,

(``eps^{-(L-2)} / ((L-2) s)`` for alpha = 1), and for L = 2 like ``ln(s / eps^2) / (2 alpha s)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dmf.arrays.checks import check_choice, check_option, positive_integer
from dmf.errors import ArgumentError
from dmf.theory.checks import checked_values, descent_coefficients
from dmf.theory.recursions import crossing

METHODS = ("flow", "asymptotic", "exact")


def learning_times(
    singular_values: Sequence[float] | np.ndarray,
    depth: int,
    scale: float,
    step_size: float = 1.0,
    outer_scale: float = 1.0,
    *,
    fraction: float = 0.5,
    method: str = "flow",
    limit: int = 10**8,
) -> np.ndarray:
    """Iterations after which each component of the product has reached a fraction of its singular value.

    Parameters
    ----------
    singular_values, depth, outer_scale
        As of `reduced_dynamics`.
    scale : float, > 0
        eps, of every layer.
    step_size : float, > 0
        eta; 1 gives times of the flow.
    fraction : float, 0 < fraction < 1
    method : {"flow", "asymptotic", "exact"}
        "flow": the gradient flow's time over eta, in closed form or by quadrature, at any scale. "asymptotic": its leading
        term for small eps, which does not depend on `fraction`. "exact": runs the recursion of the descent.
    limit : int, >= 1
        Iterations after which "exact" gives up.

    Returns
    -------
    float64 array, shape (k,)
        0 where the start is already there; infinity for s = 0, and for "exact" beyond `limit`.

    Raises
    ------
    ArgumentError
        If an argument is out of range.

    References
    ----------
    .. [1] Saxe, McClelland, Ganguli, ICLR 2014 (arXiv 1312.6120), for L = 2; Kwon et al., AISTATS 2024 (arXiv 2311.05061),
       for the role of alpha.
    """
    values = checked_values(singular_values)
    depth = positive_integer(depth, "depth")
    check_option("scale", scale, strictly=True)
    check_option("outer_scale", outer_scale, strictly=True)
    rates, _ = descent_coefficients(depth, step_size, outer_scale, 0.0, "sum", 1)
    check_option("limit", limit, least=1, whole=True)
    _check_fraction("fraction", fraction)
    check_choice("method", method, METHODS)
    times = np.full(len(values), np.inf)
    for k, value in enumerate(values.tolist()):
        if value == 0:
            continue
        if scale**depth >= fraction * value:
            times[k] = 0.0
        elif method == "exact":
            count = crossing(np.full(depth, float(scale)), value, rates, fraction * value, limit)
            times[k] = count if count >= 0 else np.inf
        elif method == "flow":
            times[k] = _flow_time(value, depth, scale, outer_scale, fraction) / step_size
        else:
            times[k] = _leading_time(value, depth, scale, outer_scale) / step_size
    return times


def _flow_time(value: float, depth: int, eps: float, alpha: float, fraction: float) -> float:
    level = fraction * value
    if depth == 1:
        return math.log((value - eps) / (value - level)) / alpha
    if depth == 2:  # logistic curve of a^2
        return math.log(level * (value - eps**2) / (eps**2 * (value - level))) / (2 * alpha * value)
    if alpha == 1:
        end = level ** (1 / depth)
        plateau = (eps ** (2 - depth) - end ** (2 - depth)) / ((depth - 2) * value)
        return plateau + _rise(end, value, depth) - _rise(eps, value, depth)
    from scipy.integrate import quad  # takes half a second to import

    end = inner_weight(level, depth, alpha, eps)

    def speed(x: float) -> float:  # in x = log(b / eps), where the plateau's scales are all of one size
        b = eps * math.exp(x)
        outer = outer_square(b, alpha, eps)
        return b ** (4 - depth) / ((value - outer * b ** (depth - 2)) * outer)

    stop = math.log(end / eps)
    knots = [x for x in (1.0, 4.0, stop - 2.0) if 0 < x < stop]
    return quad(speed, 0, stop, points=knots or None, epsabs=0, epsrel=1e-12, limit=200)[0]


def outer_square(b: float, alpha: float, eps: float) -> float:
    """a^2 where the inner layers are at b."""
    return alpha * b * b + (1 - alpha) * eps**2


def inner_weight(level: float, depth: int, alpha: float, eps: float) -> float:
    """Value b >= eps at which the product ``a^2 b^{L-2}`` reaches `level`, for L >= 3."""
    from scipy.optimize import brentq

    def excess(b: float) -> float:
        return outer_square(b, alpha, eps) * b ** (depth - 2) - level

    if eps == 0:
        return (level / alpha) ** (1 / depth)
    if excess(eps) >= 0:
        return eps
    top = 2 * eps
    while excess(top) < 0:
        top *= 2
    return brentq(excess, eps, top, xtol=1e-15 * top, rtol=1e-14)


def _rise(b: float, value: float, depth: int) -> float:
    from scipy.special import hyp2f1

    return b**2 / (2 * value**2) * hyp2f1(1, 2 / depth, 1 + 2 / depth, b**depth / value)


def _leading_time(value: float, depth: int, eps: float, alpha: float) -> float:
    if depth == 1:
        return 1 / alpha
    if depth == 2:
        return math.log(value / eps**2) / (2 * alpha * value)
    from scipy.special import hyp2f1

    shape = hyp2f1(1, depth / 2 - 1, depth / 2, (alpha - 1) / alpha)
    return shape / (alpha * (depth - 2) * value * eps ** (depth - 2))


def separating_scale(
    singular_values: Sequence[float] | np.ndarray,
    depth: int,
    factor: float = 1.0,
    outer_scale: float = 1.0,
    *,
    low: float = 0.1,
    high: float = 0.9,
) -> float:
    """Largest scale of the start at which every component is begun `factor` times as late as the one before is finished.

    A component is begun when it has reached `low` of its singular value, finished at `high`. With the default factor 1 the
    components are learned one at a time, the assumption of theorem B (`compare`).

    Parameters
    ----------
    singular_values : sequence of k >= 2 floats, > 0
        Any order; distinct.
    depth : int, >= 2
    factor : float, > 0
        Of the two times. As the scale falls it grows to s_i / s_{i+1} and not beyond.
    outer_scale : float, > 0
    low, high : float, 0 < low <= high < 1
        Equal to 0.5: the factor between the times of `learning_times`.

    Returns
    -------
    float
        eps; the flow's times do not depend on the step size up to a common factor.

    Raises
    ------
    ArgumentError
        If no scale separates them by the factor.
    """
    from scipy.optimize import brentq

    values = np.sort(checked_values(singular_values))[::-1]
    depth = positive_integer(depth, "depth")
    check_option("factor", factor, strictly=True)
    check_option("outer_scale", outer_scale, strictly=True)
    _check_fraction("low", low)
    _check_fraction("high", high)
    if low > high:
        raise ArgumentError(f"low={low} is above high={high}.", argument="low", value=low, limit=high)
    if depth < 2 or len(values) < 2 or values[-1] == 0:
        raise ArgumentError(
            f"depth={depth} and singular_values={values.tolist()}, but only at depth >= 2 is there an order, and of at least two "
            "positive values.",
            argument="depth" if depth < 2 else "singular_values",
            value=depth if depth < 2 else values,
            limit=2,
        )
    ratios = values[:-1] / values[1:]
    if factor >= ratios.min():
        k = int(np.argmin(ratios))
        raise ArgumentError(
            f"factor={factor:g}, but the times of the components {k + 1} and {k + 2} (s = {values[k]:g} and {values[k + 1]:g}) "
            f"differ by less than their ratio {ratios[k]:.4g}, however small the scale. Pass a smaller factor"
            + (", or each value once." if ratios[k] == 1 else "."),
            argument="factor",
            value=factor,
            limit=ratios[k],
        )

    def excess(log_scale: float) -> float:
        eps = math.exp(log_scale)
        begun, finished = (
            np.array([_reached(v, depth, eps, outer_scale, fraction) for v in values]) for fraction in (low, high)
        )
        return float(np.min(begun[1:] - factor * finished[:-1]) / finished[0])

    top = math.log(low * values[-1]) / depth  # the last component has begun at the start
    bottom = top - 1.0
    while excess(bottom) < 0:
        bottom = top - 2 * (top - bottom)
        if bottom < -200:
            raise ArgumentError(
                f"factor={factor:g}, but it would take a scale below 1e-80. Pass a factor further below {ratios.min():.4g}.",
                argument="factor",
                value=factor,
                limit=ratios.min(),
            )
    return math.exp(brentq(excess, bottom, top, xtol=1e-12))


def _reached(value: float, depth: int, eps: float, alpha: float, fraction: float) -> float:
    return 0.0 if eps**depth >= fraction * value else _flow_time(value, depth, eps, alpha, fraction)


def _check_fraction(argument: str, value: float) -> None:
    if not 0 < value < 1:
        raise ArgumentError(
            f"{argument}={value!r}, but it is a share strictly between 0 and 1.",
            argument=argument,
            value=value,
            limit=(0, 1),
        )
