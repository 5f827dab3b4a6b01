"""The parts of a recovery: what was asked for, what was found, how far it was off on held-out entries, which runs were made."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dmf.arrays.backend import Array
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import Run

UNITS_OF_ROUNDING = 8.0  # in the last place of what is measured: a residual of no more is its rounding


def oversampling(measurements: int, shape: tuple[int, int], rank: int) -> float:
    """Measurements for each of the ``r (d1 + d2 - r)`` degrees of freedom of a matrix of this rank, or of rank 1 for rank 0."""
    rank = max(rank, 1)
    return measurements / (rank * (sum(shape) - rank))


@dataclass(frozen=True)
class Plan:
    """The checked choices of the user: one for `complete`, `sense`, `factorize`, rank paths, estimators and the program.

    Attributes
    ----------
    rank : int or None
        Upper bound; None: found from the data.
    offsets : bool or "auto"
        Whether mean, row and column offsets are part of the model.
    holdout : float, 0 <= holdout < 1
        Share of the entries that a first fit does not see.
    bounds : (float, float) or None
        Least and largest value of a prediction.
    iterations : int, >= 0
        Most iterations of all solvers together, for each fit.
    seed : int
    outliers : bool
        Whether some entries may be corrupted.
    """

    rank: int | None = None
    offsets: bool | str = False
    holdout: float = 0.0
    bounds: tuple[float, float] | None = None
    iterations: int = 10_000
    seed: int = 0
    outliers: bool = False


@dataclass(frozen=True, eq=False)
class Outliers:
    """Entries that were taken for corrupted.

    Attributes
    ----------
    rows, cols : int64 NumPy arrays, shape (n,)
        Their positions.
    values : NumPy array, shape (n,)
        What was observed there, less what the model says.
    """

    rows: np.ndarray
    cols: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return self.rows.shape[0]


@dataclass(frozen=True)
class Found:
    """What a recovery says of the matrix.

    Attributes
    ----------
    rank : int
    noise : float
        Standard deviation of the noise of an entry of weight 1, in the units of the data; 0 where the recovery is exact.
    exact : bool
        Whether a matrix of this rank fits all measurements to rounding, and these, which are more than its degrees of
        freedom, determine it: no other matrix of this rank near it fits them. Rows and columns without any entry are not
        looked at.
    offsets : bool
        Whether mean, row and column offsets are part of the model.
    relative_residual : float
        Root mean square of the residual, relative to that of the measurements.
    oversampling : float
        Different measurements for each degree of freedom of a matrix of this rank.
    undetermined : (tuple of int, tuple of int)
        The rows and columns without any entry, which get the mean of the others, or what features say. Of measurements fitted to
        rounding also those in which other values fit as well: with fewer entries than the rank, or in blocks that too few entries
        join to the largest one. Ascending.
    symmetric : bool
        Whether the measurements see the symmetric part of a matrix alone, which the recovery then is.
    constant : bool
        Whether all entries are the same number: these hold no ranking.
    clipped : (float, float) or None
        Ends of the range in which the values were clipped, either may be infinite: of those at an end the model takes what was
        measured to lie there or beyond, and predictions are expected values of what is clipped. None where they were not.
    """

    rank: int
    noise: float
    exact: bool
    offsets: bool = False
    relative_residual: float = 0.0
    oversampling: float = 0.0
    undetermined: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    symmetric: bool = False
    constant: bool = False
    clipped: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Errors on entries that a fit did not see.

    Attributes
    ----------
    rmse : float
        Root mean square, in the units of the data; each entry counts alike.
    standard_error : float
        Of `rmse`, by the delta method.
    count : int
        Number of entries.
    quantiles : tuple of float
        Sizes of residuals, ascending: a new one exceeds number k of n, counted from 1, with a probability of at most
        ``1 - k / (n + 1)``.
    residuals : array, shape (count,), or None
        Observed minus predicted values; not saved in model files.
    """

    rmse: float
    standard_error: float
    count: int
    quantiles: tuple[float, ...]
    residuals: Array | None = field(default=None, repr=False)


@dataclass(frozen=True)
class StageRun:
    """One of the runs that led to a recovery.

    Attributes
    ----------
    stage : str
        What it was for: see `dmf.completion.state.Stage`.
    fit : str
        "hold-out fit" for a fit without the held-out entries, "final fit" otherwise.
    solver : str
    outcome : Outcome
    message : str
    nit : int
        Number of iterations.
    seconds : float
    rank : int
    noise : float
    """

    stage: str
    fit: str
    solver: str
    outcome: Outcome
    message: str
    nit: int
    seconds: float
    rank: int
    noise: float

    @classmethod
    def of(cls, run: Run, stage: str, fit: str) -> StageRun:
        """The record of a run of a low-rank solver."""
        rank, noise = int(run.findings["rank"]), float(run.findings["noise"])
        seconds = float(run.history.seconds[-1])
        return cls(stage, fit, type(run.solver).__name__, run.outcome, run.message, run.nit, seconds, rank, noise)


@dataclass(frozen=True)
class RankingMeasures:
    """How well the best columns of rows hold those that were held out; means over rows, and their standard errors.

    Parameters
    ----------
    ndcg, ndcg_error : float
        Normalised discounted cumulative gain: a hit at place p counts ``1 / log2(p + 1)``, relative to the best order.
    recall, recall_error : float
        Share of the held-out columns that are among the best.
    average_precision, average_precision_error : float
        Mean over the hits of the share of hits up to there, relative to the most hits possible ("MAP").
    coverage : float
        Share of all columns that are among the best of some row.
    n_rows : int
        Rows with held-out entries; the others have no part in it.
    """

    ndcg: float
    ndcg_error: float
    recall: float
    recall_error: float
    average_precision: float
    average_precision_error: float
    coverage: float
    n_rows: int


@dataclass(frozen=True)
class Weighting:
    """How the counts of a model of implicit feedback were weighed: as they rank held-out ones best.

    Attributes
    ----------
    confidence, power : float
        A count n weighs ``confidence * n**power`` more than a cell that was never chosen.
    ridge : float
        Penalty on the squared entries of the factors.
    """

    confidence: float
    power: float
    ridge: float
