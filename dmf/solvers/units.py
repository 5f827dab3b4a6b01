"""Data of extreme size, brought to unit size before a solver sees them, and what it says brought back.

Solvers multiply and square what they compute with, so that numbers of 1e-100 vanish and numbers of 1e90 overflow. The factor is
a power of 4: it and its root change no digit. Descent and flow take steps in the user's units, and are left alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from dmf.models import DeepLinearNetwork, LowRank
from dmf.observations import Observations
from dmf.solvers.outcomes import Outcome

_USUAL = 2.0**32  # of sizes between this and its inverse, no product of a few leaves the range of float32


def unit_of(observations: Observations) -> float:
    """A power of 4 near the largest measurement; 1 where that is no extreme size."""
    size = observations.largest
    return 1.0 if size == 0 or 1 / _USUAL <= size <= _USUAL else 4.0 ** round(math.log(size, 4))


@dataclass(frozen=True)
class InUnits:
    """A solver that sees data in another unit; see `dmf.solvers.loop.Solver` for its functions.

    Parameters
    ----------
    solver : Solver
        With its options in that unit.
    unit : float
        What is 1 to the solver.
    """

    solver: Any
    unit: float

    def prepare(self, observations: Observations, start: Any) -> Any:
        """What the solver prepares of the data in its unit."""
        return self.solver.prepare(observations.scaled(1 / self.unit), scaled(start, 1 / self.unit))

    def init(self, data: Any, start: Any) -> Any:
        """State at the start, in the unit of the solver."""
        return self.solver.init(data, scaled(start, 1 / self.unit))

    def advance(self, data: Any, state: Any, iterations: int) -> tuple[Any, int]:
        """That of the solver."""
        return self.solver.advance(data, state, iterations)

    def loss(self, state: Any) -> float:
        """Training loss in the user's unit."""
        return self.solver.loss(state) * self.unit * self.unit

    def model(self, data: Any, state: Any) -> Any:
        """What a state has fitted, in the user's unit."""
        return scaled(self.solver.model(data, state), self.unit)

    def finished(self, state: Any) -> Outcome | None:
        """That of the solver."""
        return self.solver.finished(state)

    def findings(self, state: Any) -> dict[str, float]:
        """What the solver knows besides; noise in the user's unit."""
        found = self.solver.findings(state)
        return found | ({"noise": found["noise"] * self.unit} if "noise" in found else {})

    def advice(self, outcome: Outcome) -> str:
        """That of the solver."""
        return self.solver.advice(outcome)


def scaled(model: LowRank | DeepLinearNetwork | None, factor: float) -> Any:
    """`factor` times a model, of the same kind."""
    if model is None:
        return None
    if isinstance(model, DeepLinearNetwork):
        root = factor ** (1 / model.depth)
        return DeepLinearNetwork(root * weight for weight in model.weights)
    offsets = model.offsets
    if offsets is not None:
        offsets = replace(offsets, mean=factor * offsets.mean, row=factor * offsets.row, col=factor * offsets.col)
    return replace(model, s=factor * model.s, offsets=offsets)
