"""New rows and columns of a recovered matrix ("fold-in"): the other factor stays, so that each is a small ridge regression."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, device, namespace, number, to_host
from dmf.errors import ArgumentError, DTypeError, ShapeError
from dmf.models import LowRank
from dmf.models.drift import Drift
from dmf.observations import SampledEntries
from dmf.observations.base import Ridge
from dmf.recovery.names import check_order
from dmf.recovery.priors import columns_of, prior_of
from dmf.recovery.results import Recovery
from dmf.solvers.drift import without_drift
from dmf.solvers.implicit import fitted_to_all, preferences
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import History

_SIDES = ("rows", "columns")
_PASSES = 12  # most regressions of an exact recovery; each takes a further share of its small penalty back
_ROUNDS = 60  # most, of putting expected values in the place of clipped ones
_SETTLED_CHANGE = 3e-3  # largest change of these, over the noise, that ends it
_FALLING = 0.25  # share of the squared residual below which one more pass is worth it


def new_rows(recovery: Recovery, observations: SampledEntries | None = None, features: Any = None) -> Recovery:
    """Rows that were not there when a matrix was recovered, from some of their entries; nothing is fitted again.

    The column factor and the column offsets are kept. A new row is the posterior mean under the prior that the fitted rows
    show: a ridge regression towards their mean, or towards what features say, whose penalty is the noise variance over the
    variance of each component of the fitted rows (and of their offsets) around that. All rows are solved in one batch.

    Parameters
    ----------
    recovery : Recovery
        Of a (d1, d2) matrix, from `complete`, `factorize` or `sense`, or loaded from a file.
    observations : SampledEntries, shape (n, d2)
        Entries of n new rows, in the columns of `recovery` and in its dtype. Rows without an entry are allowed; with `features`,
        so is None: nothing is known but these.
    features : array (n, p), data frame or dict, optional
        Of the new rows, in their order, with the names that ``row_features`` of `dmf.complete` had.

    Returns
    -------
    Recovery
        Of the (n, d2) matrix of the new rows; ``filled()`` and ``predict(rows, cols)`` count rows from 0. A row without entries
        is what is expected (without features, the mean of the fitted ones) if there is noise, else the mean plus the column
        offsets, zero where there are no offsets. If the recovery is exact, rows with entries enough are exact as well; of the
        rows that agree with fewer entries, the one with the smallest factor is taken. If the recovery is one of implicit
        feedback, the entries are counts, and rows are fitted to all their cells. Where values were clipped, so are those of new
        rows; where columns drift and entries have times, what time adds to the columns is taken away.

    Raises
    ------
    ArgumentError
        If `observations` are no entries.
    ShapeError, DTypeError, BackendError, ObservationError
        If they do not fit the recovery, such as columns that are named in another order.
    """
    return _folded_in(recovery, observations, features, 0)


def unknown_row(recovery: Recovery) -> Array:
    """What is predicted of a new row without any entry, shape (d2,): see `new_rows`."""
    if recovery.found.noise > 0:
        left, right = recovery.factors()
        return recovery.predicted(namespace(left).mean(left, axis=0) @ right)
    offsets = recovery.offsets
    return recovery.predicted(0 * recovery.model.vt[0, :] + (0 if offsets is None else offsets.mean + offsets.col))


def new_columns(recovery: Recovery, observations: SampledEntries | None = None, features: Any = None) -> Recovery:
    """Columns that were not there when a matrix was recovered: what `new_rows` does, for the transposed matrix.

    Parameters
    ----------
    recovery : Recovery
        Of a (d1, d2) matrix.
    observations : SampledEntries, shape (d1, n)
        Entries of n new columns, in the rows of `recovery` and in its dtype.
    features : array (n, p), data frame or dict, optional
        Of the new columns, as for `new_rows`.

    Returns
    -------
    Recovery
        Of the (d1, n) matrix of the new columns.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, BackendError, ObservationError
        As in `new_rows`.
    """
    return _folded_in(recovery, observations, features, 1)


def _folded_in(recovery: Recovery, observations: SampledEntries | None, features: Any, side: int) -> Recovery:
    begin = time.perf_counter()
    prior, columns = recovery.priors[side], None
    if features is not None:
        count = observations.shape[side] if isinstance(observations, SampledEntries) else None
        columns = columns_of(prior, features, side, count, recovery.model.s)
        if observations is None:
            assert prior is not None
            return _of_new(
                recovery, None, side, _expected(recovery, prior.means(columns, len(columns)), side), 0.0, begin
            )
    noise = _check(recovery, observations, side)
    assert observations is not None
    given, observations = observations, _of_no_time(recovery, observations, side)
    if recovery.weighting is not None:
        model, square = _fitted_to_all(recovery, observations, side)
        return _of_new(recovery, observations, side, model, square, begin)
    model, square = _fitted(recovery, observations, side, columns, noise)
    ends = recovery.found.clipped
    if ends is not None and noise > 0:
        clipped = observations.clipped(ends, observations)
        expected: Any = observations
        for _ in range(_ROUNDS if clipped.places.size else 0):
            last, expected = expected, clipped.expected(observations, *model.factors(), noise**2)[0]
            model, square = _fitted(recovery, expected, side, columns, noise)
            if number(namespace(last.values).max(abs(expected.values - last.values))) < _SETTLED_CHANGE * noise:
                break
    return _of_new(recovery, given, side, model, square, begin)


def _of_no_time(recovery: Recovery, observations: SampledEntries, side: int) -> SampledEntries:
    """The entries less what time adds to the columns, or rows, that stay, where both are known."""
    known = None if recovery.drift is None else (recovery.drift.columns, recovery.drift.rows)[side]
    if known is None or observations.times is None:
        return observations
    return without_drift(observations, Drift(None, known) if side == 0 else Drift(known, None))


def _fitted(
    recovery: Recovery, observations: SampledEntries, side: int, columns: Array | None, noise: float
) -> tuple[LowRank, float]:
    """New rows or columns whose features are these columns of a design, and their squared residual."""
    prior = recovery.priors[side]
    sizes, fixed, values = _components(recovery, observations, side)
    xp = namespace(fixed)
    balanced = fixed * xp.sqrt(sizes)
    if noise > 0:
        prior = prior if prior is not None and columns is not None else prior_of(recovery.model, side)
        unit = xp.ones_like(sizes)
        if recovery.offsets is not None:
            unit = xp.concat([unit[:-1], _unless_zero(balanced[0, -1:])])
        mean, spread = prior.means(columns, observations.shape[side]) / unit, prior.spread / unit
        turned = mean, xp.matrix_transpose(balanced)
        rest = values - observations.predict(*(turned if side == 0 else (balanced, xp.matrix_transpose(mean))))
        fit = observations.with_values(rest).ridge(side, balanced * spread, xp.full_like(sizes, noise**2))
        found, square = mean + fit.rows * spread, fit.square
    else:
        found, square = _least_squares(observations.with_values(values), side, balanced)
    offsets = recovery.offsets
    if offsets is not None:
        found, own = found[:, :-1], found[:, -1] * balanced[0, -1]  # that column of `balanced` is constant
        balanced = balanced[:, :-1]
        offsets = replace(offsets, row=own) if side == 0 else replace(offsets, col=own)
    left, right = (found, balanced) if side == 0 else (balanced, found)
    return LowRank.of_factors(left, xp.matrix_transpose(right), offsets), square


def _fitted_to_all(recovery: Recovery, counts: SampledEntries, side: int) -> tuple[LowRank, float]:
    """New rows of a model of implicit feedback, and their squared residual at the counts."""
    left, right = recovery.model.halves()
    xp = namespace(counts.values, left)
    fit = factors_of_counts(recovery, counts, side)
    left, right = (fit.rows, right) if side == 0 else (left, xp.matrix_transpose(fit.rows))
    return LowRank.of_factors(left, right), fit.square


def factors_of_counts(recovery: Recovery, counts: SampledEntries, side: int = 0) -> Ridge:
    """Rows, or columns, fitted to all their cells, the balanced factor of the other side given."""
    weighting, halves = recovery.weighting, recovery.model.halves()
    assert weighting is not None
    fixed = namespace(counts.values).matrix_transpose(halves[1]) if side == 0 else halves[0]
    return fitted_to_all(preferences(counts, weighting.confidence, weighting.power), side, fixed, weighting.ridge)


def _expected(recovery: Recovery, rows: Array, side: int) -> LowRank:
    """A model of nothing but expectations (n, w) or, with offsets, (n, w + 1): see `dmf.recovery.priors`."""
    left, right = recovery.model.halves()
    xp, offsets = namespace(rows), recovery.offsets
    if offsets is not None:
        rows, own = rows[:, :-1], rows[:, -1]
        offsets = replace(offsets, row=own) if side == 0 else replace(offsets, col=own)
    return LowRank.of_factors(*((rows, right) if side == 0 else (left, xp.matrix_transpose(rows))), offsets)


def _of_new(
    recovery: Recovery, observations: SampledEntries | None, side: int, model: LowRank, square: float, begin: float
) -> Recovery:
    """The recovery of new rows or columns."""
    count = 0 if observations is None else observations.n_measurements
    loss, size = square / (2 * max(count, 1)), 0.0 if observations is None else observations.mean_square * count
    counts = np.zeros(model.shape[side]) if observations is None else to_host(observations.counts(side))
    form = None if observations is None else observations.form
    own = None if form is None else (form.row_ids, form.col_ids)[side]
    unseen, known = tuple(np.flatnonzero(counts == 0).tolist()), recovery.found.undetermined
    bound = recovery.settings.rank
    return replace(
        recovery,
        model=model,
        found=replace(
            recovery.found,
            rank=min(recovery.found.rank, model.width),  # of few rows it is lower
            relative_residual=math.sqrt(square / size) if size > 0 else 0.0,
            undetermined=(unseen, known[1]) if side == 0 else (known[0], unseen),
            constant=False,
        ),
        settings=recovery.settings if bound is None else replace(recovery.settings, rank=min(bound, *model.shape)),
        outcome=Outcome.SOLVED,
        history=History({"iteration": [0], "loss": [loss], "seconds": [time.perf_counter() - begin]}),
        runs=(),
        observations=observations,
        row_ids=own if side == 0 else recovery.row_ids,
        col_ids=own if side == 1 else recovery.col_ids,
        priors=(None, None),  # they are of other singular vectors
        # Errors are of the other matrix; those of predictions for known times are no errors of rows without drift.
        heldout=recovery.heldout and (replace(recovery.heldout, residuals=None) if recovery.drift is None else None),
        ranking=None,
        outliers=None,
        drift=None,
    )


def _components(recovery: Recovery, observations: SampledEntries, side: int) -> tuple[Array, Array, Array]:
    """Singular values (w,), singular vectors (d, w) of the side that stays, and what of the new values they have to explain.

    Offsets of the new rows are one more component: the matrix ``row[:, None]`` has one singular value and a constant vector.
    """
    u, s, vt = recovery.model.u, recovery.model.s, recovery.model.vt
    xp = namespace(observations.values, s)
    fixed = xp.matrix_transpose(vt) if side == 0 else u
    if recovery.offsets is None:
        return s, fixed, observations.values
    offsets = recovery.offsets
    own, other = (offsets.row, offsets.col) if side == 0 else (offsets.col, offsets.row)
    root = fixed.shape[0] ** 0.5
    sizes = xp.concat([s, root * xp.linalg.vector_norm(own, keepdims=True)])
    fixed = xp.concat([fixed, xp.full_like(fixed[:, :1], 1 / root)], axis=1)
    factors = _equal_rows(observations.shape[side], other + offsets.mean, side)
    return sizes, fixed, observations.values - observations.predict(*factors)


def _equal_rows(count: int, row: Array, side: int) -> tuple[Array, Array]:
    """A matrix of so many equal rows, or columns, as a product."""
    xp = namespace(row)
    ones = xp.ones((count, 1), dtype=row.dtype, device=device(row))
    return (ones, row[None, :]) if side == 0 else (row[:, None], xp.matrix_transpose(ones))


def _least_squares(observations: SampledEntries, side: int, design: Array) -> tuple[Array, float]:
    """Rows that fit best, shape (n, w), and their squared residual; where many fit equally well, the smallest of them.

    By iterated regularisation: a penalty of the root of the rounding error, so that a singular normal matrix does no harm,
    whose bias shrinks with each regression on the residual.
    """
    xp = namespace(design)
    penalty = xp.full_like(design[0, :], float(xp.finfo(design.dtype).eps) ** 0.5)
    largest = _unless_zero(xp.max(xp.abs(design)))
    design = design / largest
    scaled = _scaled(observations, side, design)
    found, square, remaining = None, float("inf"), scaled
    for _ in range(_PASSES):
        fit = remaining.ridge(side, design, penalty)
        if found is not None and fit.square > _FALLING * square:
            break
        found, square = fit.rows if found is None else found + fit.rows, fit.square
        factors = (found, xp.matrix_transpose(design)) if side == 0 else (design, xp.matrix_transpose(found))
        remaining = scaled.with_values(scaled.values - scaled.predict(*factors))
    return found / largest, 2 * number(observations.loss(*factors))


def _scaled(observations: SampledEntries, side: int, design: Array) -> SampledEntries:
    """The entries with the weights of each row scaled to a normal matrix of trace 1, which one penalty fits for all rows.

    Without noise only ratios of weights within a row matter. A penalty made of the whole design or of unscaled weights is
    too large for rows that see little of it.
    """
    xp = namespace(design)
    rows, cols, entries, shape = observations.rows, observations.cols, observations.entries, observations.shape
    weights = xp.ones_like(entries) if observations.weights is None else observations.weights
    weights = weights / xp.max(weights)
    own, met = (rows, cols) if side == 0 else (cols, rows)
    seen = weights * xp.take(xp.sum(design * design, axis=1), met)
    ones = [xp.ones((size, 1), dtype=design.dtype, device=device(design)) for size in shape]
    plain = SampledEntries(rows, cols, entries, shape)
    trace = xp.reshape(plain.adjoint(seen, ones[0], xp.matrix_transpose(ones[1]))[side], (-1,))
    return SampledEntries(rows, cols, entries, shape, weights / xp.take(_unless_zero(trace), own))


def _unless_zero(numbers: Array) -> Array:
    """`numbers`, with 1 in place of 0."""
    xp = namespace(numbers)
    return xp.where(numbers == 0, xp.ones_like(numbers), numbers)


def _check(recovery: Recovery, observations: Any, side: int) -> float:
    """Noise level of the recovery; raises unless the observations fit it."""
    if not isinstance(observations, SampledEntries):
        raise ArgumentError(
            f"observations are {type(observations).__name__}, but new {_SIDES[side]} are found from some of their entries. "
            "Pass SampledEntries, for example SampledEntries.from_dense(array with NaN).",
            argument="observations",
            value=type(observations).__name__,
            limit="SampledEntries",
        )
    for name in ("weights", "times") if recovery.weighting is not None else ():
        if getattr(observations, name) is not None:
            raise ArgumentError(
                f"observations have {name}, but the recovery is one of implicit feedback, whose counts have none. Pass "
                "SampledEntries(rows, cols, counts, shape).",
                argument=name,
                value="given",
            )
    fixed = 1 - side
    if observations.shape[fixed] != recovery.shape[fixed]:
        raise ShapeError(
            f"observations have {observations.shape[fixed]} {_SIDES[fixed]}, but the recovered matrix {recovery.shape[fixed]}: "
            f"new {_SIDES[side]} lie in the {_SIDES[fixed]} that it was fitted with. Pass the shape "
            f"{('n', recovery.shape[1]) if side == 0 else (recovery.shape[0], 'n')}.",
            argument="observations",
            value=observations.shape,
            limit=recovery.shape[fixed],
        )
    ids = [recovery.row_ids, recovery.col_ids]
    ids[side] = None
    check_order(observations.form, ids, "observations")
    namespace(observations.values, recovery.model.s)
    if observations.dtype != recovery.model.dtype:
        raise DTypeError(
            f"observations have dtype {observations.dtype}, but the recovered matrix {recovery.model.dtype}. Convert the "
            "values first.",
            argument="observations",
            value=str(observations.dtype),
            limit=str(recovery.model.dtype),
        )
    return recovery.found.noise
