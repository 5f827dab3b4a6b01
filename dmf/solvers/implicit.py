"""Factors for counts such as clicks and plays, where what was not seen counts, too, with less confidence.

Every cell has a preference, 1 where something was counted and 0 elsewhere, and its squared error counts ``1 + w`` times, w = 0
where nothing was counted. In ``(1 + w)(1 - x)^2 = w (x - 1 - 1/w)^2 + x^2 + constant`` the second term is that of an empty
cell: over all cells it adds up to ``||U V^T||^2``, and what is left is a sum over the counted ones. Where ``V^T V`` is diagonal,
that norm is a ridge penalty of its diagonal on the rows of U, so each half of a sweep is one ridge regression on the counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, device, from_host, namespace, number, to_host
from dmf.arrays.checks import check_kind, check_option
from dmf.arrays.linalg import gaussian
from dmf.errors import ObservationError
from dmf.models import DeepLinearNetwork
from dmf.observations import Entries, SampledEntries
from dmf.observations.checks import check_rank
from dmf.solvers.loop import Callback, run
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import Run


@dataclass(frozen=True)
class WholeMatrix:
    """Alternating least squares over all cells, those that are not observed as zeros of weight 1.

    A state is (left, right, loss), with factors (d1, w) and (d2, w); an iteration fits both.

    Parameters
    ----------
    width : int, >= 1
    ridge : float, > 0
        Penalty on the squared entries of both factors.
    seed : int
        Of the Gaussian columns of the start.
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

    def init(self, observations: Entries, start: Any) -> Any:
        """Random columns, and rows of zeros."""
        like, (d1, d2) = observations.like, observations.shape
        left = namespace(like).zeros((d1, self.width), dtype=observations.dtype, device=device(like))
        right = gaussian((d2, self.width), self.seed, like) / self.width**0.5
        return left, right, observations.mean_square / 2

    def advance(self, observations: Entries, state: Any, iterations: int) -> tuple[Any, int]:
        """State after `iterations` sweeps, and their number."""
        for _ in range(iterations):
            left = _fitted(observations, 0, state[1], self.ridge).rows
            fit = _fitted(observations, 1, left, self.ridge)
            xp = namespace(left)
            grams = [xp.matrix_transpose(factor) @ factor for factor in (left, fit.rows)]
            square = fit.square + number(xp.sum(grams[0] * grams[1]))
            state = left, fit.rows, square / (2 * observations.n_measurements)
        return state, iterations

    def loss(self, state: Any) -> float:
        """Half the weighted squared error over all cells up to a constant, for each observed one, without the penalty."""
        return state[2]

    def model(self, observations: Entries, state: Any) -> DeepLinearNetwork:
        """Network of a state."""
        return DeepLinearNetwork((namespace(state[1]).matrix_transpose(state[1]), state[0]))

    def finished(self, state: Any) -> Outcome | None:
        """Never: it goes on until the loop ends it."""
        return None

    def findings(self, state: Any) -> dict[str, float]:
        """Nothing besides the loss."""
        return {}

    def advice(self, outcome: Outcome) -> str:
        """What to do after a run that ended like this."""
        return "Allow more iterations if the loss is still falling." if outcome is Outcome.BUDGET else ""


def _fitted(observations: Entries, side: int, factor: Array, ridge: float) -> Any:
    """Rows (side 0) or columns fitted to all cells: in coordinates in which the Gram matrix of `factor` is diagonal."""
    xp = namespace(factor)
    squares, turn = xp.linalg.eigh(xp.matrix_transpose(factor) @ factor)
    penalty = xp.maximum(squares, xp.zeros_like(squares)) + ridge
    fit = observations.ridge(side, factor @ turn, penalty)
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
        How often each cell was chosen, at least 0; cells that are not there were never chosen, as those of 0.
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
        _preferences(counts, float(confidence)),
        None,
        iterations=iterations,
        callback=callback,
    )


def _preferences(counts: SampledEntries, confidence: float) -> SampledEntries:
    """The chosen cells, of weight w and value ``1 + 1/w``."""
    numbers = to_host(counts.entries)
    chosen = np.flatnonzero(numbers > 0)
    if chosen.size == 0 or numbers.min() < 0:
        raise ObservationError(
            f"counts are from {numbers.min():g} to {numbers.max():g}, but a cell was chosen 0 times or more, and some cell must "
            "have been. Leave out cells whose count is unknown.",
            argument="counts",
            value=float(numbers.min()),
            limit=0,
        )
    xp, index = namespace(counts.values), from_host(chosen, counts.values)
    rows, cols, weights = (xp.take(a, index) for a in (counts.rows, counts.cols, confidence * counts.entries))
    return SampledEntries(rows, cols, 1 + 1 / weights, counts.shape, weights)
