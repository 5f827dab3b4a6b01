"""From data to a recovery in one call: `complete`, `sense`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from dmf.arrays.backend import Array, namespace, number, on_device_of, real_dtype
from dmf.arrays.checks import check_bounds, check_choice, check_kind, check_option
from dmf.arrays.linalg import factored_svd
from dmf.completion.clipping import range_of_clipped
from dmf.completion.determined import judged, symmetrised
from dmf.completion.drift import with_drift
from dmf.completion.features import with_features, with_priors
from dmf.completion.fit import FINAL, HOLD_OUT, Journal, fit
from dmf.completion.implicit import complete_implicit, without_values
from dmf.completion.offsets import Rest, with_exact_offsets, without_dominant_offsets
from dmf.completion.outliers import without_outliers
from dmf.completion.placement import better_on_host, solved_on_host
from dmf.completion.state import epsilon_of, rounding_of
from dmf.completion.submatrix import occupied_part
from dmf.errors import ArgumentError
from dmf.models import LowRank
from dmf.observations import Entries, LinearMeasurements, Observations, SampledEntries
from dmf.observations.checks import check_rank, check_scale
from dmf.observations.conversion import as_entries
from dmf.recovery.intervals import calibrate
from dmf.recovery.priors import expected_outside
from dmf.recovery.results import Recovery
from dmf.recovery.values import UNITS_OF_ROUNDING, Plan
from dmf.solvers.checkpoints import Checkpoint, CheckpointLike, data_fingerprint
from dmf.solvers.loop import Callback
from dmf.solvers.outcomes import Outcome

_OFFSETS_GAIN = 0.9  # offsets are taken if they alone cut the held-out mean square below this share
_DISAGREEMENT = 10.0  # distance of two fits, over the error on held-out entries, that this error does not explain
_ITERATIONS = 10_000


def complete(
    data: Any,
    rank: int | None = None,
    *,
    feedback: str = "explicit",
    weights: Any = None,
    time: Any = None,
    row_features: Any = None,
    column_features: Any = None,
    offsets: bool | str = "auto",
    holdout: float = 0.0,
    bounds: tuple[float, float] | None = None,
    outliers: bool = False,
    iterations: int = _ITERATIONS,
    seed: int = 0,
    callback: Callback | None = None,
    checkpoint: CheckpointLike | None = None,
    resume: bool = False,
) -> Recovery:
    """Complete a matrix from some of its entries.

    Neither the rank nor the noise level need be known. If a matrix of low rank fits all entries, it is found to machine
    precision, down to a sampling close to the information limit; if the entries are noisy, the posterior mean of variational
    Bayes is returned, with the noise level and the rank that the data support.

    Parameters
    ----------
    data : SampledEntries, array or data frame of shape (d1, d2), xarray DataArray, or sparse matrix of SciPy or CuPy
        NaN, None and masked entries are missing; columns of dates are left aside. For long data frames see
        `SampledEntries.from_frame`. The stored entries of a sparse matrix are the observed ones, zeros included.
        On a CUDA device, fewer than 20,000 entries are completed on the host, which is faster, and the result comes back there.
    rank : int, 1 <= rank <= min(d1, d2), optional
        Upper bound on the rank; found from the data unless given.
    feedback : {"explicit", "implicit"}
        "implicit": the entries count how often a row chose a column (clicks, plays, purchases; repeated entries add up), and
        cells that are not there are zeros that count, too, with less weight. The factors then rank the columns of each row (see
        `dmf.recovery.ranking`) in place of predicting entries. Rank, weights and penalty are those that rank a tenth of the
        counts best, which trial fits do not see (of at most 500,000, in rows drawn at random); ``weighting`` holds them.
        `weights`, `bounds` and offsets have no part in it.
    weights : array, data frame or SciPy sparse matrix, shape (d1, d2), optional
        How much an entry counts: the noise variance of an entry is that of the model over its weight; see
        `SampledEntries`, which have weights of their own. Looked at where `data` are observed.
    time : array, data frame or SciPy sparse matrix, shape (d1, d2), optional
        When an entry was observed: numbers of any unit, or datetimes; see `SampledEntries`, which have times of their own. Rows
        and columns whose values rise and fall with time (see `dmf.models.drift`) then do so in the model: ``drift`` holds how,
        and ``predict(rows, cols, times)`` adds it. It is left out where held-out entries are not predicted better, or without
        noise. Values are not taken for clipped then. A fit takes two to three times as long, to millions of entries eight times.
    row_features, column_features : array (d1, p) and (d2, q), data frame or dict, optional
        What is known of rows and of columns besides entries: numbers, or texts for categories ("a|b": both). They shift the prior
        means of factors and offsets as far as the entries say; what tells nothing is switched off. Of rows and columns without
        entries, and of `new_rows`, they say what to expect. Frames (by their index, or first column) and dicts are matched by id,
        arrays by position; what is missing may be left out or NaN. They belong to the model with offsets.
    offsets : bool or "auto"
        Whether global mean, row and column offsets are part of the model, fitted together with the factors, and with priors
        that depend on which entries were observed (see `dmf.solvers.hierarchical`); "auto": if the data are noisy and, on a
        tenth of the entries that is held out to decide this (another and another, where these are few), offsets alone
        predict at least 10 % better (in mean square) than zero. Unless False, offsets beside which all else is as small as
        rounding errors are, such as those of times in milliseconds since 1970, are fitted first, and the rest on its own.
    holdout : float, 0 <= holdout < 1
        Share of the entries that a first fit does not see. Its errors on these are the honest ones, and `prediction_interval`
        follows from them; then all entries are fitted. The errors are those of the first fit: the recovery knows
        more, and is at least as good in all but accidents. 0: one fit, no errors. Of implicit feedback ``ranking`` holds how
        the first fit ranks them.
    bounds : (float, float), optional
        Least and largest value of a prediction, such as (1, 5) for ratings, either may be infinite. The fit knows nothing of
        them; observed entries are kept even if they lie outside. Unless given: where measured values, all different, pile up at
        an end of their range, a model with offsets takes them for clipped there if held-out entries speak for it
        (``found.clipped``), and predicts what would be recorded.
    outliers : bool
        Whether some entries may be corrupted, by anything. These are found first and left out of all that follows, of the
        held-out errors, too; ``recovery.outliers`` tells them, and ``filled()`` says what the matrix should be there. Up to about
        a tenth of the entries are found with twice as many entries as degrees of freedom, more where these are more.
    iterations : int, >= 0
        Most iterations of all solvers together, for each of the fits.
    seed : int
        Seed of the split and of the randomised singular value decomposition.
    callback : callable, optional
        Called with a `Snapshot` at every iteration; may raise StopIteration to end the whole.
    checkpoint : path or Checkpoint, optional
        Where all fits are kept every minute, at the end of each stage and on Ctrl-C, for a process that ends before its time.
    resume : bool
        Go on from `checkpoint`, to the same last bits, if there is one.

    Returns
    -------
    Recovery
        ``filled()`` gives the matrix in the form of the data, observed entries kept, ``found`` says what was found: rank, noise
        (standard deviation of an entry of weight 1), whether the recovery is exact, whether it has offsets; with `holdout`,
        ``heldout`` holds the errors. ``runs`` and ``history`` tell of every run of a solver, of both fits. If a fit is
        interrupted, or its callback ends it, none follows: the first one's model is returned. So it is where the second one is
        further from it than the errors on held-out entries explain, and exact it is not.

    Raises
    ------
    RankError, ArgumentError, ShapeError, DTypeError, ObservationError
        If an argument is out of range or the data cannot be used.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), section 3 (the network and its start).
    .. [2] Lim, Teh, KDD Cup 2007 (variational Bayes for factor models).
    .. [3] Hu, Koren, Volinsky, ICDM 2008 (implicit feedback).
    """
    implicit = check_choice("feedback", feedback, ("explicit", "implicit")) == "implicit"
    if not (isinstance(offsets, bool) or offsets == "auto"):
        raise ArgumentError(
            f'offsets={offsets!r}, but it is True, False or "auto".',
            argument="offsets",
            value=offsets,
            limit=(True, False, "auto"),
        )
    check_kind("outliers", outliers, bool, "Pass True where some entries may be corrupted.")
    observations = as_entries(data, weights, time)
    features = row_features, column_features
    if implicit:
        offsets = without_values(observations, offsets, bounds, outliers, features)
    observations, learned = with_features(observations, features, offsets)
    plan = checked_plan(
        observations, rank, iterations, seed, offsets, check_option("holdout", holdout), check_bounds(bounds)
    )
    plan = replace(plan, outliers=outliers)
    journal = Journal(callback, _expecting(f"complete {feedback}", observations, plan, checkpoint, resume))
    search = without_outliers(observations, plan, journal) if outliers else None
    if search is not None and search.run.outcome.broken_off:
        return search.told(search.recovery(plan, journal)).named()
    known = observations if search is None else search.kept
    solve = partial(complete_implicit if implicit else _with_holdout, journal)
    recovery = solved_on_host(solve, known, plan, callback) if better_on_host(known) else solve(known, plan, callback)
    recovery = recovery if search is None else search.told(recovery)
    return with_priors(recovery, known, learned).named()


def _with_holdout(journal: Journal, observations: Entries, plan: Plan, callback: Callback | None) -> Recovery:
    """The fit to all entries, with the errors of one without the held-out entries, where any are."""
    journal = replace(journal, callback=callback, fit=FINAL)
    if plan.holdout == 0:
        return _completed(observations, plan, journal)
    journal.fit = HOLD_OUT
    kept, held = observations.split(plan.holdout, plan.seed)
    first = replace(calibrate(_completed(kept, plan, journal), held), observations=observations)
    if first.outcome.broken_off:
        return first
    journal.fit = FINAL
    # A bound that was searched for without the held-out entries is not searched for again.
    known = plan if journal.chosen is None else replace(plan, rank=journal.chosen)
    final = replace(_completed(observations, known, journal), settings=plan)
    if final.outcome.broken_off:
        return replace(first, outcome=final.outcome, runs=final.runs, history=final.history)
    if not (final.found.exact or final.outcome is Outcome.UNDETERMINED or _agree(first, final)):
        return replace(first, outcome=Outcome.DISAGREED, runs=final.runs, history=final.history)
    return replace(final, heldout=first.heldout)


def _agree(first: Recovery, second: Recovery) -> bool:
    """Whether two fits are as close, over the whole matrix, as the errors of the first one on held-out entries let expect."""
    assert first.heldout is not None
    (left, right), (other_left, other_right) = first.factors(), second.factors()
    xp = namespace(left)
    apart = factored_svd(xp.concat([left, -other_left], axis=1), xp.concat([right, other_right]))[1]
    distance = number(xp.linalg.vector_norm(apart)) / math.sqrt(math.prod(first.shape))
    return distance <= _DISAGREEMENT * first.heldout.rmse


def _completed(observations: Entries, plan: Plan, journal: Journal) -> Recovery:
    """One fit to all of these entries; rows and columns without any take no part in it, and get what is expected."""
    recovery = _completed_part(observations, plan, journal)
    if observations.times is not None:
        assert isinstance(observations, SampledEntries)
        known = replace(plan, rank=journal.chosen or plan.rank, offsets=recovery.found.offsets)
        recovery = with_drift(recovery, observations, partial(_completed_part, plan=known, journal=journal))
        recovery = replace(recovery, settings=plan)
    constant = recovery.found.exact and recovery.found.rank <= 1 and _are_equal(observations)
    return replace(recovery, found=replace(recovery.found, constant=constant))


def _are_equal(observations: Entries) -> bool:
    mean, rest = observations.centred()
    return math.sqrt(rest.mean_square) <= UNITS_OF_ROUNDING * epsilon_of(observations) * abs(mean)


def _completed_part(observations: Entries, plan: Plan, journal: Journal) -> Recovery:
    part = occupied_part(observations)
    if part is None:
        return judged(_fitted(observations, plan, journal, lambda model: model))
    bound = None if plan.rank is None else min(plan.rank, *part.observations.shape)
    recovery = judged(_fitted(part.observations, replace(plan, rank=bound), journal, part.widened))
    rows, cols = (tuple(index.tolist()) for index in part.outside(*recovery.found.undetermined))
    found = replace(recovery.found, undetermined=(rows, cols))
    model = expected_outside(part.widened(recovery.model), observations.known, part.outside([], []))
    return replace(recovery, model=model, found=found, observations=observations, settings=plan)


def _fitted(
    observations: Entries, plan: Plan, journal: Journal, whole: Callable[[LowRank], LowRank], rounding: float = 0.0
) -> Recovery:
    """One fit, with offsets or without; `rounding`: root mean square of the errors that taking offsets away has left."""
    rest = without_dominant_offsets(observations, plan.seed)
    if rest.taken is not None and plan.offsets is not False:
        return _fitted_beside(rest, observations, plan, journal, whole)
    offsets, plain = plan.offsets is True, plan.offsets is not True
    if plan.offsets == "auto":
        single = observations.shape == (1, 1)  # of one entry nothing but the mean is known
        told = observations.known != (None, None)
        offsets, plain = single or told or rounding > 0 or rest.share < _OFFSETS_GAIN, not single
    timeless = observations.times is None  # what is left of clipped values without drift ends nowhere
    clipped = range_of_clipped(observations, plan.seed) if offsets and rounding == 0 and timeless else None
    rounding = max(rounding, rounding_of(observations, observations.mean_square * rest.share))
    return with_exact_offsets(
        fit(observations, plan, journal, offsets=offsets, plain=plain, rounding=rounding, clipped=clipped, whole=whole)
    )


def _fitted_beside(
    rest: Rest, observations: Entries, plan: Plan, journal: Journal, whole: Callable[[LowRank], LowRank]
) -> Recovery:
    """A fit to what dominant offsets leave, with further ones or without, and these."""
    size = math.sqrt(observations.mean_square)
    recovery = _fitted(
        rest.entries,
        replace(plan, offsets="auto"),
        journal,
        lambda model: whole(rest.whole(model)),
        epsilon_of(observations) * size,
    )
    ratio = math.sqrt(rest.entries.mean_square) / size
    found = replace(recovery.found, offsets=True, relative_residual=ratio * recovery.found.relative_residual)
    model = rest.whole(recovery.model)
    return replace(recovery, model=model, found=found, observations=observations, settings=plan)


def sense(
    operator: Any,
    values: Array = None,
    rank: int | None = None,
    *,
    shape: tuple[int, int] | None = None,
    iterations: int = _ITERATIONS,
    seed: int = 0,
    callback: Callback | None = None,
    checkpoint: CheckpointLike | None = None,
    resume: bool = False,
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
    rank, iterations, seed, callback, checkpoint, resume
        As in `complete`.

    Returns
    -------
    Recovery
        ``product()`` gives the matrix; ``found`` as in `complete`. Measurements by symmetric matrices, such as
        ``y_i = a_i^T X a_i``, see the symmetric part of X alone: that is returned, and not called exact.

    Raises
    ------
    RankError, ArgumentError, ShapeError, DTypeError, BackendError, ObservationError
        If an argument is out of range or the measurements cannot be used.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), section 3 (the network and its start).
    """
    observations = operator if isinstance(operator, Observations) else LinearMeasurements(operator, values, shape)
    plan = checked_plan(observations, rank, iterations, seed)
    kept = _expecting("sense", observations, plan, checkpoint, resume)
    if better_on_host(observations):
        return solved_on_host(partial(_sensed, kept), observations, plan, callback)
    return _sensed(kept, observations, plan, callback)


