"""The pipelines: from data to a recovery in one call, with every number chosen that the user did not give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import scipy.sparse

from dmf.backend import Array, as_array, number
from dmf.errors import ArgumentError
from dmf.fit import SCALE, Callback, Fit, Plan, fit, mean_square
from dmf.observations import FullMatrix, LinearMeasurements, Observations, SampledEntries
from dmf.observations.base import check_rank
from dmf.offsets import Offsets, fit_offsets
from dmf.results import Recovery, Status

_DEFAULT_RANK = 10
_FEWEST_HELD_OUT = 20  # below, an error on held-out measurements says too little to choose by
_OFFSETS_GAIN = 0.9  # offsets are taken if they alone cut the held-out mean square below this share
_ROUGH_SCALE, _ROUGH_ITERATIONS = 2e-1, 2_000  # noisy data are fitted best, and ten times sooner, from a large start


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
        given, 0.2 is tried first, then 0.01 if the held-out entries are predicted well; the better one is taken.
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
        Called with a `Snapshot` every 5 iterations; may raise StopIteration to end the fit under way.

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
    plan = Plan.checked(rank, depth, scale, outer_scale, step_size, iterations, validation, seed, callback)
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
    plan = Plan.checked(rank, depth, scale, outer_scale, step_size, iterations, 0.0, seed, callback)
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
    plan = Plan.checked(rank, depth, scale, outer_scale, step_size, iterations, validation, seed, callback)
    if isinstance(operator, LinearMeasurements):
        return _recover(operator, plan, False)
    return _recover(LinearMeasurements(operator, values, shape), plan, False)


def _entries(data: Any) -> SampledEntries:
    if isinstance(data, SampledEntries):
        return data
    if scipy.sparse.issparse(data):
        return SampledEntries.from_sparse(data)
    return SampledEntries.from_dense(as_array(data, "data"))


def _recover(observations: Observations, plan: Plan, offsets: bool | str) -> Recovery:
    plan = replace(
        plan,
        rank=min(_DEFAULT_RANK, *observations.shape)
        if plan.rank is None
        else check_rank(plan.rank, observations.shape),
    )
    if plan.validation * observations.n_measurements < _FEWEST_HELD_OUT:
        single = fit(observations, plan, fit_offsets(observations) if offsets is True else None, "fit")
        return replace(single.recovery, options=_report(single, {}))
    kept, held = observations.split(plan.validation, plan.seed)
    fitted = _choose_offsets(kept, held, offsets)
    fits: list[Fit] = []
    for step in _steps(plan):
        fits.append(fit(kept, step, fitted, "choose", held))
        if fits[-1].failed or not fits[-1].predictable:
            break
    chosen = min(fits, key=lambda tried: tried.validation_rmse)
    validation = {"validation_rmse": chosen.validation_rmse, "n_validation": held.n_measurements}
    if fits[-1].failed:
        return replace(fits[-1].recovery, options=_report(fits[-1], validation))
    iterations = chosen.iterations if chosen.turned else plan.iterations
    final = fit(
        observations,
        replace(plan, step_size=chosen.step_size, iterations=iterations, scale=chosen.scale),
        None if fitted is None else fit_offsets(observations),
        "fit",
    )
    recovery = final.recovery
    if recovery.status.reason == "budget spent" and chosen.turned:
        recovery = replace(
            recovery,
            status=Status(
                "converged",
                f"fitted to all measurements for {iterations} iterations, after which the error on the held-out "
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
    return fitted if offsets is True or alone < _OFFSETS_GAIN * mean_square(held) else None


def _steps(plan: Plan) -> list[Plan]:
    """Fits to try in turn: from a large start quickly, then from a small one, which learns components more separately."""
    if plan.scale is not None:
        return [plan]
    rough = replace(plan, scale=_ROUGH_SCALE, iterations=min(plan.iterations, _ROUGH_ITERATIONS))
    return [rough, replace(plan, scale=SCALE)]


def _report(done: Fit, more: dict[str, Any]) -> dict[str, Any]:
    return done.recovery.options | {"step_size": done.step_size, "offsets": done.recovery.offsets is not None} | more
