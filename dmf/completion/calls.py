"""The pipelines: from data to a recovery in one call, with every number chosen that the user did not give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dmf.arrays.backend import Array, namespace, number, on_device_of
from dmf.arrays.checks import check_bounds, check_option, positive_integer
from dmf.arrays.linalg import dense_svd
from dmf.completion.occupied import OccupiedPart, occupied_part, short_of
from dmf.completion.phases import Plan
from dmf.completion.placement import better_on_host, from_host
from dmf.completion.strategy import sees_noise, solve, solve_with_offsets
from dmf.completion.visible_rank import visible_rank
from dmf.errors import ArgumentError, ObservationError
from dmf.models.initialize import balanced_network
from dmf.models.offsets import fit_offsets
from dmf.observations import Entries, FullMatrix, LinearMeasurements, Observations
from dmf.observations.checks import check_rank, check_scale
from dmf.observations.conversion import as_entries
from dmf.recovery.intervals import calibrate, judged_as
from dmf.recovery.results import History, Recovery, Status
from dmf.solvers.loop import Callback

_HELD_OUT = 0.1  # share of the entries that decides whether there are offsets
_FEWEST_HELD_OUT = 20  # fewer say too little to choose by, and further ones are held out in their place
_OFFSETS_GAIN = 0.9  # offsets are taken if they alone cut the held-out mean square below this share
_ROUNDS = 2  # of fitting them for that
_FEW = 5_000  # entries, of which an exact fit is looked for even if noise is seen: it takes no time, and so few may mislead
_ITERATIONS = 10_000
_ENDED = ("converged", "budget spent")  # reasons of a run that nobody and nothing broke off


def complete(
    data: Any,
    rank: int | None = None,
    *,
    depth: int = 3,
    weights: Any = None,
    offsets: bool | str = "auto",
    holdout: float = 0.0,
    bounds: tuple[float, float] | None = None,
    iterations: int = _ITERATIONS,
    seed: int = 0,
    callback: Callback | None = None,
) -> Recovery:
    """Complete a matrix from some of its entries.

    Neither the rank nor the noise level need be known. If a matrix of low rank fits all entries, it is found to machine
    precision, down to a sampling close to the information limit; if the entries are noisy, the posterior mean of variational
    Bayes is returned, with the noise level and the rank that the data support.

    Parameters
    ----------
    data : SampledEntries, array of shape (d1, d2), or sparse matrix of SciPy or CuPy
        NaN in an array marks a missing entry; the stored entries of a sparse matrix are the observed ones, zeros included.
        On a CUDA device, fewer than 20,000 entries are completed on the host, which is faster, and the result comes back there.
    rank : int, 1 <= rank <= min(d1, d2), optional
        Upper bound on the rank; found from the data unless given.
    depth : int, >= 1
        Number of layers of the network that is returned.
    weights : array or SciPy sparse matrix, shape (d1, d2), optional
        How much an entry counts: the noise variance of an entry is that of the model over its weight; see
        `SampledEntries`, which have weights of their own. Looked at where `data` are observed.
    offsets : bool or "auto"
        Whether global mean, row and column offsets are part of the model, fitted together with the factors, and with priors
        that depend on which entries were observed (see `dmf.solvers.hierarchical`); "auto": if the data are noisy and, on a
        tenth of the entries that is held out to decide this (another and another, where these are few), offsets alone
        predict at least 10 % better (in mean square) than zero.
    holdout : float, 0 <= holdout < 1
        Share of the entries that a first fit does not see. Its errors on these are the honest ones, and `prediction_interval`
        follows from them; then all entries are fitted. The errors are those of the first fit: the recovery knows
        more, and is at least as good in all but accidents. 0: one fit, no errors.
    bounds : (float, float), optional
        Least and largest value of a prediction, such as (1, 5) for ratings, either may be infinite. The fit knows nothing of
        them; observed entries are kept even if they lie outside.
    iterations : int, >= 0
        Most iterations of all solvers together, for each of the fits.
    seed : int
        Seed of the split and of the randomised singular value decomposition.
    callback : callable, optional
        Called with a `Snapshot` at every iteration; may raise StopIteration to end the whole.

    Returns
    -------
    Recovery
        ``filled()`` gives the matrix with the observed entries kept. ``options`` says what was found: "rank", "noise"
        (standard deviation, of an entry of weight 1; 0 where the recovery is exact), "exact" and "offsets"; with `holdout`
        also what `calibrate` adds. If a fit is interrupted, or its callback ends it, none follows: the first one's recovery
        is returned.

    Raises
    ------
    RankError, ArgumentError, ShapeError, DTypeError, ObservationError
        If an argument is out of range or the data cannot be used.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), section 3 (the network and its start).
    .. [2] Lim, Teh, KDD Cup 2007 (variational Bayes for factor models).
    """
    if not (isinstance(offsets, bool) or offsets == "auto"):
        raise ArgumentError(
            f'offsets={offsets!r}, but it is True, False or "auto".',
            argument="offsets",
            value=offsets,
            limit=(True, False, "auto"),
        )
    observations, bounds = as_entries(data, weights), check_bounds(bounds)
    if better_on_host(observations):
        return from_host(
            complete, observations, callback, rank=rank, depth=depth, offsets=offsets, holdout=holdout, bounds=bounds,
            iterations=iterations, seed=seed,
        )  # fmt: skip
    plan = _plan(observations, rank, depth, iterations, seed, callback)
    if check_option("holdout", holdout) == 0:
        return replace(_completed(observations, plan, offsets), bounds=bounds)
    kept, held = observations.split(holdout, plan.seed)
    judged = calibrate(replace(_completed(kept, plan, offsets), bounds=bounds), held)
    judged = replace(judged, observations=observations)
    if judged.status.reason not in _ENDED:
        return judged
    whole = _completed(observations, plan, offsets)
    if whole.status.reason not in _ENDED:
        return replace(judged, status=whole.status)
    return replace(judged_as(judged, whole), bounds=bounds)


def _completed(observations: Entries, plan: Plan, offsets: bool | str) -> Recovery:
    """One fit to all of these entries; rows and columns without any take no part in it."""
    part = occupied_part(observations)
    if part is None:
        return _with_gaps_told(_fitted(observations, plan, offsets), observations)
    bound = None if plan.rank is None else min(plan.rank, *part.observations.shape)
    recovery = _fitted(part.observations, replace(plan, rank=bound, callback=_of_all(part, plan.callback)), offsets)
    recovery = replace(
        recovery,
        network=part.widened(recovery.network),
        offsets=None if recovery.offsets is None else part.widened_offsets(recovery.offsets),
        observations=observations,
        options=recovery.options | {"rank_bound": plan.rank},
    )
    return _with_gaps_told(recovery, observations)


def _of_all(part: OccupiedPart, callback: Callback | None) -> Callback | None:
    """The callback, which is to see networks of the whole matrix, for networks of a part."""
    return callback and (lambda snapshot: callback(snapshot.with_network(part.widened)))


def _with_gaps_told(recovery: Recovery, observations: Entries) -> Recovery:
    """With a word on the rows and columns that an exact recovery does not determine."""
    if not recovery.options["exact"]:
        return recovery
    short = zip(short_of(observations, recovery.options["rank"]), ("rows", "columns"), strict=True)
    lines = " and ".join(f"{count:,} {kind}" for count, kind in short if count)
    if not lines:
        return recovery
    told = f"{recovery.status.advice} Of {lines} fewer entries are seen than the rank: the others there are one of many fits."
    return replace(recovery, status=replace(recovery.status, advice=told))


def _fitted(observations: Entries, plan: Plan, offsets: bool | str) -> Recovery:
    if offsets is True:
        return _reported(solve_with_offsets(observations, plan), observations)
    if offsets is False or not _offsets_help(observations, plan.seed):
        return _reported(solve(observations, plan), observations)
    found = _reported(solve_with_offsets(observations, plan), observations)
    known = sees_noise(found) and observations.n_measurements > _FEW
    if found.status.reason != "diverged" and (found.status.reason != "converged" or known):
        return found
    spent = found.options["iterations"]
    exact = _reported(solve(observations, replace(plan, iterations=plan.iterations - spent)), observations)
    better = exact.options["exact"] or exact.status.reason in ("interrupted", "stopped")
    chosen = exact if better or found.status.reason == "diverged" else found
    return replace(chosen, options=chosen.options | {"iterations": spent + exact.options["iterations"]})


def factorize(matrix: Any, rank: int | None = None, *, depth: int = 3, seed: int = 0) -> Recovery:
    """Approximate a fully known matrix by one of low rank: its truncated singular value decomposition.

    No network has to be trained for that: descent on the compressed network ends there (Kwon et al. 2024, appendix), and
    `dmf.theory.reduced_dynamics` gives its path.

    Parameters
    ----------
    matrix : array, shape (d1, d2), or FullMatrix
    rank : int, 1 <= rank <= min(d1, d2), optional
        Rank of the approximation; unless given, the number of singular values that stand out of noise, see
        `dmf.completion.visible_rank.visible_rank`.
    depth : int, >= 1
        Number of layers of the network that is returned.
    seed : int
        Seed of the randomised singular value decomposition of large matrices.

    Returns
    -------
    Recovery
        ``product()`` gives the approximation, of all matrices of this rank the closest in the Frobenius norm.

    Raises
    ------
    RankError, ArgumentError, ShapeError, DTypeError, ObservationError
        If an argument is out of range or the matrix cannot be used.
    """
    observations = matrix if isinstance(matrix, FullMatrix) else FullMatrix(matrix)
    plan = _plan(observations, rank, depth, 0, seed, None)
    xp = namespace(observations.matrix)
    most = min(observations.shape)
    u, s, vt = dense_svd(observations.matrix, most if rank is None else rank, seed)
    found, noise = visible_rank(s, observations.shape) if rank is None else (rank, None)
    kept = max(found, 1)
    network = balanced_network(u[:, :kept], s[:kept] if found else 0 * s[:1], vt[:kept, :], depth)
    residual = observations.loss(*network.factors())
    if noise is None:
        noise = (2 * number(residual) / observations.n_measurements) ** 0.5
    size = observations.mean_square * observations.n_measurements
    relative = (2 * number(residual) / size) ** 0.5 if size > 0 else 0.0
    exact = relative <= float(xp.finfo(observations.dtype).eps) ** (2 / 3)
    history = History({"iteration": [0], "loss": [number(residual) / observations.n_measurements], "seconds": [0.0]})
    options = {"rank": found, "rank_bound": rank, "noise": 0.0 if exact else noise, "exact": exact}
    options |= {"depth": plan.depth, "seed": seed, "iterations": 0, "phases": []}
    status = Status("converged", f"rank {found}; relative error {relative:.3g}, the least possible.")
    return _reported(Recovery(network, history, status, options=options), observations)


def sense(
    operator: Any,
    values: Array = None,
    rank: int | None = None,
    *,
    shape: tuple[int, int] | None = None,
    depth: int = 3,
    iterations: int = _ITERATIONS,
    seed: int = 0,
    callback: Callback | None = None,
) -> Recovery:
    """Recover a matrix from linear measurements ``y_i = <A_i, X>``.

    Parameters
    ----------
    operator : array of shape (m, d1, d2), linear operator, or Observations
        What `LinearMeasurements` takes; if it is an `Observations` object, such as `RankOneMeasurements`, `values` and `shape`
        are not needed.
    values : array, shape (m,)
        The measurements y.
    shape : (int, int), optional
        (d1, d2); needed only for an operator without an attribute ``shape``, and must agree where both are given.
    rank, depth, iterations, seed, callback
        As in `complete`.

    Returns
    -------
    Recovery
        ``product()`` gives the matrix; ``options`` as in `complete`.

    Raises
    ------
    RankError, ArgumentError, ShapeError, DTypeError, BackendError, ObservationError
        If an argument is out of range or the measurements cannot be used.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), section 3 (the network and its start).
    """
    observations = operator if isinstance(operator, Observations) else LinearMeasurements(operator, values, shape)
    plan = _plan(observations, rank, depth, iterations, seed, callback)
    return _reported(solve(observations, plan), observations)


def solve_on(device: str, solve: Callable[..., Recovery], observations: Observations, **options: Any) -> Recovery:
    """Recovery in NumPy arrays from observations in NumPy arrays, computed on a device.

    Parameters
    ----------
    device : str
        "cpu", "cuda" or "cuda:N".
    solve : callable
        `complete`, `factorize` or `sense`.
    observations : Observations
    **options
        Of `solve`.

    Raises
    ------
    ArgumentError, MissingPackageError, BackendError
        If there is no such device, CuPy is missing, or an operator cannot be moved; and what `solve` raises.
    """
    moved = observations.to_device(device)
    with on_device_of(moved.values):
        return solve(moved, **options).to_device("cpu")


def _plan(observations, rank, depth, iterations, seed, callback) -> Plan:
    """The checked choices of the user, for data that can be computed with."""
    check_scale(observations)
    return Plan(
        None if rank is None else check_rank(rank, observations.shape),
        positive_integer(depth, "depth"),
        int(check_option("iterations", iterations, least=0, whole=True)),
        int(check_option("seed", seed, whole=True)),
        callback,
    )


def _offsets_help(observations: Entries, seed: int) -> bool:
    """Whether offsets alone predict held-out entries to some extent."""
    alone = nothing = held_out = 0.0
    while held_out < _FEWEST_HELD_OUT:
        try:
            kept, held = observations.split(_HELD_OUT, seed)
        except ObservationError:  # all are of one entry
            return False
        alone += 2 * number(held.loss(*fit_offsets(kept, _ROUNDS).factors()))
        nothing += held.mean_square * held.n_measurements
        held_out, seed = held_out + held.n_measurements, seed + 1
    return alone < _OFFSETS_GAIN * nothing


def _reported(recovery: Recovery, observations: Observations) -> Recovery:
    options = recovery.options | {"offsets": recovery.offsets is not None}
    return replace(recovery, observations=observations, options=options)
