"""Variational Bayes for entries some of which are corrupted: each is an outlier with a probability that the fit finds.

    y_k = X[i_k, j_k] + noise,      with the noise of all, or with probability `share` a wide one of its own

An entry counts by the probability that it is none: its weight in the ridge regressions of `dmf.solvers.homotopy`. The level of
the noise falls from the size of the data, so that at first hardly anything is an outlier, and what the model comes to fit stays.
Rows that such a path leaves at a wrong minimum, most of their entries taken for outliers, are looked at again: fits to small
random samples of their entries are tried, and the best one counts (least trimmed squares, found by random sampling).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, from_host, host_dtype, namespace, number, to_host
from dmf.models import LowRank
from dmf.observations import SampledEntries
from dmf.solvers.homotopy import VariationalBayes
from dmf.solvers.outcomes import Outcome

_DECAY = 0.8  # of the noise variance in a sweep: a slower fall ends at wrong minima more often
_UNTIL = (
    1e-12  # noise variance, relative to the mean square of the entries that are no outliers, that is taken for none
)
_SHARE, _LARGEST_SHARE = 0.05, 0.4  # of outliers: at first, and at most
_OUTLIER_VARIANCE = 9.0  # least variance of outliers, over that of the noise
_LEAST_WEIGHT = 1e-20  # keeps every entry in its place
_SETTLED_SHARE = 0.98  # share of the level that the estimate of the noise reaches when the level has come down to it
_NOISE_CHANGE = 1e-2  # relative change of the noise variance in a sweep below which it stands still
_LOOKS, _SWEEPS_BETWEEN_LOOKS = 10, 15  # second looks at most; sweeps from one to the next, at least
_SWEEPS_OF_A_LEVEL = 200  # sweeps after which a level that does not settle is looked at
_ROWS, _TRIES = 300, 200  # that a look takes up, of each side at most; random samples of the entries of each
_LARGEST_RESIDUAL = 3.5  # residual, in standard deviations of the noise, that costs as much as any larger one
_MARGIN = 4.0  # by which the cost of a row has to fall
_RIDGE = 1e-10  # relative, keeps a sample of entries solvable


@dataclass(frozen=True)
class _State:
    inner: Any  # of variational Bayes
    weights: Array  # (m,), probabilities that entries are no outliers
    share: float
    wide: float  # variance of outliers
    waited: int = 0  # sweeps since the last look
    looks: int = 0
    square: float = math.inf  # mean squared residual, each entry counted by its weight
    finished: Outcome | None = None


@dataclass(frozen=True)
class RobustBayes:
    """Posterior mean of a low-rank matrix of which some entries are corrupted; an iteration fits both factors once.

    Parameters
    ----------
    seed : int
        Of the random samples of entries.

    References
    ----------
    .. [1] Vaknin Laufer, Nadler, arXiv 2505.12919 (Gauss-Newton steps that leave out what looks like outliers).
    .. [2] Rousseeuw, Leroy, Robust Regression and Outlier Detection, 1987, chapter 5 (least trimmed squares by random samples).
    """

    seed: int = 0

    def rescaled(self, unit: float) -> RobustBayes:
        """Itself: no option has a unit."""
        return self

    def prepare(self, observations: Any, start: Any) -> Any:
        """The entries themselves."""
        return observations

    def init(self, entries: SampledEntries, start: LowRank) -> Any:
        """State at the start, in which no entry is an outlier."""
        inner = VariationalBayes().init(entries, start)
        return _State(
            inner,
            namespace(entries.values).ones_like(entries.values),
            _SHARE,
            _OUTLIER_VARIANCE * inner.noise,
            square=inner.square,
            finished=inner.finished,
        )

    def advance(self, entries: SampledEntries, state: Any, iterations: int) -> tuple[Any, int]:
        """State after at most `iterations` sweeps, and their number."""
        for done in range(iterations):
            if state.finished:
                return state, done
            following = self._sweep(entries, state)
            if not (math.isfinite(following.square) and math.isfinite(following.inner.noise)):
                return state, done
            state = following
        return state, iterations

    def _sweep(self, entries: SampledEntries, state: _State) -> _State:
        m, before = entries.n_measurements, state.inner.noise
        xp, weights = namespace(state.weights), state.weights
        if entries.weights is not None:
            weights = weights * entries.weights
        weighted = SampledEntries(
            entries.rows,
            entries.cols,
            entries.entries,
            entries.shape,
            xp.clip(weights, _LEAST_WEIGHT, None),
        )
        inner, square, estimate = VariationalBayes()._sweep(weighted, state.inner)
        scale = m / max(number(xp.sum(state.weights)), 1.0)
        estimate = min(estimate * scale, entries.mean_square)
        lowest: float = max(
            _UNTIL * scale / m * number(xp.sum(state.weights * entries.values**2)), float(np.finfo(np.float32).tiny)
        )
        inner = replace(inner, noise=max(estimate, _DECAY * before, lowest), square=square * scale)
        state = _weighed(entries, replace(state, inner=inner, square=square * scale, waited=state.waited + 1))
        settled = estimate >= _SETTLED_SHARE * before and abs(inner.noise - before) <= _NOISE_CHANGE * before
        if state.waited < _SWEEPS_BETWEEN_LOOKS or not (
            settled or inner.noise <= lowest or state.waited >= _SWEEPS_OF_A_LEVEL
        ):
            return state
        looked = _second_look(entries, state, [self.seed, state.looks])
        if looked is None or state.looks == _LOOKS:
            return replace(state, finished=Outcome.NOISE_SETTLED if inner.noise > lowest else Outcome.NO_NOISE)
        return _weighed(entries, replace(state, inner=looked, waited=0, looks=state.looks + 1))

    def loss(self, state: Any) -> float:
        """Half the mean squared residual, each entry counted by the probability that it is no outlier."""
        return state.square / 2

    def model(self, entries: SampledEntries, state: Any) -> LowRank:
        """The product of the factors of a state; its width is that of the start."""
        return VariationalBayes().model(entries, state.inner)

    def finished(self, state: Any) -> Outcome | None:
        """Why the solver has nothing more to do; None while it has."""
        return state.finished

    def findings(self, state: Any) -> dict[str, float]:
        """Noise level (standard deviation), number of components, and share of outliers."""
        return VariationalBayes().findings(state.inner) | {"outliers": state.share}

    def advice(self, outcome: Outcome) -> str:
        """What to do after a run that ended like this."""
        return "Allow more iterations." if outcome is Outcome.BUDGET else ""


def _residuals(entries: SampledEntries, state: Any) -> Array:
    """Of the measurements: those of entries, times the roots of their weights."""
    return entries.values - entries.predict(state.left, namespace(state.left).matrix_transpose(state.right))


def _weighed(entries: SampledEntries, state: _State) -> _State:
    """The state with the probabilities that follow from its residuals, and the share and the size of outliers from them."""
    inner, xp = state.inner, namespace(state.weights)
    squares = _residuals(entries, inner) ** 2
    left, right = inner.variances
    spread = entries.product(
        xp.concat([left, inner.left**2 + left], axis=1),
        xp.matrix_transpose(xp.concat([inner.right**2, right], axis=1)),
    )
    if entries.weights is not None:
        spread = spread * entries.weights
    m, doubt = entries.n_measurements, 1 - state.weights
    total = number(xp.sum(doubt))
    wide = max(number(xp.sum(doubt * squares)) / total if total > 0 else 0.0, _OUTLIER_VARIANCE * inner.noise)
    odds = math.log((1 - state.share) / state.share) + 0.5 * math.log(wide / inner.noise)
    exponent = odds - (squares + spread) * (0.5 * (1 / inner.noise - 1 / wide))
    weights = 1 / (1 + xp.exp(-xp.clip(exponent, -80.0, 80.0)))
    share = min(max(1 - number(xp.mean(weights)), 1 / m), _LARGEST_SHARE)
    return replace(state, weights=weights, share=share, wide=wide)


def _second_look(entries: SampledEntries, state: _State, seed: list[int]) -> Any:
    """The factors with rows that fit more of their entries, where such were found; None where none were."""
    inner, rank, rng = state.inner, state.inner.rank, np.random.default_rng(seed)
    factors = [to_host(f).astype(np.float64) for f in (inner.left, inner.right)]
    order = np.argsort(-np.prod([np.linalg.norm(f, axis=0) for f in factors], axis=0))[:rank]
    values, outliers = to_host(entries.values).astype(np.float64), to_host(state.weights) < 0.5
    units = np.full(values.size, 1 / math.sqrt(inner.noise))  # in which the noise has the variance 1
    if entries.weights is not None:
        roots = np.sqrt(to_host(entries.weights).astype(np.float64))
        values, units = values / roots, units * roots
    sides, changed = (to_host(entries.rows), to_host(entries.cols)), False
    for side, (own, other) in enumerate((sides, sides[::-1])) if rank else ():
        size, factor = entries.shape[side], factors[1 - side][:, order]
        met, found = np.bincount(own, minlength=size), np.bincount(own[outliers], minlength=size)
        expected = state.share * met
        doubtful = (found > 0) & (met > rank) & ((found > expected + 2 * np.sqrt(expected)) | (met - found <= rank + 1))
        chosen = np.flatnonzero(doubtful)
        chosen = chosen[np.argsort(-(found / np.maximum(met, 1))[chosen], kind="stable")][:_ROWS]
        by_row = np.argsort(own, kind="stable")
        ends = np.cumsum(met)
        for row in chosen:
            index = by_row[ends[row] - met[row] : ends[row]]
            design = factor[other[index]] * units[index, None]
            measured = values[index] * units[index]
            better = _trimmed(design, measured, factors[side][row, order], rng)
            if better is not None:
                factors[side][row] = 0
                factors[side][row, order] = better
                changed = True
    if not changed:
        return None
    dtype = host_dtype(inner.left)
    left, right = (from_host(f.astype(dtype), inner.left) for f in factors)
    return replace(inner, left=left, right=right)


def _trimmed(design: np.ndarray, measured: np.ndarray, now: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Coefficients of which the residuals, large ones cut, cost less than those of `now`; None if none are found."""

    def cost(coefficients: np.ndarray) -> np.ndarray:
        return np.sum(np.minimum((coefficients @ design.T - measured) ** 2, _LARGEST_RESIDUAL**2), axis=-1)

    rank = now.size
    samples = np.argsort(rng.random((_TRIES, measured.size)), axis=1)[:, :rank]
    parts = design[samples]
    normal = np.matrix_transpose(parts) @ parts
    normal += _RIDGE * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(rank) + np.finfo(float).tiny * np.eye(
        rank
    )
    tried = np.linalg.solve(normal, np.einsum("tkr,tk->tr", parts, measured[samples])[:, :, None])[:, :, 0]
    best = tried[np.argmin(cost(tried))]
    near = np.abs(design @ best - measured) <= _LARGEST_RESIDUAL
    if np.sum(near) >= rank:
        polished = np.linalg.lstsq(design[near], measured[near])[0]
        best = min(best, polished, key=cost)
    return best if cost(best) < cost(now) - _MARGIN else None
