"""Factors and offsets fitted together, each with a prior whose mean depends on which entries were observed.

    y_ij = mean + a_i + b_j + <u_i, v_j> + noise,    (u_i, a_i) ~ N(C^T f_i, spread),    (v_j, b_j) ~ N(D^T g_j, spread)

with features f_i, g_j of the pattern of observed entries (`dmf.solvers.features`). Variational Bayes as in
`dmf.solvers.homotopy`; the maps C and D, their relevance for each feature, the spreads and the noise are estimated from
the entries: features that tell nothing are switched off, and what remains is a factor model with random offsets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, device, from_host, namespace, number, to_host
from dmf.arrays.linalg import gaussian
from dmf.models import DeepLinearNetwork
from dmf.models.initialize import truncated_network
from dmf.models.offsets import Offsets
from dmf.observations import Entries, Observations
from dmf.solvers.features import pattern_features

_FIRST = (
    0.1  # noise variance of the first sweep, over that of the entries: from above, components die before they are seen
)
_FIXED = 1e6  # penalty, over the largest diagonal possible, that holds a coefficient at its mean
_ALIVE = 0.1  # as in dmf.solvers.homotopy
_STILL = (
    1e-3  # relative change of the squared residual and of the noise variance in one sweep below which they stand still
)
_LEAST = 1e-12  # of prior variances, relative to the mean square of the entries


@dataclass(frozen=True)
class _Side:
    """Rows, or columns: posterior of (factor, offset), and its prior."""

    means: Array  # (n, w + 1)
    variances: Array  # (n, w + 1)
    prior: Array  # (n, w + 1), the features times their map
    spread: np.ndarray  # (w + 1,)
    features: Array  # (n, p)
    relevance: np.ndarray  # (p,), prior variance of the map in units of the spread


@dataclass(frozen=True)
class _State:
    sides: tuple[_Side, _Side]
    centred: Entries
    mean: float
    noise: float
    square: float  # mean squared residual
    finished: str = ""


@dataclass(frozen=True)
class HierarchicalBayes:
    """Variational Bayes for sampled entries; an iteration fits rows and columns once.

    The last two components of the start and of the network of a state are the offsets: see `separated`. Rows are fitted to the
    columns of the start.

    Parameters
    ----------
    seed : int
        Of the features.
    noise : float, >= 0
        Standard deviation of the noise where the start is a fit: the spreads of factors and offsets are those of the start,
        in which rows of zeros are unknown. 0: the start gives nothing but the columns.
    """

    seed: int = 0
    noise: float = 0.0

    def init(self, observations: Entries, network: DeepLinearNetwork) -> Any:
        """State before the first sweep."""
        xp = namespace(observations.values)
        features = pattern_features(observations, self.seed)
        mean, centred = observations.centred()
        total = centred.mean_square
        size = total / observations.mean_weight
        left, right = network.factors()
        starts = (
            xp.concat([left[:, :-2], left[:, -2:-1] - mean], axis=1),
            xp.concat([xp.matrix_transpose(right[:-2, :]), right[-1, :][:, None]], axis=1),
        )
        sides = []
        for means, known in zip(starts, features, strict=True):
            spread = np.full(means.shape[1], math.sqrt(size) / 10)
            spread[-1] = size / 10
            if self.noise:
                seen = xp.mean(xp.astype(xp.any(means[:, :-1] != 0, axis=1), means.dtype))
                spread = np.maximum(_column_means(means**2) / max(number(seen), 1e-300), _LEAST * size)
            sides.append(_Side(means, 0 * means, 0 * means, spread, known, np.ones(known.shape[1])))
        finished = "all entries are equal" if total == 0 else ""
        noise = self.noise**2 if self.noise else _FIRST * total
        return _State((sides[0], sides[1]), centred, mean, noise, total, finished)

    def advance(self, observations: Observations, state: Any, iterations: int) -> tuple[Any, int]:
        """State after at most `iterations` sweeps, and their number."""
        for done in range(iterations):
            if state.finished:
                return state, done
            following = self._sweep(state)
            if not (math.isfinite(following.square) and math.isfinite(following.noise)):
                return state, done
            state = following
        return state, iterations

    def _sweep(self, state: _State) -> _State:
        m, total = state.centred.n_measurements, state.centred.mean_square
        rows, _ = _fitted(0, *state.sides, state)
        cols, fit = _fitted(1, state.sides[1], rows, state)
        square = fit.square / m
        estimate = (fit.square + fit.uncertainty + state.noise * fit.freedom) / m
        noise = max(estimate, _LEAST * total)
        still = abs(square - state.square) <= _STILL * square and abs(noise - state.noise) <= _STILL * noise
        finished = "the noise level settled" if still else ""
        return replace(state, sides=(rows, cols), noise=noise, square=square, finished=finished)

    def loss(self, state: Any) -> float:
        """Half the mean squared residual."""
        return state.square / 2

    def network(self, state: Any) -> DeepLinearNetwork:
        """Two layers whose last two components are the offsets, the mean with those of the rows."""
        rows, cols = (side.means for side in state.sides)
        xp = namespace(rows)
        ones = [xp.ones_like(means[:, :1]) for means in (rows, cols)]
        left = xp.concat([rows[:, :-1], rows[:, -1:] + state.mean, ones[0]], axis=1)
        right = xp.concat([cols[:, :-1], ones[1], cols[:, -1:]], axis=1)
        return DeepLinearNetwork((xp.matrix_transpose(right), left))

    def finished(self, state: Any) -> str:
        """Why the solver has nothing more to do; empty while it has."""
        return state.finished

    def findings(self, state: Any) -> dict[str, float]:
        """Noise level (standard deviation) and number of components that are there."""
        power, spread = [], []
        for side in state.sides:
            squares = _column_means(side.means[:, :-1] ** 2)
            power.append(squares)
            spread.append(squares + _column_means(side.variances[:, :-1]))
        means, moments = (np.sqrt(p[0] * p[1]) for p in (power, spread))
        return {"noise": math.sqrt(state.noise), "rank": int(np.sum(means > _ALIVE * np.maximum(moments, 1e-300)))}

    def advice(self, reason: str) -> str:
        """What to do after a run that ended for `reason`."""
        return {"budget spent": "Allow more iterations."}.get(reason, "")


def _column_means(values: Array) -> np.ndarray:
    """Mean over the rows of each column, on the host in float64."""
    xp = namespace(values)
    return to_host(xp.mean(values, axis=0)).astype(np.float64)


def _fitted(side: int, mine: _Side, other: _Side, state: _State) -> tuple[_Side, Any]:
    """One side fitted to the entries, the other one given, then its prior to it; and the regression.

    The offsets of the other side enter as a column whose coefficient is held at 1.
    """
    xp = namespace(mine.means)
    dtype, m = to_host(mine.means[:1, :1]).dtype, state.centred.n_measurements
    total = state.centred.mean_square
    ones, zeros = xp.ones_like(other.means[:, :1]), xp.zeros_like(other.means[:, :1])
    factor = xp.concat([other.means[:, :-1], ones, other.means[:, -1:]], axis=1)
    spreads = xp.concat([other.variances[:, :-1], zeros, other.variances[:, -1:]], axis=1)
    penalty = np.append(state.noise / mine.spread, _FIXED * (m * total + state.noise))
    fit = state.centred.ridge(
        side,
        factor,
        from_host(penalty.astype(dtype), mine.means),
        spreads,
        means=xp.concat([mine.prior, xp.ones_like(mine.prior[:, :1])], axis=1),
    )
    means, variances = fit.rows[:, :-1], state.noise * fit.variances[:, :-1]
    prior, relevance = _prior(means, mine)
    spread = np.maximum(_column_means((means - prior) ** 2 + variances), _LEAST * total / state.centred.mean_weight)
    return replace(mine, means=means, variances=variances, prior=prior, spread=spread, relevance=relevance), fit


def _prior(means: Array, side: _Side) -> tuple[Array, np.ndarray]:
    """Prior means, by Bayesian regression of `means` on the features, and the relevance of each feature."""
    xp = namespace(means)
    transposed = xp.matrix_transpose(side.features)
    gram, moments = (to_host(transposed @ b).astype(np.float64) for b in (side.features, means))
    covariance = np.linalg.inv(gram + np.diag(1 / side.relevance))
    coefficients = covariance @ moments
    relevance = np.mean(coefficients**2 / side.spread, axis=1) + np.diag(covariance)
    return side.features @ from_host(coefficients.astype(to_host(means[:1, :1]).dtype), means), relevance


def hierarchical_start(observations: Entries, width: int, seed: int) -> DeepLinearNetwork:
    """`width` components: Gaussian columns, of a size that leaves room for rows of the same; rows and offsets zero."""
    xp = namespace(observations.values)
    mean, centred = observations.centred()
    deviation = math.sqrt(centred.mean_square / observations.mean_weight)
    d1, d2 = observations.shape
    right = math.sqrt(deviation / (3 * math.sqrt(width))) * gaussian((d2, width), seed, observations.values)
    like = {"dtype": observations.dtype, "device": device(observations.values)}
    left, one, none = xp.zeros((d1, width), **like), xp.ones((d1, 1), **like), xp.zeros((d2, 1), **like)
    left = xp.concat([left, mean * one, one], axis=1)
    right = xp.concat([right, none + 1, none], axis=1)
    return DeepLinearNetwork((xp.matrix_transpose(right), left))


def separated(network: DeepLinearNetwork, mean: float, rank: int, depth: int) -> tuple[DeepLinearNetwork, Offsets]:
    """Balanced network of this rank, and the offsets, of a network that `HierarchicalBayes` returned."""
    left, right = network.factors()
    offsets = Offsets(mean, left[:, -2] - mean, right[-1, :])
    return truncated_network(DeepLinearNetwork((right[:-2, :], left[:, :-2])), rank, depth), offsets
