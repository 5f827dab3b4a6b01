"""The pipelines: from data to a recovery in one call, with every number chosen that the user did not give."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import scipy.sparse

from dmf.backend import Array, as_array, namespace, number
from dmf.errors import ArgumentError
from dmf.networks import DeepLinearNetwork, balanced_network
from dmf.networks.initialize import check_depth_and_scale
from dmf.observations import FullMatrix, LinearMeasurements, Observations, SampledEntries
from dmf.observations.base import check_rank
from dmf.offsets import Offsets, fit_offsets
from dmf.results import Recovery, Status
from dmf.solvers import Snapshot, gradient_descent, largest_curvature
from dmf.solvers.driver import check_option

Callback = Callable[[Snapshot], Any]

_DEFAULT_RANK = 10
_RECORD_EVERY = 25
_FEWEST_HELD_OUT = 20  # below, an error on held-out measurements says too little to choose by
_OFFSETS_GAIN = 0.9  # offsets are tried if they alone cut the held-out mean square below this share
_SCALE = 1e-2
_ROUGH_SCALE, _ROUGH_ITERATIONS = 1e-1, 2_000  # noisy data are fitted best, and ten times sooner, from a large start
_PREDICTABLE = 0.5  # held-out root-mean-square error, relative to predicting zero, that shows more structure than noise
_LEARNING = 0.99  # of the first loss: below, the first component is being learned
_RETRIES = 5  # of a diverging descent, each with half the step


def complete(
    data: Any,
    rank: int | None = None,
    *,
    depth: int = 3,
    scale: float | None = None,
    outer_scale: float = 5.0,
    step_size: float | None = None,
    iterations: int = 20_000,
    offsets: bool | str = "auto",
    validation: float = 0.1,
    seed: int = 0,
    callback: Callback | None = None,
) -> Recovery:
    """Complete a matrix from some of its entries.

    A compressed deep network is trained from the spectral start. A share of the entries is held out first: it shows when
    to stop and whether row and column offsets help; then the model is fitted again to all entries.

    Parameters
    ----------
    data : SampledEntries, array of shape (d1, d2), or SciPy sparse matrix
        NaN in an array marks a missing entry; the stored entries of a sparse matrix are the observed ones, zeros included.
    rank : int, 1 <= rank <= min(d1, d2), optional
        Upper bound on the rank; min(10, d1, d2) unless given.
    depth : int, >= 1
        Number of layers.
    scale : float, > 0, optional
        Scale of the layers at the start, relative to ``s_1^(1/depth)``, s_1 the largest singular value expected. Unless
        given, 0.1 is tried first, then 0.01 if the held-out entries are predicted well; the better one is taken.
    outer_scale : float, > 0
        Discrepant learning rate of the first and the last layer.
    step_size : float, > 0, optional
        Unless given, 1 over the largest curvature expected at the solution.
    iterations : int, >= 0
        Budget of each fit: one or two with entries held out, one with all.
    offsets : bool or "auto"
        Whether global mean, row and column offsets are part of the model; "auto": if they alone predict the held-out entries
        at least 10 % better (in mean square) than zero does.
    validation : float, 0 <= validation < 1
        Share of the entries held out to make these choices; 0: train to convergence, without offsets unless asked for.
    seed : int
        Seed of the split and of the randomised singular value decomposition.
    callback : callable, optional
        Called with a `Snapshot` every 25 iterations; may raise StopIteration to end the fit under way.

    Returns
    -------
    Recovery
        ``filled()`` gives the matrix with the observed entries kept; ``options`` says what was chosen, and the root-mean-square
        error on the held-out entries ("validation_rmse"), by which it was chosen.

    Raises
    ------
    RankError, ArgumentError, ShapeError, DTypeError, ObservationError
        If an argument is out of range or the data cannot be used.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), section 3.
    """
    if not (isinstance(offsets, bool) or offsets == "auto"):
        raise ArgumentError(
            f'offsets={offsets!r}, but it is True, False or "auto".',
            argument="offsets",
            value=offsets,
            limit=(True, False, "auto"),
        )
    plan = _Plan.checked(rank, depth, scale, outer_scale, step_size, iterations, validation, seed, callback)
    return _recover(_entries(data), plan, offsets)


def factorize(
    matrix: Any,
    rank: int | None = None,
    *,
    depth: int = 3,
    scale: float | None = None,
    outer_scale: float = 1.0,
    step_size: float | None = None,
    iterations: int = 20_000,
    seed: int = 0,
    callback: Callback | None = None,
) -> Recovery:
    """Approximate a fully known matrix by one of low rank, with a compressed deep network.

    Parameters
    ----------
    matrix : array, shape (d1, d2), or FullMatrix
    rank, depth, scale, outer_scale, step_size, iterations, seed, callback
        As in `complete`.

    Returns
    -------
    Recovery
        ``product()`` gives the approximation.

    Raises
    ------
    RankError, ArgumentError, ShapeError, DTypeError, ObservationError
        If an argument is out of range or the matrix cannot be used.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), section 3.
    """
    observations = matrix if isinstance(matrix, FullMatrix) else FullMatrix(matrix)
    plan = _Plan.checked(rank, depth, scale, outer_scale, step_size, iterations, 0.0, seed, callback)
    return _recover(observations, plan, False)


def sense(
    operator: Any,
    values: Array = None,
    rank: int | None = None,
    *,
    shape: tuple[int, int] | None = None,
    depth: int = 3,
    scale: float | None = None,
    outer_scale: float = 1.0,
    step_size: float | None = None,
    iterations: int = 20_000,
    validation: float = 0.0,
    seed: int = 0,
    callback: Callback | None = None,
) -> Recovery:
    """Recover a matrix from linear measurements ``y_i = <A_i, X>``.

    Parameters
    ----------
    operator : array of shape (m, d1, d2), object with ``forward`` and ``adjoint``, or LinearMeasurements
        See `LinearMeasurements`; if it is one, `values` and `shape` are not needed.
    values : array, shape (m,)
        The measurements y.
    shape : (int, int), optional
        (d1, d2); needed only for an operator without an attribute ``shape``, and must agree where both are given.
    validation : float, 0 <= validation < 1
        Share of the measurements held out to show when to stop; worth it if they are noisy.
    rank, depth, scale, outer_scale, step_size, iterations, seed, callback
        As in `complete`.

    Returns
    -------
    Recovery
        ``product()`` gives the matrix.

    Raises
    ------
    RankError, ArgumentError, ShapeError, DTypeError, BackendError, ObservationError
        If an argument is out of range or the measurements cannot be used.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), section 3.
    """
    plan = _Plan.checked(rank, depth, scale, outer_scale, step_size, iterations, validation, seed, callback)
    if isinstance(operator, LinearMeasurements):
        return _recover(operator, plan, False)
    return _recover(LinearMeasurements(operator, values, shape), plan, False)


@dataclass(frozen=True)
class _Plan:
    """The options that all pipelines share."""

    rank: int | None
    depth: int
    scale: float | None
    outer_scale: float
    step_size: float | None
    iterations: int
    validation: float
    seed: int
    callback: Callback | None

    @classmethod
    def checked(cls, *options: Any) -> _Plan:
        plan = cls(*options)
        check_depth_and_scale(plan.depth, _SCALE if plan.scale is None else plan.scale)
        check_option("outer_scale", plan.outer_scale, strictly=True)
        if plan.step_size is not None:
            check_option("step_size", plan.step_size, strictly=True)
        check_option("iterations", plan.iterations, whole=True)
        check_option("seed", plan.seed, whole=True)
        if not 0 <= plan.validation < 1:
            raise ArgumentError(
                f"validation={plan.validation!r}, but the held-out share is at least 0 and below 1. Pass 0 to hold nothing "
                "out.",
                argument="validation",
                value=plan.validation,
                limit=(0, 1),
            )
        return plan


def _entries(data: Any) -> SampledEntries:
    if isinstance(data, SampledEntries):
        return data
    if scipy.sparse.issparse(data):
        return SampledEntries.from_sparse(data)
    return SampledEntries.from_dense(as_array(data, "data"))


def _recover(observations: Observations, plan: _Plan, offsets: bool | str) -> Recovery:
    plan = replace(
        plan,
        rank=min(_DEFAULT_RANK, *observations.shape)
        if plan.rank is None
        else check_rank(plan.rank, observations.shape),
    )
    if plan.validation * observations.n_measurements < _FEWEST_HELD_OUT:
        fit = _fit(observations, plan, fit_offsets(observations) if offsets is True else None, "fit")
        return replace(fit.recovery, options=_report(fit, {}))
    kept, held = observations.split(plan.validation, plan.seed)
    fitted = _choose_offsets(kept, held, offsets)
    fits: list[_Fit] = []
    for step in _steps(plan):
        fits.append(_fit(kept, step, fitted, "choose", held))
        if fits[-1].failed or not fits[-1].predictable:
            break
    chosen = min(fits, key=lambda fit: fit.validation_rmse)
    validation = {"validation_rmse": chosen.validation_rmse, "n_validation": held.n_measurements}
    if fits[-1].failed:
        return replace(fits[-1].recovery, options=_report(fits[-1], validation))
    final = _fit(
        observations,
        replace(plan, step_size=chosen.step_size, iterations=chosen.iterations, scale=chosen.scale),
        None if fitted is None else fit_offsets(observations),
        "fit",
    )
    recovery = final.recovery
    if recovery.status.reason == "budget spent" and chosen.turned:
        recovery = replace(
            recovery,
            status=Status(
                "converged",
                f"fitted to all measurements for {chosen.iterations} iterations, after which the error on the held-out "
                f"ones was lowest ({chosen.validation_rmse:.4g} root-mean-square).",
            ),
        )
    return replace(recovery, options=_report(final, validation))


def _choose_offsets(kept: Observations, held: Observations, offsets: bool | str) -> Offsets | None:
    """Offsets if asked for, or if they alone predict the held-out measurements to some extent."""
    if offsets is False:
        return None
    fitted = fit_offsets(kept)
    alone = 2 * number(held.loss(*fitted.factors())) / held.n_measurements
    return fitted if offsets is True or alone < _OFFSETS_GAIN * _mean_square(held) else None


def _steps(plan: _Plan) -> list[_Plan]:
    """Fits to try in turn: from a large start quickly, then from a small one, which learns components more separately."""
    if plan.scale is not None:
        return [plan]
    rough = replace(plan, scale=_ROUGH_SCALE, iterations=min(plan.iterations, _ROUGH_ITERATIONS))
    return [rough, replace(plan, scale=_SCALE)]


@dataclass(frozen=True)
class _Fit:
    recovery: Recovery
    step_size: float
    validation_rmse: float  # lowest one; NaN without held-out measurements
    iterations: int  # at the lowest one, or the budget if the error was still falling
    turned: bool  # whether the held-out error had a minimum before the end
    scale: float
    predictable: bool  # most of the held-out measurements' square is predicted: more structure than noise

    @property
    def failed(self) -> bool:
        return self.recovery.status.reason in ("interrupted", "diverged")


def _report(fit: _Fit, more: dict[str, Any]) -> dict[str, Any]:
    return fit.recovery.options | {"step_size": fit.step_size, "offsets": fit.recovery.offsets is not None} | more


def _fit(
    observations: Observations, plan: _Plan, offsets: Offsets | None, phase: str, held: Observations | None = None
) -> _Fit:
    """One descent from the spectral start to convergence, or until the error on `held` has been rising for long."""
    target, held_target = observations, held
    if offsets is not None:
        target = _without(observations, offsets)
        held_target = None if held is None else _without(held, offsets)
    assert plan.rank is not None  # set by _recover
    scale = _SCALE if plan.scale is None else plan.scale
    u, s, vt = target.surrogate_svd(plan.rank, plan.seed)
    size = max(number(s[0]), float(namespace(s).finfo(s.dtype).smallest_normal) ** 0.25)
    start = balanced_network(u, 0 * s + size * scale**plan.depth, vt, plan.depth)
    step_size = plan.step_size
    if step_size is None:
        solution = balanced_network(u, s + 1e-3 * size, vt, plan.depth)
        curvature = largest_curvature(target, solution, plan.outer_scale, seed=plan.seed)
        step_size = 1 / curvature if curvature > 0 else 1.0
    relative = 1e-8 if "64" in str(target.dtype) else 1e-5
    for _ in range(_RETRIES if plan.step_size is None else 1):
        monitor = _Monitor(held_target, plan.callback, phase, relative / 10)
        recovery = gradient_descent(
            target,
            start,
            step_size,
            plan.outer_scale,
            iterations=plan.iterations,
            tolerance=relative**2 * _mean_square(target) / 2,
            record_every=_RECORD_EVERY,
            callback=monitor,
        )
        if recovery.status.reason != "diverged":
            break
        step_size /= 2
    spent = int(recovery.history.iteration[-1])
    options: dict[str, Any] = {"solver": "gradient descent", "rank": plan.rank, "depth": plan.depth, "scale": scale}
    options |= {"outer_scale": plan.outer_scale, "seed": plan.seed, "iterations": spent}
    status = recovery.status
    if monitor.settled:
        status = Status("converged", f"the weights stopped moving at iteration {spent}.")
    recovery = replace(recovery, offsets=offsets, observations=observations, options=options, status=status)
    turned = monitor.best_iteration < spent
    return _Fit(
        recovery,
        step_size,
        math.sqrt(monitor.best) if held is not None else math.nan,
        monitor.best_iteration if turned else plan.iterations,
        turned,
        scale,
        held_target is not None and monitor.best < _PREDICTABLE**2 * _mean_square(held_target),
    )


def _mean_square(observations: Observations) -> float:
    """Mean square error of predicting zero."""
    xp = namespace(observations.values)
    return number(xp.sum(observations.values**2)) / observations.n_measurements


def _without(observations: Observations, offsets: Offsets) -> Observations:
    return observations.with_values(observations.values - observations.predict(*offsets.factors()))


class _Monitor:
    """Callback that measures the held-out error and ends the descent when it has risen for long, or nothing moves."""

    def __init__(self, held: Observations | None, callback: Callback | None, phase: str, still: float) -> None:
        self._held, self._callback, self._phase, self._still = held, callback, phase, still
        self.best, self.best_iteration, self.settled = math.inf, 0, False
        self._last: DeepLinearNetwork | None = None
        self._first_loss = math.inf

    def __call__(self, snapshot: Snapshot) -> dict[str, float]:
        snapshot.phase = self._phase
        measured = {}
        network = snapshot.network
        if snapshot.iteration == 0:
            self._first_loss = snapshot.loss
        learning = snapshot.loss < _LEARNING * self._first_loss  # before, nothing says when to stop
        if self._held is not None:
            square = 2 * number(self._held.loss(*network.factors())) / self._held.n_measurements
            measured["validation_rmse"] = math.sqrt(square)
            if square < self.best:
                self.best, self.best_iteration = square, snapshot.iteration
            elif learning and snapshot.iteration > 1.5 * self.best_iteration + 20 * _RECORD_EVERY:
                raise StopIteration(f"the held-out error was lowest at iteration {self.best_iteration}")
        if self._callback is not None:
            measured |= dict(self._callback(snapshot) or {})
        if self._last is not None and learning and snapshot.iteration % _RECORD_EVERY == 0:
            self.settled = _movement(self._last, network) <= self._still * _RECORD_EVERY
            if self.settled:
                raise StopIteration("the weights stopped moving")
        self._last = network
        return measured


def _movement(before: DeepLinearNetwork, after: DeepLinearNetwork) -> float:
    """Change of all weights between two networks, relative to their size."""
    xp = namespace(after.weights[0])
    change = sum(number(xp.sum((a - b) ** 2)) for a, b in zip(after.weights, before.weights, strict=True))
    size = sum(number(xp.sum(a**2)) for a in after.weights)
    return math.sqrt(change / size)
