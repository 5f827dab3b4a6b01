"""New entries, rows and columns for a recovered matrix, without fitting all of it again.

As a new module fits what an old model leaves, before both are compressed (Wang et al.): new rows and columns are folded in, the
leading components of the residual of all entries join those of the model, a few sweeps of variational Bayes from there fit all of
it, and components that the data do not support go.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from dmf.arrays.backend import namespace, number
from dmf.arrays.checks import check_kind
from dmf.errors import ArgumentError, DTypeError, ShapeError
from dmf.models import LowRank
from dmf.observations import SampledEntries
from dmf.recovery.results import Recovery
from dmf.recovery.values import StageRun, oversampling
from dmf.solvers.gauss_newton import refine
from dmf.solvers.homotopy import VariationalBayes
from dmf.solvers.loop import run
from dmf.solvers.outcomes import Outcome

_GROWN = 5  # most components of the residual that join at once
_LEVEL = 2.0  # first variance of the noise, over that of the recovery: components that were found stay
_SWEEPS, _STEPS = 60, 60  # most sweeps of variational Bayes, and most Gauss-Newton steps
_NO_NOISE = 1e-5  # standard deviation of the noise, relative, that is taken for none


def updated(recovery: Recovery, observations: SampledEntries) -> Recovery:
    """A recovery that knows more entries, perhaps of more rows and columns; see `Recovery.update`."""
    known = recovery.observations
    check_kind("observations", observations, SampledEntries, "Pass SampledEntries(rows, cols, values, shape).")
    if recovery.weighting is not None:
        raise ArgumentError(
            "the recovery is one of implicit feedback, which is not updated. Use new_rows or new_columns for new ones, or "
            'complete all counts anew with feedback="implicit".',
            argument="recovery",
        )
    if recovery.priors != (None, None):
        raise ArgumentError(
            "the recovery was fitted with features of rows or columns, which an update would not know of new ones. Use new_rows "
            "or new_columns with features, or complete all entries anew.",
            argument="recovery",
        )
    if not isinstance(known, SampledEntries):
        raise ArgumentError(
            "the recovery holds no entries that it was fitted to (a loaded model has no data, other measurements are no "
            "entries), so new ones cannot be weighed against them. Use new_rows or new_columns, or complete all entries.",
            argument="observations",
            value=type(known).__name__,
            limit="SampledEntries",
        )
    if any(new < old for new, old in zip(observations.shape, recovery.shape, strict=True)):
        raise ShapeError(
            f"observations are of a {observations.shape} matrix, but the recovered one is {recovery.shape}. Pass a shape that is "
            "no smaller; new rows and columns come after the old ones.",
            argument="observations",
            value=observations.shape,
            limit=recovery.shape,
        )
    if observations.dtype != known.dtype:
        raise DTypeError(
            f"observations have dtype {observations.dtype}, but the entries known {known.dtype}. Convert them.",
            argument="observations",
            value=str(observations.dtype),
            limit=str(known.dtype),
        )
    merged = _merged(known, observations)
    old = recovery.model
    places = [np.arange(size) for size in recovery.shape]
    base = old.placed(places[0], places[1], merged.shape)
    offsets, base = base.offsets, replace(base, offsets=None)
    whole = merged if offsets is None else _without(merged, offsets)
    start = _grown(whole, _folded_in(whole, base, recovery))
    size = whole.mean_square
    residual = 2 * number(whole.loss(*start.halves())) / whole.n_measurements
    level = _LEVEL * max(recovery.found.noise**2, residual if recovery.found.exact else 0.0, _NO_NOISE**2 * size)
    done = run(VariationalBayes(start=min(level, size), until=_NO_NOISE**2), whole, start, iterations=_SWEEPS)
    runs, rank, noise, exact = [done], int(done.findings["rank"]), float(done.findings["noise"]), False
    if recovery.found.exact and rank > 0:
        refined = refine(whole, done.model.truncated(rank), rank, iterations=_STEPS)
        exact = refined.outcome is Outcome.EXACT
        runs += [refined]
    model = replace(runs[-1 if exact else 0].model.truncated(rank), offsets=offsets)
    loss = number(whole.loss(*replace(model, offsets=None).halves()))
    found = replace(
        recovery.found,
        rank=rank,
        noise=0.0 if exact else noise,
        exact=exact,
        relative_residual=math.sqrt(2 * loss / whole.n_measurements / size) if size > 0 else 0.0,
        oversampling=oversampling(whole.n_distinct, whole.shape, rank),
    )
    names = [
        ids if new == old else None
        for ids, new, old in zip((recovery.row_ids, recovery.col_ids), merged.shape, recovery.shape, strict=True)
    ]
    return replace(
        recovery,
        model=model,
        found=found,
        outcome=runs[-1].outcome if exact else done.outcome,
        history=done.history,
        runs=tuple(StageRun.of(r, "update", "update") for r in runs),
        observations=merged,
        heldout=None,
        row_ids=names[0],
        col_ids=names[1],
    )


def _merged(known: SampledEntries, new: SampledEntries) -> SampledEntries:
    """All entries; a position seen anew counts once more."""
    xp = namespace(known.values, new.values)
    weights = None
    if known.weights is not None or new.weights is not None:
        weights = xp.concat([xp.ones_like(e.values) if e.weights is None else e.weights for e in (known, new)])
    rows, cols, values = (xp.concat([getattr(e, name) for e in (known, new)]) for name in ("rows", "cols", "entries"))
    return SampledEntries(rows, cols, values, new.shape, weights)


def _without(entries: SampledEntries, offsets) -> SampledEntries:
    """The entries less their offsets, which stay as they are; those of new rows and columns are 0."""
    xp = namespace(entries.values)
    rows, cols = xp.astype(entries.rows, xp.int64), xp.astype(entries.cols, xp.int64)
    rest = entries.entries - offsets.mean - xp.take(offsets.row, rows) - xp.take(offsets.col, cols)
    return SampledEntries(entries.rows, entries.cols, rest, entries.shape, entries.weights)


def _folded_in(entries: SampledEntries, model: LowRank, recovery: Recovery) -> LowRank:
    """The model with factors for the new columns and rows, ridge regressions on those of the old."""
    left, right = model.halves()
    xp = namespace(left)
    right = xp.matrix_transpose(right)
    noise = max(recovery.found.noise**2, _NO_NOISE**2 * entries.mean_square)
    for side in (1, 0):
        count = recovery.shape[side]
        if entries.shape[side] == count:
            continue
        fixed = left if side == 1 else right
        spread = model.s / count  # mean square of the fitted rows
        penalty = noise / xp.maximum(spread, 1e-12 * spread[:1])
        fitted = entries.ridge(side, fixed, penalty).rows[count:, :]
        if side == 1:
            right = xp.concat([right[:count, :], fitted])
        else:
            left = xp.concat([left[:count, :], fitted])
    return LowRank.of_factors(left, xp.matrix_transpose(right))


def _grown(entries: SampledEntries, model: LowRank) -> LowRank:
    """The model and the leading components of its residual, of the size that fits the residual best."""
    left, right = model.halves()
    xp = namespace(left)
    count = min(_GROWN, min(entries.shape) - model.width)
    residual = entries.values - entries.predict(left, right)
    if count < 1 or not bool(xp.any(residual != 0)):
        return model
    rest = entries.with_values(residual)
    u, s, vt = rest.surrogate_svd(count)
    predicted = rest.predict(u * s, vt)
    square = number(xp.sum(predicted * predicted))
    share = abs(number(xp.sum(predicted * residual))) / square if square > 0 else 0.0
    roots = xp.sqrt(share * s)
    return LowRank.of_factors(xp.concat([left, u * roots], axis=1), xp.concat([right, roots[:, None] * vt]))
