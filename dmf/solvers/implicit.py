"""Factors for counts such as clicks and plays, where what was not seen counts, too, with less confidence.

Every cell has a preference, 1 where something was counted and 0 elsewhere, and its squared error counts ``1 + w`` times, w = 0
where nothing was counted. In ``(1 + w)(1 - x)^2 = w (x - 1 - 1/w)^2 + x^2 + constant`` the second term is that of an empty
cell: over all cells it adds up to ``||U V^T||^2``, and what is left is a sum over the counted ones. Where ``V^T V`` is diagonal,
that norm is a ridge penalty of its diagonal on the rows of U, so each half of a sweep is one ridge regression on the counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, device, from_host, namespace, number, to_host
from dmf.arrays.checks import check_kind, check_option
from dmf.arrays.linalg import gaussian
from dmf.errors import ObservationError
from dmf.models import DeepLinearNetwork, LowRank
from dmf.observations import Entries, SampledEntries
from dmf.observations.checks import check_rank
from dmf.solvers.loop import Callback, run
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import Run

_STILL = 1e-3  # relative change of the loss in one sweep below which a fit has settled


@dataclass(frozen=True)
class WholeMatrix:
    """Alternating least squares over all cells, those that are not observed as zeros of weight 1.

    A state is (left, right, loss, whether it has settled), with factors (d1, w) and (d2, w); an iteration fits both.

    Parameters
    ----------
    width : int, >= 1
        Columns beyond those of the start, where there is one, are Gaussian.
    ridge : float, > 0
        Penalty on the squared entries of both factors.
    seed : int
        Of the Gaussian columns.
    """

    width: int
    ridge: float
    seed: int = 0

    def rescaled(self, unit: float) -> WholeMatrix:
        """The same for data in another unit; that of the ridge penalty is the one of the matrix."""
        return replace(self, ridge=self.ridge / unit)

    def prepare(self, observations: Any, start: Any) -> Any:
        """The observations themselves."""
        return observations

    def init(self, observations: Entries, start: LowRank | None) -> Any:
        """The columns of the start, or random ones, and rows of zeros."""
        like, (d1, d2) = observations.like, observations.shape
        xp = namespace(like)
        left = xp.zeros((d1, self.width), dtype=observations.dtype, device=device(like))
        right = gaussian((d2, self.width), self.seed, like) / self.width**0.5
        if start is not None:
            known = xp.matrix_transpose(start.halves()[1])[:, : self.width]
            right = xp.concat([known, right[:, known.shape[1] :]], axis=1)
        return left, right, _loss(observations, observations.mean_square * observations.n_measurements), False

    def advance(self, observations: Entries, state: Any, iterations: int) -> tuple[Any, int]:
        """State after at most `iterations` sweeps, and their number."""
        for done in range(iterations):
            if state[3]:
                return state, done
            left = fitted_to_all(observations, 0, state[1], self.ridge).rows
            fit = fitted_to_all(observations, 1, left, self.ridge)
            xp = namespace(left)
            grams = [xp.matrix_transpose(factor) @ factor for factor in (left, fit.rows)]
            loss = _loss(observations, fit.square + number(xp.sum(grams[0] * grams[1])))
            if not math.isfinite(loss):
                return state, done
            state = left, fit.rows, loss, abs(loss - state[2]) <= _STILL * loss
        return state, iterations

    def loss(self, state: Any) -> float:
        """Half the weighted squared error over all cells, for each observed one, without the penalty."""
        return state[2]

    def model(self, observations: Entries, state: Any) -> DeepLinearNetwork:
        """Network of a state."""
        return DeepLinearNetwork((namespace(state[1]).matrix_transpose(state[1]), state[0]))

    def finished(self, state: Any) -> Outcome | None:
        """Whether the loss stands still."""
        return Outcome.SETTLED if state[3] else None

    def findings(self, state: Any) -> dict[str, float]:
        """The width; a level of noise is not estimated."""
        return {"rank": self.width, "noise": math.nan}

    def advice(self, outcome: Outcome) -> str:
        """What to do after a run that ended like this."""
        return "Allow more iterations if the loss is still falling." if outcome is Outcome.BUDGET else ""


def _loss(preferences: Entries, square: float) -> float:
    """Half of ``square`` and the constant of the sum over all cells, for each observed one."""
    values, weights = preferences.values, preferences.weights
    constant = values**2 / (2 if weights is None else 1 + weights)  # w (1 + 1/w)^2 / (1 + w) = 1 + 1/w, in any unit
    return (square - number(namespace(values).sum(constant))) / (2 * preferences.n_measurements)


def fitted_to_all(preferences: Entries, side: int, factor: Array, ridge: float) -> Any:
    """Rows (side 0) or columns fitted to all cells: in coordinates in which the Gram matrix of `factor` is diagonal."""
    xp = namespace(factor)
    squares, turn = xp.linalg.eigh(xp.matrix_transpose(factor) @ factor)
    penalty = xp.maximum(squares, xp.zeros_like(squares)) + ridge
    fit = preferences.ridge(side, factor @ turn, penalty)
    return fit._replace(rows=fit.rows @ xp.matrix_transpose(turn))


def implicit_feedback(
    counts: SampledEntries,
    rank: int,
    *,
    confidence: float = 1.0,
    ridge: float = 1.0,
    iterations: int = 15,
    seed: int = 0,
    callback: Callback | None = None,
) -> Run:
    """Factors whose product ranks the columns of each row by how likely they are chosen, from how often they were.

    Minimises ``sum over all cells of (1 + w)(p - x)^2 + ridge (||U||^2 + ||V||^2)``, with ``w = confidence * count``, p = 1 where
    something was counted and 0 elsewhere. The time of a sweep grows with the number of counts, not of cells.

    Parameters
    ----------
    counts : SampledEntries
        How often each cell was chosen, at least 0; repeated ones add up, and cells that are not there were never chosen.
    rank : int, 1 <= rank <= min(d1, d2)
    confidence : float, > 0
        How much one count weighs, relative to a cell that was not chosen.
    ridge : float, > 0
    iterations : int, >= 0
        Sweeps over both factors.
    seed : int
        Of the random start.
    callback : callable, optional
        As in `gradient_descent`.

    Returns
    -------
    Run
        Its network has depth 2. Of two such runs, the one whose held-out counts rank higher is the better one.

    Raises
    ------
    RankError, ArgumentError, ObservationError
        If an argument is out of range, a count is negative, or all of them are 0.

    References
    ----------
    .. [1] Hu, Koren, Volinsky, Collaborative filtering for implicit feedback datasets, ICDM 2008.
    """
    check_kind("counts", counts, SampledEntries, "Pass SampledEntries(rows, cols, counts, shape).")
    rank = check_rank(rank, counts.shape)
    for name, value in (("confidence", confidence), ("ridge", ridge)):
        check_option(name, value, strictly=True)
    return run(
        WholeMatrix(rank, float(ridge), seed),
        preferences(counts, float(confidence)),
        None,
        iterations=iterations,
        callback=callback,
    )


def preferences(counts: SampledEntries, confidence: float, power: float = 1.0) -> SampledEntries:
    """The chosen cells, of weight ``w = confidence * count**power`` and value ``1 + 1/w``; raises as `summed`."""
    chosen = summed(counts)
    weights = confidence * chosen.entries**power
    return SampledEntries(chosen.rows, chosen.cols, 1 + 1 / weights, chosen.shape, weights)


def summed(counts: SampledEntries) -> SampledEntries:
    """The counts that are not 0, those of one position added up.

    Raises
    ------
    ObservationError
        If a count is negative, or all of them are 0.
    """
    new, numbers = counts.new_positions, to_host(counts.entries)
    if numbers.min() < 0 or numbers.max() <= 0:
        raise ObservationError(
            f"counts are from {numbers.min():g} to {numbers.max():g}, but a cell was chosen 0 times or more, and some cell must "
            "have been. Leave out cells whose count is unknown.",
            argument="counts",
            value=float(numbers.min()),
            limit=0,
        )
    if new.all() and numbers.min() > 0:
        return counts
    if not new.all():
        numbers = np.bincount(np.cumsum(new) - 1, numbers).astype(numbers.dtype)
    at, numbers = np.flatnonzero(new)[numbers > 0], numbers[numbers > 0]
    rows, cols = (namespace(index).take(index, from_host(at, index)) for index in (counts.rows, counts.cols))
    return SampledEntries(rows, cols, from_host(numbers, counts.values), counts.shape)
