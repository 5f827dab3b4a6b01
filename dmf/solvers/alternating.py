"""Alternating minimisation: the paper's baseline."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from dmf.arrays.backend import number
from dmf.arrays.checks import check_option
from dmf.arrays.linalg import conjugate_gradient
from dmf.models import DeepLinearNetwork, spectral_network
from dmf.observations import Observations
from dmf.solvers.checkpoints import CheckpointLike
from dmf.solvers.loop import Callback, run
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import Run


@dataclass(frozen=True)
class AlternatingMinimization:
    """Each iteration solves for the left factor, then for the right one; a state is (left, right, loss)."""

    ridge: float = 0.0
    inner_tolerance: float = 1e-10
    inner_iterations: int = 200

    def rescaled(self, unit: float) -> AlternatingMinimization:
        """The same for data in another unit; that of the ridge penalty is the one of the matrix."""
        return replace(self, ridge=self.ridge / unit)

    def prepare(self, observations: Observations, start: Any) -> Observations:
        """The observations themselves."""
        return observations

    def init(self, observations: Observations, network: DeepLinearNetwork) -> Any:
        """State at the start."""
        left, right = network.factors()
        return left, right, self._loss(observations, left, right)

    def advance(self, observations: Observations, state: Any, iterations: int) -> tuple[Any, int]:
        """State after at most `iterations` sweeps, and their number."""
        for step in range(iterations):
            left, right, _ = state
            left = self._solve(observations, left, right, 0)
            right = self._solve(observations, left, right, 1)
            loss = self._loss(observations, left, right)
            if not math.isfinite(loss):
                return state, step
            state = left, right, loss
        return state, iterations

    def _solve(self, observations, left, right, side):
        """Best left (side 0) or right (side 1) factor for the other one, starting from the present one."""
        factors = [left, right]

        def normal_map(factor):
            moved = [factor, right] if side == 0 else [left, factor]
            return observations.adjoint(observations.predict(*moved), left, right)[side] + self.ridge * factor

        target = observations.adjoint(observations.values, left, right)[side]
        return conjugate_gradient(normal_map, target, factors[side], self.inner_tolerance, self.inner_iterations)

    def _loss(self, observations, left, right):
        return number(observations.loss(left, right)) / observations.n_measurements

    def loss(self, state: Any) -> float:
        """Training loss of a state."""
        return state[2]

    def model(self, observations: Observations, state: Any) -> DeepLinearNetwork:
        """Network of a state."""
        return DeepLinearNetwork((state[1], state[0]))

    def finished(self, state: Any) -> Outcome | None:
        """Never: it goes on until the loop ends it."""
        return None

    def findings(self, state: Any) -> dict[str, float]:
        """Nothing besides the loss."""
        return {}

    def advice(self, outcome: Outcome) -> str:
        """What to do after a run that ended like this."""
        return {
            Outcome.DIVERGED: "Pass a ridge above 0, or a smaller rank: some rows have fewer samples than the rank.",
            Outcome.BUDGET: "Allow more iterations if the loss is still falling.",
        }.get(outcome, "")


def alternating_minimization(
    observations: Observations,
    rank: int,
    ridge: float = 0.0,
    iterations: int = 100,
    tolerance: float = 0.0,
    record_every: int = 1,
    callback: Callback | None = None,
    seed: int = 0,
    checkpoint: CheckpointLike | None = None,
    resume: bool = False,
) -> Run:
    """Fit two factors in turns, each by least squares: the AltMin baseline of the paper.

    Parameters
    ----------
    observations : Observations
    rank : int, 1 <= rank <= min(d1, d2)
        Width of the factors; unlike that of a deep network it must be right, as an excess is fitted to the samples.
    ridge : float, >= 0
        Added to each least-squares problem as ``ridge/2 ||factor||_F^2``.
    iterations : int, >= 0
        Sweeps over both factors; exact budget.
    tolerance : float, >= 0
        Converged once the loss (mean, as in `gradient_descent`) is at or below it.
    record_every : int, >= 1
    callback, checkpoint, resume
        As in `gradient_descent`.
    seed : int
        Seed of the randomised singular value decomposition of the start, the surrogate's top singular vectors.

    Returns
    -------
    Run
        Its network has depth 2.

    Raises
    ------
    RankError, ArgumentError
        If an argument is out of range.

    References
    ----------
    .. [1] Jain, Netrapalli, Sanghavi, STOC 2013 (arXiv 1212.0467).
    .. [2] Kwon et al., AISTATS 2024 (arXiv 2311.05061), experiments.
    """
    check_option("ridge", ridge)
    size = math.sqrt(observations.mean_square) or 1.0
    return run(
        AlternatingMinimization(float(ridge)),
        observations,
        spectral_network(observations, rank, depth=2, scale=math.sqrt(size), seed=seed),
        iterations=iterations,
        tolerance=tolerance,
        record_every=record_every,
        callback=callback,
        checkpoint=checkpoint,
        resume=resume,
    )
