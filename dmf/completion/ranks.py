"""Which rank do the data support? Held-out error against the bound on the rank, with its uncertainty."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmf.arrays.backend import device, namespace, number, to_host
from dmf.completion.calls import complete
from dmf.completion.offsets import FEWEST_HELD_OUT, with_exact_offsets
from dmf.completion.state import relative_residual
from dmf.errors import ArgumentError
from dmf.models import LowRank
from dmf.models.offsets import fit_offsets
from dmf.observations import Entries
from dmf.observations.checks import check_rank
from dmf.observations.conversion import timeless
from dmf.recovery.intervals import mean_and_error, root_mean_square
from dmf.recovery.results import Recovery
from dmf.recovery.values import Found, Plan, oversampling
from dmf.solvers.outcomes import Outcome, uninterrupted
from dmf.solvers.runs import History

_PATIENCE = 3  # ranks without a better error before the path ends


@dataclass(frozen=True)
class RankStep:
    """The fit with one bound on the rank.

    Attributes
    ----------
    rank : int
        The bound; 0: nothing but offsets, or zero where the model has none.
    heldout_rmse, standard_error : float
        Root-mean-square error on the held-out entries, in the unit of the data, and its standard error. Squares of entries
        with weights are averaged with these, whose common factor does not matter.
    train_rmse : float
        The same on the entries fitted.
    found : int
        Rank of the fit; below the bound where the data support no more.
    noise : float
        Standard deviation of the noise that the fit sees, of an entry of weight 1; 0 where it is exact.
    seconds : float
    """

    rank: int
    heldout_rmse: float
    standard_error: float
    train_rmse: float
    found: int
    noise: float
    seconds: float


@dataclass(frozen=True, eq=False)
class RankPath:
    """Fits of growing rank, compared on the same held-out entries.

    Attributes
    ----------
    steps : tuple of RankStep
        One for each rank from 0 on.
    best : int
        The smallest rank whose error is within one standard error of the lowest; the standard error is that of the difference,
        entry by entry, which is much smaller than that of each error. Fits that leave part of their bound unused do not count.
    lowest : int
        The rank with the lowest error.
    n_heldout : int
        Number of held-out entries.
    offsets : bool
        Whether the model of rank `best` has row and column offsets.
    observations : Entries
        All entries, held-out ones included.
    seed : int
        Of the split and of the fits.
    """

    steps: tuple[RankStep, ...]
    best: int
    lowest: int
    n_heldout: int
    offsets: bool
    observations: Entries = field(repr=False)
    seed: int

    def refit(self) -> Recovery:
        """Recovery from all entries, held-out ones included, with the rank `best`."""
        if self.best == 0:
            return _offsets_alone(self.observations, self.offsets).named()
        return complete(self.observations, self.best, offsets=self.offsets, seed=self.seed)

    def __str__(self) -> str:
        chosen, lowest = self.steps[self.best], self.steps[self.lowest]
        text = f"rank {self.best}: held-out RMSE {chosen.heldout_rmse:.4g} +- {chosen.standard_error:.2g}"
        if self.lowest != self.best:
            text += f", within one standard error of the lowest, {lowest.heldout_rmse:.4g} at rank {self.lowest}"
        return text


def rank_path(
    data: Any,
    most: int | None = None,
    holdout: float = 0.1,
    *,
    offsets: bool | str = "auto",
    seed: int = 0,
    callback: Callable[[RankStep], Any] | None = None,
) -> RankPath:
    """Complete a matrix with bounds 0, 1, 2, ... on its rank, and compare the errors on entries held out.

    `complete` finds a rank by itself; the path shows how much depends on it, and gives the smallest rank that predicts as well
    as any, which is what to use where a simple model matters. It ends when three further ranks have not lowered the error by
    more than one standard error of the difference, or with an exact fit.

    Parameters
    ----------
    data : Entries, array of shape (d1, d2), or SciPy sparse matrix
        As for `complete`. Of entries with weights squared errors count by these. Where some may be wrong, pass those that
        ``complete(data, outliers=True).observations`` has left.
    most : int, 1 <= most <= min(d1, d2), optional
        Largest bound tried; unless given, the largest whose degrees of freedom do not exceed the entries fitted.
    holdout : float, 0 < holdout < 1
        Share of the entries held out; these are at least 20.
    offsets : bool or "auto"
        As for `complete`; at rank 0 what was decided at rank 1.
    seed : int
        Seed of the split, and of the fits.
    callback : callable, optional
        Called with each `RankStep` once it is done.

    Returns
    -------
    RankPath

    Raises
    ------
    RankError, ArgumentError, ShapeError, DTypeError, ObservationError
        If an argument is out of range, the data cannot be used, or too few entries would be held out.

    Notes
    -----
    The lowest of several held-out errors is a little too low, as it was chosen by them. For an honest error of a model whose
    rank was chosen here, hold out further entries.

    References
    ----------
    .. [1] L. Breiman, J. Friedman, R. Olshen, C. Stone: Classification and Regression Trees. 1984, section 3.4.3 (the rule of
       one standard error).
    """
    observations = timeless(data)
    kept, held = observations.split(holdout, seed)
    if held.n_measurements < FEWEST_HELD_OUT:
        raise ArgumentError(
            f"holdout={holdout} of {observations.n_measurements} entries holds out {held.n_measurements}, but ranks are "
            f"compared on at least {FEWEST_HELD_OUT}. Raise holdout, or let `complete` find the rank.",
            argument="holdout",
            value=held.n_measurements,
            limit=FEWEST_HELD_OUT,
        )
    most = _identifiable(kept) if most is None else check_rank(most, observations.shape)

    def fit(rank: int, solve: Callable[[], Recovery]) -> _Fit:
        done = _fit(rank, solve, kept, held)
        if callback is not None:
            callback(done.step)
        return done

    # Rank 1 first: it decides whether rank 0 has offsets.
    one = fit(1, lambda: complete(kept, 1, offsets=offsets, seed=seed))
    fits = [fit(0, lambda: _offsets_alone(kept, one.offsets)), one]
    leader = int(fits[1].beats(fits[0]))
    while len(fits) <= most and len(fits) - 1 - leader < _PATIENCE and fits[-1].step.noise > 0:
        fits.append(fit(len(fits), lambda: complete(kept, len(fits), offsets=offsets, seed=seed)))
        if fits[-1].beats(fits[leader]):
            leader = len(fits) - 1
    used = [k for k, each in enumerate(fits) if each.is_of_its_rank()]
    lowest = min(used, key=lambda k: fits[k].step.heldout_rmse)
    best = next(k for k in used if not fits[lowest].beats(fits[k]))
    steps = tuple(each.step for each in fits)
    return RankPath(steps, best, lowest, held.n_measurements, fits[best].offsets, observations, seed)


@dataclass(frozen=True)
class _Fit:
    """A step, squared errors on the held-out entries (over the largest of these) and weights, and whether it has offsets."""

    step: RankStep
    squares: np.ndarray
    weights: np.ndarray
    offsets: bool

    def is_of_its_rank(self) -> bool:
        """Whether it uses all of its bound; if not, it differs from that of lower rank by chance, however surely."""
        return self.step.found == self.step.rank

    def beats(self, other: _Fit) -> bool:
        """Whether its mean square is lower by more than one standard error of the difference, taken entry by entry."""
        if not self.is_of_its_rank():
            return False
        gain, error = mean_and_error(other.squares - self.squares, self.weights)
        return gain > error


def _fit(rank: int, solve: Callable[[], Recovery], kept: Entries, held: Entries) -> _Fit:
    begin = time.perf_counter()
    recovery = uninterrupted(solve())
    seconds = time.perf_counter() - begin
    errors, weights = _errors(recovery, held), _weights(held)
    rmse, error = root_mean_square(errors, weights)
    found = recovery.found
    if found.clipped is None:
        loss = number(kept.loss(*recovery.factors()))
        train = math.sqrt(2 * loss / (kept.n_measurements * kept.mean_weight))
    else:
        train = root_mean_square(_errors(recovery, kept), _weights(kept))[0]
    step = RankStep(rank, rmse, error, train, found.rank, found.noise, seconds)
    size = held.largest or 1.0  # so that no square leaves the range of floating point
    return _Fit(step, (errors / size) ** 2, weights, found.offsets)


def _errors(recovery: Recovery, entries: Entries) -> np.ndarray:
    return to_host(recovery.predicted(entries.product(*recovery.factors())) - entries.entries).astype(np.float64)


def _weights(entries: Entries) -> np.ndarray:
    """Weights of the entries, of mean 1."""
    if entries.weights is None:
        return np.ones(entries.n_measurements)
    weights = to_host(entries.weights).astype(np.float64)
    return weights / np.mean(weights)


def _identifiable(entries: Entries) -> int:
    """The largest rank, 1 at least, whose degrees of freedom do not exceed the number of entries."""
    d1, d2 = entries.shape
    ranks = np.arange(1, min(d1, d2) + 1)
    return max(1, int(np.count_nonzero(ranks * (d1 + d2 - ranks) <= entries.n_measurements)))


def _offsets_alone(entries: Entries, offsets: bool) -> Recovery:
    """The model without a low-rank part."""
    begin = time.perf_counter()
    fitted = fit_offsets(entries) if offsets else None
    xp = namespace(entries.like)
    d1, d2 = entries.shape
    like = {"dtype": entries.dtype, "device": device(entries.like)}
    model = LowRank(xp.zeros((d1, 1), **like), xp.zeros((1,), **like), xp.zeros((1, d2), **like), fitted)
    square = (entries if fitted is None else entries.minus(*fitted.factors())).mean_square
    history = History({"iteration": [0], "loss": [square / 2], "seconds": [time.perf_counter() - begin]})
    found = Found(
        rank=0,
        noise=math.sqrt(square),
        exact=square == 0 and not offsets,
        offsets=offsets,
        relative_residual=relative_residual(square / 2, entries.mean_square),
        oversampling=oversampling(entries.n_distinct, entries.shape, 0),
    )
    return with_exact_offsets(Recovery(model, found, Outcome.SOLVED, history, Plan(0, offsets), observations=entries))
