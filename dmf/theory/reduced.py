"""The compressed network from its spectral start: one scalar recursion for each singular value and layer.

With every entry observed, all layers of the network that `spectral_network` starts stay diagonal in the singular bases of
the target, so descent of the whole network is (Kwon et al., section 4; any alpha_l, eta and lambda)

    W_L...W_1(t) = U diag(prod_l w_{l,i}(t)) V^T,
    w_{l,i}(t+1) = (1 - eta lambda) w_{l,i} - eta alpha_l (prod_k w_{k,i} - s_i) prod_{k != l} w_{k,i},  w_{l,i}(0) = eps_l,

alpha_l = `outer_scale` for l = 1 and L, 1 between; s_i = 0 beyond the rank. Everything here is for the loss "sum",
``1/2 ||W - M||_F^2``; for "mean" over the m = d1 d2 entries pass ``step_size / m`` and ``weight_decay * m``. The limit of
small steps is the gradient flow dw/dt = -lambda w - alpha_l (prod - s) prod_{k != l} w_k at the time t = eta * iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dmf.arrays.backend import Array, from_host, namespace
from dmf.arrays.checks import check_option, layer_factors, positive_integer
from dmf.arrays.linalg import identity
from dmf.errors import ArgumentError
from dmf.models import DeepLinearNetwork
from dmf.theory.checks import checked_values, descent_coefficients, recorded_iterations
from dmf.theory.recursions import scalar_descent


@dataclass(frozen=True, eq=False)
class ReducedTrajectory:
    """Scalars that stand for the trajectory of a compressed network; n records of k components and L layers.

    Attributes
    ----------
    time : float64 array, shape (n,)
        eta times the iteration, or the time of the flow.
    weights : float64 array, shape (n, L, k)
        w_{l,i}.
    targets : float64 array, shape (k,)
        s_i.
    iteration : int array, shape (n,), or None
        None for a flow.
    complete : bool
        False if the recursion overflowed; the records then end before.
    """

    time: np.ndarray
    weights: np.ndarray
    targets: np.ndarray
    iteration: np.ndarray | None = None
    complete: bool = True

    def __len__(self) -> int:
        return len(self.time)

    @property
    def values(self) -> np.ndarray:
        """prod_l w_{l,i}: the components of the end-to-end matrix, float64 array (n, k), in the order of `targets`."""
        return np.prod(self.weights, axis=1)

    @property
    def error(self) -> np.ndarray:
        """``||W_L...W_1 - M||_F / ||M||_F`` for an M with the singular values `targets`, float64 array (n,)."""
        return np.linalg.norm(self.values - self.targets, axis=1) / np.linalg.norm(self.targets)

    def network(self, index: int, left: Array, right: Array) -> DeepLinearNetwork:
        """The compressed network at one record.

        Parameters
        ----------
        index : int
        left : array, shape (d1, k)
            U, left singular vectors of the target.
        right : array, shape (k, d2)
            V^T. Of depth 1 the only layer is ``U diag(w) V^T``.

        Returns
        -------
        DeepLinearNetwork
            In the library, device and dtype of `left`.
        """
        xp = namespace(left, right)
        rows = [xp.astype(from_host(np.ascontiguousarray(w), left), left.dtype) for w in self.weights[index]]
        if len(rows) == 1:
            return DeepLinearNetwork([(left * rows[0]) @ right])
        inner = [identity(row.shape[0], left) * row for row in rows[1:-1]]
        return DeepLinearNetwork([xp.reshape(rows[0], (-1, 1)) * right, *inner, left * rows[-1]])


def reduced_dynamics(
    singular_values: Sequence[float] | np.ndarray,
    depth: int,
    scale: float | Sequence[float],
    step_size: float,
    outer_scale: float = 1.0,
    weight_decay: float = 0.0,
    iterations: int = 10_000,
    record_every: int = 1,
) -> ReducedTrajectory:
    """Exact trajectory of gradient descent from the spectral start: 30 nanoseconds for a component and iteration at L = 3.

    Parameters
    ----------
    singular_values : sequence of k floats, >= 0
        s_i of the target; 0 for every component beyond its rank.
    depth : int, >= 1
        L.
    scale : float, > 0, or sequence of L floats, > 0
        eps, or eps_l for each layer.
    step_size : float, > 0
        eta, for the loss "sum"; see the module for "mean".
    outer_scale : float, > 0
        alpha.
    weight_decay : float, >= 0
        lambda.
    iterations : int, >= 0
    record_every : int, >= 1

    Returns
    -------
    ReducedTrajectory

    Raises
    ------
    ArgumentError
        If an argument is out of range.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), section 4.
    """
    targets, start = _problem(singular_values, depth, scale)
    rates, shrink = descent_coefficients(depth, step_size, outer_scale, weight_decay, "sum", 1)
    steps = recorded_iterations(iterations, record_every)
    weights = scalar_descent(start, targets, rates, shrink, steps)
    done = steps[: len(weights)]
    return ReducedTrajectory(step_size * done, weights, targets, done, len(done) == len(steps))


def gradient_flow(
    singular_values: Sequence[float] | np.ndarray,
    depth: int,
    scale: float | Sequence[float],
    times: Sequence[float] | np.ndarray,
    outer_scale: float = 1.0,
    weight_decay: float = 0.0,
    tolerance: float = 1e-11,
) -> ReducedTrajectory:
    """Limit of `reduced_dynamics` for small steps, with steps chosen by the error.

    Parameters
    ----------
    singular_values, depth, scale, outer_scale, weight_decay
        As of `reduced_dynamics`.
    times : sequence of n floats, >= 0, ascending
        Times to record: eta times the iteration.
    tolerance : float, > 0
        Relative error of a step; the integrator gets no further than about 1e-12.

    Returns
    -------
    ReducedTrajectory

    Raises
    ------
    ArgumentError
        If an argument is out of range, or the integration fails.
    """
    from scipy.integrate import solve_ivp  # takes half a second to import

    targets, start = _problem(singular_values, depth, scale)
    times, alpha, decay = _flow_options(times, outer_scale, weight_decay)
    factors = layer_factors(depth, alpha)
    check_option("tolerance", tolerance, strictly=True)
    weights = np.empty((len(times), depth, len(targets)))
    weights[:] = start
    for component, (target, begin) in enumerate(zip(targets, start.T, strict=True)):
        if not len(times) or times[-1] == 0:
            break

        def slope(_time, w, target=target):
            return -decay * w - factors * (np.prod(w) - target) * _leave_one_out(w)

        # LSODA: the plateau is slow and smooth, the end is stiff, and it changes between methods for the two.
        result = solve_ivp(
            slope, (0, times[-1]), begin, "LSODA", times, rtol=tolerance, atol=tolerance * float(begin.min())
        )
        if not result.success:
            raise ArgumentError(
                f"the flow of component {component} (s = {target:g}) was not integrated to the time {times[-1]:g}: "
                f"{result.message} Pass a larger tolerance than {tolerance:g}.",
                argument="tolerance",
                value=tolerance,
            )
        weights[:, :, component] = result.y.T
    return ReducedTrajectory(times, weights, targets)


def closed_form_flow(
    singular_values: Sequence[float] | np.ndarray,
    depth: int,
    scale: float,
    times: Sequence[float] | np.ndarray,
    outer_scale: float = 1.0,
    weight_decay: float = 0.0,
) -> ReducedTrajectory:
    """`gradient_flow` in closed form, for depth 1 (exponential) and depth 2 (logistic).

    For L = 2 both layers are outer ones and stay equal: with ``q = s - lambda / alpha`` the value w^2 follows
    ``q / (1 + (q / eps^2 - 1) exp(-2 alpha q t))``. Deeper networks have closed forms for the time at which a value is
    reached instead: see `learning_times`.

    Parameters
    ----------
    singular_values, times, outer_scale, weight_decay
        As of `gradient_flow`.
    depth : int, 1 or 2
    scale : float, > 0

    Returns
    -------
    ReducedTrajectory

    Raises
    ------
    ArgumentError
        If an argument is out of range.

    References
    ----------
    .. [1] Saxe, McClelland, Ganguli, ICLR 2014 (arXiv 1312.6120), section 1.
    """
    if depth not in (1, 2):
        raise ArgumentError(
            f"depth={depth!r}, but the flow has a closed form in time only for depths 1 and 2. Use gradient_flow, or "
            "learning_times for the times at which given values are reached.",
            argument="depth",
            value=depth,
            limit=(1, 2),
        )
    targets, _ = _problem(singular_values, depth, check_option("scale", scale, strictly=True))
    times, alpha, decay = _flow_options(times, outer_scale, weight_decay)
    t = times[:, None]
    if depth == 1:
        rate = alpha + decay
        limit = alpha * targets / rate
        weights = limit + (scale - limit) * np.exp(-rate * t)
    else:
        q = targets - decay / alpha
        # (1 - exp(-x)) / x stays finite as q goes to 0, and neither exponential overflows.
        x = 2 * alpha * np.abs(q) * t
        falling = np.exp(-x)
        grown = 2 * alpha * t * np.where(x == 0, 1.0, -np.expm1(-x) / np.where(x == 0, 1.0, x))
        numerator = np.where(q >= 0, 1.0, falling)
        denominator = np.where(q >= 0, falling, 1.0) / scale**2 + grown
        weights = np.sqrt(numerator / denominator)
    return ReducedTrajectory(times, np.repeat(weights[:, None, :], depth, axis=1), targets)


def _leave_one_out(weights: np.ndarray) -> np.ndarray:
    """prod_{k != l} w_k for each l, without a division."""
    below = np.concatenate([[1.0], np.cumprod(weights[:-1])])
    above = np.concatenate([np.cumprod(weights[:0:-1])[::-1], [1.0]])
    return below * above


def _problem(singular_values, depth, scale) -> tuple[np.ndarray, np.ndarray]:
    """Targets (k,) and start (L, k)."""
    depth = positive_integer(depth, "depth")
    targets = checked_values(singular_values)
    scales = np.broadcast_to(np.asarray(scale, float), (depth,)) if np.ndim(scale) == 0 else np.asarray(scale, float)
    if scales.shape != (depth,) or not np.all(np.isfinite(scales)) or np.any(scales <= 0):
        raise ArgumentError(
            f"scale={scale!r}, but it is one finite number above 0, or one for each of the {depth} layers.",
            argument="scale",
            value=scale,
            limit=depth,
        )
    return targets, np.repeat(scales[:, None], len(targets), axis=1)


def _flow_options(times, outer_scale, weight_decay) -> tuple[np.ndarray, float, float]:
    """Times as a float64 vector, alpha and lambda."""
    times = np.asarray(times, float)
    if times.ndim != 1 or not np.all(np.isfinite(times)) or np.any(np.diff(times) < 0) or np.any(times < 0):
        raise ArgumentError("times are finite numbers of at least 0 in ascending order.", argument="times", value=times)
    return times, check_option("outer_scale", outer_scale, strictly=True), check_option("weight_decay", weight_decay)