def _sensed(
    checkpoint: Checkpoint | None, observations: Observations, plan: Plan, callback: Callback | None
) -> Recovery:
    return symmetrised(judged(fit(observations, plan, Journal(callback, checkpoint))))


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
    with on_device_of(moved.like):
        return solve(moved, **options).to_device("cpu")


def _expecting(
    call: str, observations: Observations, plan: Plan, checkpoint: CheckpointLike | None, resume: bool
) -> Checkpoint | None:
    """The checkpoint, where there is one, bound to this call."""
    kept = Checkpoint.opened(checkpoint, resume)
    if kept is not None:
        with observations.threads():
            kept.expect(call=call, **vars(plan), data=data_fingerprint(observations))
    return kept


def checked_plan(
    observations: Observations,
    rank: Any,
    iterations: Any,
    seed: Any,
    offsets: bool | str = False,
    holdout: float = 0.0,
    bounds: tuple[float, float] | None = None,
) -> Plan:
    """The checked choices of the user, for data that can be computed with."""
    real_dtype(observations.like, "values")
    check_scale(observations)
    return Plan(
        None if rank is None else check_rank(rank, observations.shape),
        offsets,
        holdout,
        bounds,
        int(check_option("iterations", iterations, least=0, whole=True)),
        int(check_option("seed", seed, whole=True)),
    )
