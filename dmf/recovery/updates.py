"""New entries, rows and columns for a recovered matrix, without fitting all of it again.

As a new module fits what an old model leaves, before both are compressed (Wang et al.): new rows and columns are folded in, with
components of their own where what is left of their entries stands out of the noise; without new rows and columns the residual of
all entries is looked at. A few sweeps of variational Bayes from there fit all of it, and components that the data do not support
go.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, from_host, namespace, number, to_host
from dmf.arrays.checks import check_kind
from dmf.errors import ArgumentError, DTypeError, ShapeError
from dmf.models import LowRank
from dmf.observations import SampledEntries
from dmf.recovery.names import check_order
from dmf.recovery.results import Recovery
from dmf.recovery.values import UNITS_OF_ROUNDING, StageRun, oversampling
from dmf.solvers.gauss_newton import refine
from dmf.solvers.hierarchical import HierarchicalBayes
from dmf.solvers.homotopy import VariationalBayes, noise_edge
from dmf.solvers.loop import run
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import Run

_MOST_NEW_COMPONENTS = 5  # most components that join at once
_POWER_SWEEPS, _ROUNDS = 2, 30  # that find a component, and that fit it to new rows or columns, at most
_LEAST_OVERSAMPLING = 2.0  # entries for each unknown, from which a component is looked for
_NEXT_ROUND_SHARE = 0.995  # share of the squared residual below which one more round is worth it
_SWEEPS, _STEPS = 60, 20  # most sweeps of variational Bayes, and most Gauss-Newton steps for each rank
_DOUBTED_NOISE_RATIO = 1.5  # noise variance, over that of the recovery, at which another start is tried
_NOISE_TAKEN_FOR_NONE = 1e-5  # standard deviation of the noise, relative, that is taken for none
_POLISHED_RESIDUAL = 1e-2  # residual, relative, that Gauss-Newton steps carry to rounding without a further component


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
    if recovery.drift is not None:
        raise ArgumentError(
            "the recovery holds drift, which an update would not know of new entries. Complete all entries anew, or "
            "without times.",
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
    check_order(observations.form, (recovery.row_ids, recovery.col_ids), "observations")
    merged = _merged(known, observations)
    base = recovery.model.placed(np.arange(recovery.shape[0]), np.arange(recovery.shape[1]), merged.shape)
    offsets, base = base.offsets, replace(base, offsets=None)
    new, whole = (e if offsets is None else _without(e, offsets) for e in (observations, merged))
    size = whole.mean_square
    least = _POLISHED_RESIDUAL if recovery.found.exact else 0.0
    level = max(recovery.found.noise**2, _NOISE_TAKEN_FOR_NONE**2 * size)
    start = _folded_in(new, base, recovery.shape, level, least**2 * size)
    if merged.shape == recovery.shape and not recovery.found.exact:
        start = _grown(whole, start, level)
    rounding = (
        UNITS_OF_ROUNDING * float(namespace(merged.values).finfo(merged.dtype).eps) * math.sqrt(merged.mean_square)
    )
    runs = _exact_runs(whole, start, rounding) if recovery.found.exact else []
    exact = bool(runs) and _is_exact(runs[-1], rounding)
    if not exact and offsets is not None and recovery.found.noise > 0:
        solver: Any = HierarchicalBayes(
            start.width, recovery.settings.seed, recovery.found.noise, recovery.found.clipped
        )
        runs = [run(solver, merged, replace(start, offsets=offsets), iterations=_SWEEPS)]
        offsets = runs[-1].model.offsets
    elif not exact:
        runs += _noisy_runs(whole, start, level)
    done = runs[-1]
    rank = int(done.findings["rank"])
    model = replace(done.model.truncated(rank), offsets=offsets)
    loss = number(merged.loss(*model.factors()))
    found = replace(
        recovery.found,
        rank=rank,
        noise=0.0 if exact else float(done.findings["noise"]),
        exact=exact,
        relative_residual=math.sqrt(2 * loss / merged.n_measurements / merged.mean_square) if size > 0 else 0.0,
        oversampling=oversampling(merged.n_distinct, merged.shape, rank),
        undetermined=(_unseen(merged, 0), _unseen(merged, 1)),
        constant=recovery.found.constant
        and exact
        and bool(namespace(merged.entries).all(merged.entries == merged.entries[0])),
    )
    names = [
        ids if new == old else None
        for ids, new, old in zip((recovery.row_ids, recovery.col_ids), merged.shape, recovery.shape, strict=True)
    ]
    return replace(
        recovery,
        model=model,
        found=found,
        outcome=done.outcome,
        history=done.history,
        runs=tuple(StageRun.of(r, "update", "update") for r in runs),
        observations=merged,
        heldout=None,
        row_ids=names[0],
        col_ids=names[1],
    )


def _unseen(entries: SampledEntries, side: int) -> tuple[int, ...]:
    """Rows, or columns, without any entry."""
    return tuple(np.flatnonzero(to_host(entries.counts(side)) == 0).tolist())


def _merged(known: SampledEntries, new: SampledEntries) -> SampledEntries:
    """All entries; a position seen anew counts once more."""
    xp = namespace(known.values, new.values)
    weights = None
    if known.weights is not None or new.weights is not None:
        weights = xp.concat([xp.ones_like(e.values) if e.weights is None else e.weights for e in (known, new)])
    rows, cols, values = (xp.concat([getattr(e, name) for e in (known, new)]) for name in ("rows", "cols", "entries"))
    merged = SampledEntries(rows, cols, values, new.shape, weights)
    if new.shape == known.shape and merged.n_distinct == merged.n_measurements:  # a form puts back what came first
        merged.form = known.form
    return merged


def _without(entries: SampledEntries, offsets) -> SampledEntries:
    """The entries less their offsets, which stay as they are; those of new rows and columns are 0."""
    xp = namespace(entries.values)
    rows, cols = xp.astype(entries.rows, xp.int64), xp.astype(entries.cols, xp.int64)
    rest = entries.entries - offsets.mean - xp.take(offsets.row, rows) - xp.take(offsets.col, cols)
    return SampledEntries(entries.rows, entries.cols, rest, entries.shape, entries.weights)


def _folded_in(new: SampledEntries, model: LowRank, old: tuple[int, int], level: float, enough: float) -> LowRank:
    """The model with factors for new columns and rows, and components of their own where these stand out."""
    left, right = model.halves()
    xp = namespace(left)
    factors, rows, cols = [left, xp.matrix_transpose(right)], to_host(new.rows), to_host(new.cols)
    for side, mask in ((1, (cols >= old[1]) & (rows < old[0])), (0, rows >= old[0])):
        if not mask.any():
            continue
        mine = factors[side][: old[side], :]
        other = factors[1 - side][: old[0], :] if side == 1 else factors[1]  # columns first, of the rows that are known
        places = tuple(from_host(p, new.rows) for p in (rows - (1 - side) * old[0], cols - side * old[1]))
        shape = (old[0], new.shape[1] - old[1]) if side == 1 else (new.shape[0] - old[0], new.shape[1])
        spread = xp.sum(mine * mine, axis=0) / old[side]  # mean square of the fitted rows
        penalty = level / xp.maximum(spread, 1e-12 * xp.max(spread))
        other, fitted = _fitted_with_more(
            new.chosen(mask, places[0], places[1], shape), side, other, penalty, level, enough
        )
        more = other.shape[1] - mine.shape[1]
        factors[side] = xp.concat([xp.concat([mine, 0 * mine[:, :1] + 0 * other[:1, :more]], axis=1), fitted])
        if side == 1 and new.shape[0] > old[0]:
            other = xp.concat([other, xp.zeros_like(other[: new.shape[0] - old[0], :])])
        factors[1 - side] = other
    return LowRank.of_factors(factors[0], xp.matrix_transpose(factors[1]))


def _fitted_with_more(
    entries: SampledEntries, side: int, fixed: Array, penalty: Array, level: float, enough: float
) -> tuple[Array, Array]:
    """The other factor, with components added until no more stand out, and rows (or columns) fitted to it.

    A component is added as long as the mean squared residual is above `enough`.
    """
    xp = namespace(fixed)
    edge = noise_edge(entries, level)
    fitted = entries.ridge(side, fixed, penalty).rows
    own_width, count = fixed.shape[1], fitted.shape[0]
    for more in range(1, min(_MOST_NEW_COMPONENTS, min(entries.shape) - own_width) + 1):
        unknown = more * fixed.shape[0] + count * (own_width + more)
        if entries.n_distinct < _LEAST_OVERSAMPLING * unknown:
            break
        residual = entries.values - _predicted(entries, side, fixed, fitted)
        if number(xp.mean(residual * residual)) <= enough:
            break
        u, s, vt = entries.with_values(residual).surrogate_svd(1, 0, _POWER_SWEEPS)
        if number(s[0]) <= edge:
            break
        root = xp.sqrt(s)
        own = level * math.sqrt(entries.shape[0] * entries.shape[1]) / s
        fixed = xp.concat([fixed, root * (u if side == 1 else xp.matrix_transpose(vt))], axis=1)
        penalty, last = xp.concat([penalty, own]), math.inf
        for _ in range(_ROUNDS):
            fit = entries.ridge(side, fixed, penalty)
            fitted, square = fit.rows, float(fit.square)
            if square > _NEXT_ROUND_SHARE * last:
                break
            last = square
            rest = entries.with_values(entries.values - _predicted(entries, side, fixed[:, :-1], fitted[:, :-1]))
            fixed = xp.concat([fixed[:, :-1], rest.ridge(1 - side, fitted[:, -1:], own).rows], axis=1)
        else:  # what this component will still fit is no other one
            break
    return fixed, fitted


def _predicted(entries: SampledEntries, side: int, fixed: Array, fitted: Array) -> Array:
    left, right = (fitted, fixed) if side == 0 else (fixed, fitted)
    return entries.predict(left, namespace(right).matrix_transpose(right))


def _grown(entries: SampledEntries, model: LowRank, level: float) -> LowRank:
    """The model, with the leading component of its residual if that stands out of the noise."""
    left, right = model.halves()
    xp = namespace(left)
    residual = entries.values - entries.predict(left, right)
    if model.width >= min(entries.shape) or not bool(xp.any(residual != 0)):
        return model
    rest = entries.with_values(residual)
    u, s, vt = rest.surrogate_svd(1, 0, _POWER_SWEEPS)
    if number(s[0]) <= noise_edge(entries, level):
        return model
    predicted = rest.predict(u * s, vt)
    square = number(xp.sum(predicted * predicted))
    share = abs(number(xp.sum(predicted * residual))) / square if square > 0 else 0.0
    root = xp.sqrt(share * s)
    return LowRank.of_factors(xp.concat([left, u * root], axis=1), xp.concat([right, root[:, None] * vt]))


def _noisy_runs(entries: SampledEntries, start: LowRank, level: float) -> list[Run]:
    """Variational Bayes from the start, and where it finds more noise than there was, from a spectral one; the best is last."""
    solver = VariationalBayes(start=min(level, entries.mean_square), until=_NOISE_TAKEN_FOR_NONE**2)
    runs = [run(solver, entries, start, iterations=_SWEEPS)]
    if runs[0].findings["noise"] ** 2 > _DOUBTED_NOISE_RATIO * level and start.width:
        width = min(start.width + _MOST_NEW_COMPONENTS, *entries.shape)
        u, s, vt = entries.surrogate_svd(width, 0, _POWER_SWEEPS)
        spectral = LowRank(u, abs(entries.best_scale(u * s, vt)) * s, vt)
        runs.append(run(replace(solver, start=None), entries, spectral, iterations=_SWEEPS))
    return sorted(runs, key=lambda done: -done.findings["noise"])


def _is_exact(done: Run, rounding: float) -> bool:
    """Whether a run fits all to rounding, or to that of what offsets were taken from."""
    return done.outcome is Outcome.EXACT or math.sqrt(2 * float(done.history.loss[-1])) <= rounding


def _exact_runs(entries: SampledEntries, start: LowRank, rounding: float) -> list[Run]:
    """Gauss-Newton runs, each at one rank more, until one is exact."""
    runs: list[Run] = []
    while start.width and len(runs) <= _MOST_NEW_COMPONENTS:
        runs.append(refine(entries, start, start.width, iterations=_STEPS))
        grown = _grown(entries, runs[-1].model, 0.0)
        if _is_exact(runs[-1], rounding) or grown.width == start.width:
            break
        start = grown
    return runs
