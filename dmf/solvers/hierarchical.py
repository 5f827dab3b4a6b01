"""Factors and offsets fitted together, each with a prior whose mean depends on what is known of the row or column.

    y_ij = mean + a_i + b_j + <u_i, v_j> + noise,    (u_i, a_i) ~ N(C^T f_i, spread),    (v_j, b_j) ~ N(D^T g_j, spread)

with features f_i, g_j (`dmf.solvers.features`): how many entries are seen, an implicit term, a sum over the observed places of
the row or column, and what the user knows of it. Variational Bayes as in
`dmf.solvers.homotopy`; the maps C and D, their relevance for each group of features, the spreads and the noise are estimated from
the entries: features that tell nothing are switched off, and what remains is a factor model with random offsets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, device, from_host, host_dtype, namespace, number, to_host
from dmf.models import LowRank
from dmf.models.offsets import Offsets, fit_offsets
from dmf.observations import Entries
from dmf.observations.design import Design
from dmf.solvers.features import designs, regression
from dmf.solvers.outcomes import Outcome

_FIRST_NOISE = (
    0.1  # noise variance of the first sweep, over that of the entries: from above, components die before they are seen
)
_OFFSET_ROUNDS = 3  # of fitting offsets for a start
_HOLDING_PENALTY = 1e6  # penalty, over the largest diagonal possible, that holds a coefficient at its mean
_ALIVE_SHARE = 0.1  # as in dmf.solvers.homotopy
_HIDDEN_NUMBERS = (
    10.0  # numbers, whose fit to noise tells as much as a component that prior means keep alive, but no entry shows
)
_SETTLED_CHANGE = (
    1e-3  # relative change of the squared residual and of the noise variance in one sweep below which they stand still
)
_RISES_IN_A_ROW = 10  # of the noise, sweep after sweep: with fewer it may still fall, as components come apart
_LEAST_VARIANCE = 1e-12  # of prior variances, relative to the mean square of the entries


@dataclass(frozen=True)
class _Data:
    """The entries without their mean, and what the pattern of observed entries tells of rows and columns."""

    centred: Entries
    mean: float
    designs: tuple[Design, Design]
    grams: tuple[np.ndarray, np.ndarray]  # (p, p), (q, q), of the designs
    clipped: Any = None


@dataclass(frozen=True)
class _Side:
    """Rows, or columns: posterior of (factor, offset), and its prior."""

    means: Array  # (n, w + 1)
    variances: Array  # (n, w + 1)
    prior: Array  # (n, w + 1), the design times its map
    spread: np.ndarray  # (w + 1,)
    relevance: np.ndarray  # (g,), prior variance of the map of each group of columns, in units of the spread


@dataclass(frozen=True)
class _State:
    sides: tuple[_Side, _Side]
    noise: float
    square: float  # mean squared residual
    hidden: float  # mean square of a component's entries that noise hides
    replaced: float = 0.0  # mean variance of what is in place of clipped values
    rises: int = 0  # sweeps in a row that raised the noise
    finished: Outcome | None = None


@dataclass(frozen=True)
class HierarchicalBayes:
    """Variational Bayes for sampled entries; an iteration fits rows and columns once.

    Rows are fitted to the columns of the start. Without a start these are the leading right singular vectors of what offsets
    leave of the entries, all of one size that leaves room for rows of the same, and all else is zero: the result hardly
    depends on the order of the columns or on the seed, and components are seen that random columns hide.

    Parameters
    ----------
    width : int, >= 1
        Number of components; that of the start, where there is one.
    seed : int
        Of the singular value decompositions.
    noise : float, >= 0
        Standard deviation of the noise where the start is a fit: the spreads of factors and offsets are those of the start,
        in which rows of zeros are unknown. 0: the start gives nothing but the columns.
    clipped : (float, float), optional
        Ends of the range in which values were clipped, either may be infinite; see `dmf.observations.clipped`.
    most_noise : float
        Standard deviation of the noise above which the fit is of no use: a run whose noise level goes on rising ends there.
    implicit : bool
        Whether prior means have the implicit term. Its singular vectors cost as much as some sweeps.
    """

    width: int
    seed: int = 0
    noise: float = 0.0
    clipped: tuple[float, float] | None = None
    most_noise: float = math.inf
    implicit: bool = True

    def rescaled(self, unit: float) -> HierarchicalBayes:
        """The same for data in another unit."""
        ends = None if self.clipped is None else (self.clipped[0] / unit, self.clipped[1] / unit)
        return replace(self, noise=self.noise / unit, clipped=ends, most_noise=self.most_noise / unit)

    def prepare(self, observations: Entries, start: Any) -> _Data:
        """The centred entries, and features of rows and columns."""
        mean, centred = observations.centred()
        known = designs(observations, self.seed, self.implicit)
        rows, cols = (_gram(design.columns) for design in known)
        clipped = None if self.clipped is None else observations.clipped(self.clipped, centred)
        return _Data(centred, mean, known, (rows, cols), clipped)

    def init(self, data: _Data, start: LowRank | None) -> Any:
        """State before the first sweep."""
        centred, total = data.centred, data.centred.mean_square
        size = total / centred.mean_weight
        sides = []
        for means, known in zip(self._means(data, size, start), data.designs, strict=True):
            xp = namespace(means)
            spread = np.full(means.shape[1], math.sqrt(size) / 10)
            spread[-1] = size / 10
            if self.noise:
                seen = xp.mean(xp.astype(xp.any(means[:, :-1] != 0, axis=1), means.dtype))
                spread = np.maximum(_column_means(means**2) / max(number(seen), 1e-300), _LEAST_VARIANCE * size)
            sides.append(_Side(means, 0 * means, 0 * means, spread, np.ones(len(known.groups))))
        noise = self.noise**2 if self.noise else _FIRST_NOISE * total
        hidden = _hidden_square(centred, noise)
        return _State((sides[0], sides[1]), noise, total, hidden, finished=Outcome.TRIVIAL if total == 0 else None)

    def _means(self, data: _Data, size: float, start: LowRank | None) -> tuple[Array, Array]:
        """Factors and offsets of rows and of columns, the offsets in the last column."""
        centred = data.centred
        if start is None:
            (d1, d2), xp = centred.shape, namespace(centred.like)
            like = {"dtype": centred.dtype, "device": device(centred.like)}
            rest = centred.minus(*fit_offsets(centred, _OFFSET_ROUNDS).factors())
            right = xp.matrix_transpose(rest.surrogate_svd(self.width, self.seed)[2])
            root = math.sqrt(d2 * math.sqrt(size) / (3 * math.sqrt(self.width)))
            return xp.zeros((d1, self.width + 1), **like), xp.concat([root * right, xp.zeros((d2, 1), **like)], axis=1)
        left, right = start.halves()
        xp = namespace(left)
        row, col = 0 * left[:, 0], 0 * right[0, :]
        if start.offsets is not None:
            row, col = start.offsets.row + (start.offsets.mean - data.mean), start.offsets.col
        right = xp.matrix_transpose(right)
        return xp.concat([left, row[:, None]], axis=1), xp.concat([right, col[:, None]], axis=1)

    def advance(self, data: _Data, state: Any, iterations: int) -> tuple[Any, int]:
        """State after at most `iterations` sweeps, and their number."""
        for done in range(iterations):
            if state.finished:
                return state, done
            following = self._sweep(data, state)
            if not (math.isfinite(following.square) and math.isfinite(following.noise)):
                return state, done
            state = following
        return state, iterations

    def _sweep(self, data: _Data, state: _State) -> _State:
        m, total, replaced = data.centred.n_measurements, data.centred.mean_square, 0.0
        if data.clipped is not None:
            rows, cols = (side.means for side in state.sides)
            xp = namespace(rows)
            left, right = xp.concat([rows, xp.ones_like(rows[:, :1])], axis=1), xp.matrix_transpose(_met(cols))
            entries, replaced = data.clipped.expected(data.centred, left, right, state.noise)
            data = replace(data, centred=entries)
        rows, _ = _fitted(0, *state.sides, data, state.noise)
        cols, fit = _fitted(1, state.sides[1], rows, data, state.noise)
        square = fit.square / m
        estimate = (fit.square + fit.uncertainty + state.noise * fit.freedom) / m
        noise = max(estimate, _LEAST_VARIANCE * total)
        still = (
            abs(square - state.square) <= _SETTLED_CHANGE * square
            and abs(noise - state.noise) <= _SETTLED_CHANGE * noise
        )
        rises = state.rises + 1 if noise > state.noise else 0
        too_noisy = rises >= _RISES_IN_A_ROW and noise + replaced / m > self.most_noise**2
        finished = Outcome.NOISIER if too_noisy else Outcome.NOISE_SETTLED if still else None
        return _State((rows, cols), noise, square, _hidden_square(data.centred, noise), replaced / m, rises, finished)

    def loss(self, state: Any) -> float:
        """Half the mean squared residual."""
        return state.square / 2

    def model(self, data: _Data, state: Any) -> LowRank:
        """Factors of the width of the start, and offsets."""
        rows, cols = (side.means for side in state.sides)
        offsets = Offsets(data.mean, rows[:, -1], cols[:, -1])
        return LowRank.of_factors(rows[:, :-1], namespace(cols).matrix_transpose(cols[:, :-1]), offsets)

    def finished(self, state: Any) -> Outcome | None:
        """Why the solver has nothing more to do; None while it has."""
        return state.finished

    def findings(self, state: Any) -> dict[str, float]:
        """Noise level (standard deviation), number of components that are there, and what prior means explain.

        "explained" is the largest share of the variance of factors, or offsets, of rows or columns.
        """
        grams = [_gram(side.means[:, :-1]) / side.means.shape[0] for side in state.sides]
        power = [np.diag(gram) for gram in grams]
        spread = [p + _column_means(side.variances[:, :-1]) for p, side in zip(power, state.sides, strict=True)]
        means, moments = (np.sqrt(p[0] * p[1]) for p in (power, spread))
        alive = np.sum(means > _ALIVE_SHARE * np.maximum(moments, 1e-300))
        shown = np.sum(np.linalg.eigvals(grams[0] @ grams[1]).real > state.hidden)  # squared singular values, relative
        explained = max(_explained(side) for side in state.sides)
        noise = math.sqrt(state.noise + state.replaced)
        return {"noise": noise, "rank": int(min(alive, shown)), "explained": explained}

    def advice(self, outcome: Outcome) -> str:
        """What to do after a run that ended like this."""
        return "Allow more iterations." if outcome is Outcome.BUDGET else ""


def _hidden_square(centred: Entries, noise: float) -> float:
    """Mean square of a component's entries up to which noise of this variance, at weight 1, hides them."""
    return _HIDDEN_NUMBERS * noise / (centred.n_measurements * centred.mean_weight)


