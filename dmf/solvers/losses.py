"""Losses of predictions: what `gradient_descent` minimises in place of the squared one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from dmf.arrays.backend import Array, namespace
from dmf.arrays.checks import check_option


class Loss(Protocol):
    """A frozen dataclass of options with one function; write one for a loss of your own.

    Options are numbers or texts: they say in checkpoints what a run was asked for.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def evaluate(self, predictions: Array, values: Array) -> tuple[Array, Array]:
        """Sum of the losses of m predictions, an array of shape (), and its derivatives by them (m,)."""


@dataclass(frozen=True)
class Squared:
    """``(p - y)^2 / 2``."""

    def evaluate(self, predictions: Array, values: Array) -> tuple[Array, Array]:
        """Sum and derivatives."""
        residuals = predictions - values
        return 0.5 * namespace(residuals).sum(residuals * residuals), residuals


@dataclass(frozen=True)
class Huber:
    """Squared up to residuals of `width`, linear beyond: for measurements of which some are far off.

    Parameters
    ----------
    width : float, > 0
        In units of the measurements.
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", check_option("width", self.width, strictly=True))

    def evaluate(self, predictions: Array, values: Array) -> tuple[Array, Array]:
        """Sum and derivatives."""
        residuals = predictions - values
        xp = namespace(residuals)
        inside = xp.clip(residuals, -self.width, self.width)
        return xp.sum(inside * (residuals - 0.5 * inside)), inside


@dataclass(frozen=True)
class Logistic:
    """``log(1 + exp(p)) - y p``: for measurements that are 0 or 1, whose log-odds are the predictions."""

    def evaluate(self, predictions: Array, values: Array) -> tuple[Array, Array]:
        """Sum and derivatives."""
        xp = namespace(predictions)
        small = xp.exp(-xp.abs(predictions))
        softplus = xp.maximum(predictions, 0 * predictions) + xp.log1p(small)
        shares = xp.where(predictions >= 0, 1 / (1 + small), small / (1 + small))
        return xp.sum(softplus - values * predictions), shares - values


@dataclass(frozen=True)
class Poisson:
    """``exp(p) - y p``: for counts, the logarithms of whose means are the predictions."""

    def evaluate(self, predictions: Array, values: Array) -> tuple[Array, Array]:
        """Sum and derivatives."""
        xp = namespace(predictions)
        means = xp.exp(predictions)
        return xp.sum(means - values * predictions), means - values
