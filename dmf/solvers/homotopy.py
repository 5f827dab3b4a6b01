"""Continuation in the noise level: rank-free solvers for noisy and for noise-free data.

Weight decay on the layers of a deep network penalises the singular values of its product by a Schatten-2/L quasi-norm;
as L grows this tends to the sum of their logarithms. The inner layers can then be eliminated: the two outer ones see a ridge
penalty ``noise d / (s_k + floor)`` on component k, of size s_k, which is updated as the sizes change. Variational Bayes
with automatic relevance determination puts the same penalty on a component. So one sweep, two ridge regressions and a
rotation that decouples the components, serves both solvers: `VariationalBayes` lowers the noise level to its estimate,
`Continuation` lowers it to zero. The floor, below the edge of the noise, lets components that vanished at a high level
come back at a lower one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dmf.arrays.backend import Array, from_host, host_dtype, namespace, number, to_host
from dmf.arrays.checks import check_option, positive_integer
from dmf.errors import ArgumentError
from dmf.models import DeepLinearNetwork, LowRank
from dmf.observations import Observations
from dmf.solvers.checkpoints import CheckpointLike
from dmf.solvers.loop import Callback, run
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import Run

_STILL = 3e-3  # relative change of the squared residual in one sweep below which it stands still
_ARRIVED = 0.98  # share of the level that the estimate of the noise reaches when the level has come down to it
_CONTRADICTED = 10.0  # mean squared residual over the level above which, standing still, it contradicts the level
_FALLING = 0.97  # a sweep that lowers the squared residual to less than this share is worth another one
_ALIVE = 0.1  # share of a component's second moment, below which its mean is negligible against its spread
_SEED = 1e-3  # size, in units of the edge, below which a component is not let fall: it is soon back when it is needed
_LEAST_EIGENVALUE = 1e-16  # of a moment matrix, relative: keeps the rotation invertible


@dataclass(frozen=True)
class _State:
    left: Array  # (d1, w)
    right: Array  # (d2, w)
    variances: tuple[Array | None, Array | None]  # of left and of right
    noise: float  # variance: the level
    square: float  # mean squared residual
    rank: int  # components that are there: above the edge of the noise, or with means that their spread does not hide
    sizes: np.ndarray  # of the components, spread included: float64, shape (w,); set by the first sweep at a level
    sweeps: int = 0  # at this level
    arrived: bool = False
    finished: Outcome | None = None


@dataclass(frozen=True)
class _Alternating(ABC):
    """What both solvers share; a state holds factors, the level, and what is known of both.

    Parameters
    ----------
    decay : float, 0 < decay < 1
        Least ratio of the noise variances of successive levels.
    floor : float, > 0
        Size below which the penalty of a component no longer grows, in units of the edge of the noise. Below 1/4,
        noise alone keeps no component up.
    start : float, optional
        First noise variance; the mean square of the measurements unless given.
    until : float
        Noise variance, relative to the mean square of the measurements, at which the solver ends.
    sweeps : int, >= 1
        Sweeps between updates of the penalty, and at each level, at least.
    """

    decay: float = 0.5
    floor: float = 0.2
    start: float | None = None
    until: float = 1e-5
    sweeps: int = 1
    uncertain: ClassVar[bool] = False

    def rescaled(self, unit: float) -> _Alternating:
        """The same for data in another unit."""
        return replace(self, start=None if self.start is None else self.start / unit**2)

    def prepare(self, observations: Observations, start: Any) -> Observations:
        """The observations themselves."""
        return observations

    def init(self, observations: Observations, start: LowRank | DeepLinearNetwork) -> Any:
        """State at the start, with balanced factors."""
        left, right = LowRank.of(start).halves()
        noise = observations.mean_square if self.start is None else self.start
        square = 2 * number(observations.loss(left, right)) / observations.n_measurements
        finished = None
        if observations.mean_square == 0:
            left, right, square, finished = 0 * left, 0 * right, 0.0, Outcome.TRIVIAL
        factors = left, namespace(right).matrix_transpose(right)
        variances = (0 * factors[0], 0 * factors[1]) if self.uncertain else (None, None)
        sizes = np.zeros(left.shape[1])
        return _State(*factors, variances, noise, square, 0, sizes, finished=finished)

    def advance(self, observations: Observations, state: Any, iterations: int) -> tuple[Any, int]:
        """State after at most `iterations` sweeps, and their number."""
        for done in range(iterations):
            if state.finished:
                return state, done
            following = self._level(observations, *self._sweep(observations, state))
            if not (math.isfinite(following.square) and math.isfinite(following.noise)):
                return state, done
            state = following
        return state, iterations

    def _sweep(self, observations: Observations, state: _State) -> tuple[_State, float, float]:
        """State after fitting both factors once, its mean squared residual and the estimate of the noise variance."""
        edge = noise_edge(observations, state.noise)
        if state.sweeps % self.sweeps == 0:
            state = _decoupled(state, 0.0 if state.arrived else _SEED * edge)
        floor = 0.0 if state.arrived else self.floor * edge
        dtype = host_dtype(state.left)
        unit = state.noise / (state.sizes + floor)
        penalties = [from_host((d * unit).astype(dtype), state.left) for d in self._dimensions(observations)]
        first = observations.ridge(0, state.right, penalties[0], state.variances[1], state.left)
        spread = None if first.variances is None else state.noise * first.variances
        second = observations.ridge(1, first.rows, penalties[1], spread, state.right)
        variances = spread, None if second.variances is None else state.noise * second.variances
        m = observations.n_measurements
        estimate = (second.square + second.uncertainty + state.noise * second.freedom) / m
        means = _lengths(first.rows) * _lengths(second.rows)
        rank = int(np.sum(means > (edge if spread is None else _ALIVE * state.sizes)))
        state = replace(
            state, left=first.rows, right=second.rows, variances=variances, rank=rank, sweeps=state.sweeps + 1
        )
        return state, second.square / m, estimate

    def _dimensions(self, observations: Observations) -> tuple[float, float]:
        """Numbers of entries that share a prior variance, which is their mean square; without spreads only the product counts."""
        d1, d2 = observations.shape
        return (d1, d2) if self.uncertain else (math.sqrt(d1 * d2),) * 2

    @abstractmethod
    def _level(self, observations: Observations, state: _State, square: float, estimate: float) -> _State:
        """The state after a sweep with the level of noise that follows from its residual and estimate."""

    def loss(self, state: Any) -> float:
        """Half the mean squared residual."""
        return state.square / 2

    def model(self, observations: Observations, state: Any) -> LowRank:
        """The product of the factors of a state; its width is that of the start."""
        return LowRank.of_factors(state.left, namespace(state.left).matrix_transpose(state.right))

    def finished(self, state: Any) -> Outcome | None:
        """Why the solver has nothing more to do; None while it has."""
        return state.finished

    def findings(self, state: Any) -> dict[str, float]:
        """Noise level (standard deviation) and number of components above its edge."""
        return {"noise": math.sqrt(state.noise), "rank": state.rank}

    def advice(self, outcome: Outcome) -> str:
        """What to do after a run that ended like this."""
        return "Allow more iterations." if outcome is Outcome.BUDGET else ""


class VariationalBayes(_Alternating):
    """Posterior mean of the factors under Gaussian noise whose level is estimated, with variances of their entries.

    The level falls by `decay` in a sweep until its estimate stops it; then the floor is taken away, and components that the
    data do not support die out. It also ends where no noise is seen down to `until`.

    References
    ----------
    .. [1] Lim, Teh, Variational Bayesian approach to movie rating prediction, KDD Cup 2007 (the model).
    .. [2] Nakajima, Sugiyama, Babacan, Tomioka, JMLR 14 (2013) (automatic relevance determination).
    """

    uncertain: ClassVar[bool] = True

    def _level(self, observations, state, square, estimate):
        still = abs(state.square - square) <= _STILL * square
        if state.arrived:
            still = still and abs(state.noise - estimate) <= _STILL * estimate
            return replace(state, square=square, noise=estimate, finished=Outcome.NOISE_SETTLED if still else None)
        noise = max(estimate, self.decay * state.noise)
        finished = Outcome.NO_NOISE if noise <= self.until * observations.mean_square else None
        return replace(
            state, square=square, noise=noise, arrived=still and estimate > _ARRIVED * state.noise, finished=finished
        )


@dataclass(frozen=True)
class Continuation(_Alternating):
    """Homotopy to noise zero, for data that may be free of noise but are too scarce to show it.

    A sweep is added to those of a level as long as it lowers a residual above a third of the level. A larger floor makes the
    penalty less concave: surer near the information limit, and slower. With `most`, the path ends where more components than
    that stand out of the noise: at no lower level are they fewer.
    """

    decay: float = 0.7
    until: float = 1e-12
    sweeps: int = 2
    most: int | None = None

    def _level(self, observations, state, square, estimate):
        falling = square < _FALLING * state.square
        state = replace(state, square=square)
        if self.most is not None and state.rank > self.most:
            return replace(state, finished=Outcome.OVERFITTED)
        if state.sweeps < self.sweeps or (falling and square > 0.3 * state.noise):
            return state
        if square > _CONTRADICTED * state.noise:
            return replace(state, finished=Outcome.CONTRADICTED)
        noise = self.decay * state.noise
        finished = Outcome.PATH_END if noise <= self.until * observations.mean_square else None
        return replace(state, noise=noise, sweeps=0, finished=finished)


def variational_bayes(
    observations: Observations,
    start: LowRank | DeepLinearNetwork,
    *,
    iterations: int = 200,
    tolerance: float = 0.0,
    record_every: int = 1,
    callback: Callback | None = None,
    checkpoint: CheckpointLike | None = None,
    resume: bool = False,
) -> Run:
    """Posterior mean of a low-rank matrix under noise of unknown level, its rank found on the way.

    Parameters
    ----------
    observations : Observations
    start : LowRank or DeepLinearNetwork
        Its width bounds the rank. Its components should have the sizes expected, as from
        ``observations.surrogate_svd``; the small scales of `spectral_network` take some sweeps more.
    iterations : int, >= 0
        Most sweeps.
    tolerance, record_every, callback, checkpoint, resume
        As in `gradient_descent`; the loss is half the mean squared residual.

    Returns
    -------
    Run
        Its model is a `LowRank`; ``history["noise"]`` and ``history["rank"]`` hold the noise level (standard deviation) and
        the number of components at each sweep, ``findings`` the last of both. It ends with NOISE_SETTLED, or NO_NOISE where
        none was seen down to 1e-5 of the mean square of the measurements.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, BackendError
        If start and observations do not fit together, or an option is out of range.

    References
    ----------
    .. [1] Lim, Teh, Variational Bayesian approach to movie rating prediction, KDD Cup 2007.
    """
    return run(
        VariationalBayes(),
        observations,
        start,
        iterations=iterations,
        tolerance=tolerance,
        record_every=record_every,
        callback=callback,
        checkpoint=checkpoint,
        resume=resume,
    )


def continuation(
    observations: Observations,
    start: LowRank | DeepLinearNetwork,
    *,
    decay: float = 0.7,
    floor: float = 0.2,
    sweeps: int = 2,
    until: float = 1e-12,
    iterations: int = 10_000,
    tolerance: float = 0.0,
    record_every: int = 1,
    callback: Callback | None = None,
    checkpoint: CheckpointLike | None = None,
    resume: bool = False,
) -> Run:
    """Follow the minimiser of a deep network with weight decay as the decay falls to zero, in the limit of many layers.

    For measurements without noise, close to the information limit: components appear one after another, and the rank is that
    of the data where they determine it. Follow it with `refine` at ``findings["rank"]`` for the last digits.

    Parameters
    ----------
    observations : Observations
    start : LowRank or DeepLinearNetwork
        As in `variational_bayes`.
    decay : float, 0 < decay < 1
        Ratio of the noise variances of successive levels.
    floor : float, > 0
        Size below which the penalty of a component no longer grows, in units of the edge of the noise. 1.1 with ``decay=0.9``
        and ``sweeps=10`` is surest near the information limit, and ten times slower.
    sweeps : int, >= 1
        Sweeps at each level, at least.
    until : float, > 0
        Noise variance, relative to the mean square of the measurements, at which the path ends.
    iterations : int, >= 0
        Most sweeps.
    tolerance, record_every, callback, checkpoint, resume
        As in `gradient_descent`; the loss is half the mean squared residual.

    Returns
    -------
    Run
        As in `variational_bayes`, with the outcome PATH_END, or CONTRADICTED where the measurements are noisy.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, BackendError
        If start and observations do not fit together, or an option is out of range.
    """
    for argument, value in (("decay", decay), ("floor", floor), ("until", until)):
        check_option(argument, value, strictly=True)
    if decay >= 1:
        raise ArgumentError(
            f"decay={decay!r}, but the level has to fall. Pass 0 < decay < 1.",
            argument="decay",
            value=decay,
            limit=(0, 1),
        )
    solver = Continuation(decay, floor, None, until, positive_integer(sweeps, "sweeps"))
    return run(
        solver,
        observations,
        start,
        iterations=iterations,
        tolerance=tolerance,
        record_every=record_every,
        callback=callback,
        checkpoint=checkpoint,
        resume=resume,
    )


def noise_edge(observations: Observations, noise: float) -> float:
    """Largest singular value, about, that noise of variance `noise` alone leads to in a least-squares sense.

    ``A^T`` of white noise has the spectral norm ``sqrt(gain noise) (sqrt(d1) + sqrt(d2))`` for entries and Gaussian
    measurements; a component of size s answers with ``gain s``.
    """
    d1, d2 = observations.shape
    return math.sqrt(noise / observations.gain) * (math.sqrt(d1) + math.sqrt(d2))


def _decoupled(state: _State, least: float) -> _State:
    """The state in coordinates in which both factors have the same diagonal second moments, the sizes of the components.

    Components smaller than `least` are scaled up to it; they point where the residual is largest, as in a power iteration.
    """
    moments = [_second_moments(f, v) for f, v in zip((state.left, state.right), state.variances, strict=True)]
    values, vectors = np.linalg.eigh(moments[0])
    values = np.maximum(values, _LEAST_EIGENVALUE * (values[-1] or 1.0))
    half = vectors * np.sqrt(values)
    squares, turn = np.linalg.eigh(half.T @ moments[1] @ half)
    squares, turn = squares[::-1], turn[:, ::-1]
    sizes = np.sqrt(np.maximum(squares, _LEAST_EIGENVALUE * (squares[0] or 1.0)))
    forward = (vectors / np.sqrt(values)) @ turn * np.sqrt(sizes)
    backward = half @ turn / np.sqrt(sizes)
    factors, variances = [], []
    for factor, spread, matrix in zip((state.left, state.right), state.variances, (forward, backward), strict=True):
        dtype = host_dtype(factor)
        factor = factor @ from_host(matrix.astype(dtype), factor)
        lift = np.maximum(1.0, math.sqrt(least) / np.maximum(_lengths(factor), np.finfo(dtype).tiny))
        factors.append(factor * from_host(lift.astype(dtype), factor))
        variances.append(None if spread is None else spread @ from_host((matrix**2).astype(dtype), factor))
    return replace(
        state, left=factors[0], right=factors[1], variances=(variances[0], variances[1]), sizes=np.maximum(sizes, least)
    )


def _second_moments(factor: Array, variances: Array | None) -> np.ndarray:
    xp = namespace(factor)
    moments = to_host(xp.matrix_transpose(factor) @ factor).astype(np.float64)
    if variances is not None:
        moments += np.diag(to_host(xp.sum(variances, axis=0)).astype(np.float64))
    return moments


def _lengths(factor: Array) -> np.ndarray:
    xp = namespace(factor)
    return np.sqrt(to_host(xp.sum(factor * factor, axis=0)).astype(np.float64))
