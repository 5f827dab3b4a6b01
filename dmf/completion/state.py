"""What the strategy knows, and what it asks for: never the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from dmf.arrays.backend import namespace
from dmf.models import LowRank
from dmf.observations import Observations
from dmf.recovery.values import UNITS_OF_ROUNDING
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import Run


class Stage(Enum):
    """What a run is for."""

    OUTLIERS = "outliers"
    CORE = "offsets of the dense core"
    OFFSETS = "offsets"
    SPREAD = "offsets of all"
    NOISE = "noise"
    LOWER = "lower noise"
    LOWEST = "lowest noise"
    REFINE = "refine"
    HOMOTOPY = "continue"
    SLOW_HOMOTOPY = "continue slowly"
    SETTLE = "settle"
    WEIGHTS = "weights of counts"
    IMPLICIT = "implicit feedback"


@dataclass(frozen=True)
class Facts:
    """What the decisions need to know of the data and of the user's choices.

    Parameters
    ----------
    shape : (int, int)
    n_distinct, n_measurements : int
    mean_square, spread : float
        Mean square of the measurements, and of what their mean leaves.
    rounding : float
        Root mean square of the residual up to which the measurements count as fitted to rounding.
    rank : int or None
        The user's bound.
    iterations : int
    seed : int
    offsets, plain : bool
        Whether a model with offsets is tried, and one without.
    core : (int, int) or None
        Shape of the dense core, where there is one.
    clipped : (float, float) or None
        Ends of the range in which values were clipped, where they were.
    """

    shape: tuple[int, int]
    n_distinct: int
    n_measurements: int
    mean_square: float
    spread: float
    rounding: float
    rank: int | None
    iterations: int
    seed: int
    offsets: bool = False
    plain: bool = True
    core: tuple[int, int] | None = None
    clipped: tuple[float, float] | None = None

    def freedom(self, rank: int) -> int:
        """Degrees of freedom of a matrix of this rank."""
        return rank * (sum(self.shape) - rank)

    def determined(self, rank: int, least: float) -> bool:
        """Whether there are at least `least` different measurements for each degree of freedom of a matrix of this rank."""
        return self.n_distinct >= least * self.freedom(rank)

    def largest_rank(self, bound: int, least: float) -> int:
        """The largest rank up to `bound` that is `determined`; 0 if none is."""
        return next((rank for rank in range(bound, 0, -1) if self.determined(rank, least)), 0)


@dataclass(frozen=True)
class Estimate:
    """What a run found.

    Parameters
    ----------
    model : LowRank
        Of the width of the run: components beyond `rank` are of no account.
    rank : int
    noise : float
        Standard deviation.
    loss : float
        Half the mean squared residual.
    outcome : Outcome
    explained : float
        Share of the variance of factors or offsets that their prior means explain, where they have any.
    """

    model: LowRank
    rank: int
    noise: float
    loss: float
    outcome: Outcome
    explained: float = 0.0

    @classmethod
    def of(cls, run: Run) -> Estimate:
        """The estimate of a run of a low-rank solver."""
        found, loss = run.findings, float(run.history.loss[-1])
        return cls(run.model, int(found["rank"]), found["noise"], loss, run.outcome, found.get("explained", 0.0))

    def noise_variance(self, facts: Facts) -> float:
        """Mean squared residual, for each measurement that the degrees of freedom of this rank leave."""
        return 2 * self.loss * facts.n_measurements / max(facts.n_measurements - facts.freedom(self.rank), 1)

    @property
    def saw_noise(self) -> bool:
        """Whether the level of noise settled above the lowest one looked at."""
        return self.outcome is Outcome.NOISE_SETTLED

    def is_exact(self, facts: Facts) -> bool:
        """Whether the measurements are fitted to rounding."""
        return math.sqrt(2 * self.loss) <= facts.rounding


@dataclass(frozen=True)
class Task:
    """The next run.

    Parameters
    ----------
    stage : Stage
    solver : Any
    start : LowRank, int or None
        An int asks for the spectral start of this width; None leaves the start to the solver.
    most : int or None
        Iterations at most, besides the budget.
    """

    stage: Stage
    solver: Any
    start: LowRank | int | None = None
    most: int | None = None


@dataclass(frozen=True)
class State:
    """What is known after some runs.

    Parameters
    ----------
    facts : Facts
    spent : int
        Iterations so far.
    broken : Outcome or None
        How divergence, a callback or a signal ended the last run.
    bound : int
        On the rank, in this run.
    estimate : Estimate or None
        Of the last run that estimated the noise.
    exact : Estimate or None
        The exact fit of the lowest rank so far, while lower ones are tried.
    refined : Estimate or None
        The best fit of fixed rank so far that left more than rounding: where noise so low is settled from.
    if_not_exact : callable or None
        Says what follows if the rank that is being refined is not exact.
    with_offsets : Estimate or None
        The fit with offsets, set aside while one without is tried.
    outcome : Outcome or None
        Of the whole, once there is nothing more to do; `result` is then what was found.
    """

    facts: Facts
    spent: int = 0
    broken: Outcome | None = None
    bound: int = 0
    estimate: Estimate | None = None
    exact: Estimate | None = None
    refined: Estimate | None = None
    if_not_exact: Callable[[State], Next] | None = None
    with_offsets: Estimate | None = None
    outcome: Outcome | None = None

    @property
    def result(self) -> Estimate:
        """The fit with offsets, if it stays, else the last estimate."""
        found = self.estimate if self.with_offsets is None else self.with_offsets
        assert found is not None
        return found

    @property
    def exhausted(self) -> bool:
        """Whether the user or the budget has ended the whole."""
        return self.broken is not None or self.spent >= self.facts.iterations


Next: TypeAlias = tuple[State, Task | None]


def epsilon_of(observations: Observations) -> float:
    """A unit in the last place of 1 in the dtype of the measurements."""
    return float(namespace(observations.like).finfo(observations.dtype).eps)


def to_rounding(epsilon: float) -> float:
    """Relative residual up to which measurements count as fitted to rounding, whose errors add up."""
    return epsilon ** (2 / 3)


def rounding_of(observations: Observations, left: float) -> float:
    """Root mean square of the residual up to which measurements are fitted to rounding, if offsets leave this mean square.

    Errors of rounding add up in a fit; to some units in the last place of what is measured at least.
    """
    epsilon = epsilon_of(observations)
    return max(
        to_rounding(epsilon) * math.sqrt(left), UNITS_OF_ROUNDING * epsilon * math.sqrt(observations.mean_square)
    )


def relative_residual(loss: float, mean_square: float) -> float:
    """Root mean square of the residual over that of the measurements."""
    return math.sqrt(2 * loss / mean_square) if mean_square > 0 else 0.0