def _explained(side: _Side) -> float:
    """Share of the variance of factors, or of offsets, that prior means explain: the larger one."""
    variances = _column_means(side.prior**2) - _column_means(side.prior) ** 2
    parts = [(variances[at].sum(), side.spread[at].sum()) for at in (slice(-1), slice(-1, None))]
    return max(float(told / (told + rest)) if told > 0 else 0.0 for told, rest in parts)


def _column_means(values: Array) -> np.ndarray:
    """Mean over the rows of each column, on the host in float64."""
    xp = namespace(values)
    return _on_host(xp.mean(values, axis=0))


def _on_host(values: Array) -> np.ndarray:
    """The values on the host in float64."""
    return to_host(values).astype(np.float64)


def _gram(columns: Array) -> np.ndarray:
    return _on_host(namespace(columns).matrix_transpose(columns) @ columns)


def _met(means: Array) -> Array:
    """What the other side's factors and offsets are multiplied with: factors, ones, and offsets (n, w + 2)."""
    xp = namespace(means)
    return xp.concat([means[:, :-1], xp.ones_like(means[:, :1]), means[:, -1:]], axis=1)


def _fitted(side: int, mine: _Side, other: _Side, data: _Data, noise: float) -> tuple[_Side, Any]:
    """One side fitted to the entries, the other one given, then its prior to it; and the regression.

    The offsets of the other side enter as a column whose coefficient is held at 1.
    """
    xp, centred = namespace(mine.means), data.centred
    dtype, m, total = host_dtype(mine.means), centred.n_measurements, centred.mean_square
    zeros = xp.zeros_like(other.means[:, :1])
    spreads = xp.concat([other.variances[:, :-1], zeros, other.variances[:, -1:]], axis=1)
    penalty = np.append(noise / mine.spread, _HOLDING_PENALTY * (m * total + noise))
    fit = centred.ridge(
        side,
        _met(other.means),
        from_host(penalty.astype(dtype), mine.means),
        spreads,
        means=xp.concat([mine.prior, xp.ones_like(mine.prior[:, :1])], axis=1),
    )
    means, variances = fit.rows[:, :-1], noise * fit.variances[:, :-1]
    size = total / centred.mean_weight
    prior, relevance = _prior(means, mine, data.designs[side], data.grams[side], size)
    spread = np.maximum(_column_means((means - prior) ** 2 + variances), _LEAST_VARIANCE * size)
    return _Side(means, variances, prior, spread, relevance), fit


def _prior(means: Array, side: _Side, design: Design, gram: np.ndarray, size: float) -> tuple[Array, np.ndarray]:
    """Prior means, by Bayesian regression of `means` on the design, and the relevance of each group of its columns."""
    moments = _on_host(namespace(means).matrix_transpose(design.columns) @ means)
    units = np.append(np.full(side.spread.size - 1, math.sqrt(size)), size)  # of squares of factors, and of offsets
    coefficients, relevance = regression(moments, gram, design.groups, side.relevance, side.spread, units)
    return design.columns @ from_host(coefficients.astype(host_dtype(means)), means), relevance
