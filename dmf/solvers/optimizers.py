"""Optimisers: frozen dataclasses of options, with states that are tuples of arrays.

Steps are written with the in-place operators of the array API standard: on libraries whose arrays can change (NumPy, CuPy) they
reuse the memory of what they are given, which the caller therefore must own; on others the same operators make new arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from dmf.arrays.backend import Array, namespace
from dmf.arrays.checks import check_option
from dmf.errors import ArgumentError

Arrays = tuple[Array, ...]


class Optimizer(Protocol):
    """What `train` asks of an optimiser: a frozen dataclass of options with these functions."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def init(self, parameters: Sequence[Array]) -> Arrays:
        """State at the start."""

    def step(
        self, parameters: Sequence[Array], gradients: Sequence[Array], state: Arrays, rates: Sequence[float], count: int
    ) -> tuple[Arrays, Arrays]:
        """Parameters and state after step number `count`, from 1; may overwrite parameters, gradients and state."""


@dataclass(frozen=True)
class SGD:
    """Gradient descent, with momentum: ``v <- momentum v + gradient, w <- w - rate step_size v``.

    Full-batch or stochastic: that is a matter of the batches that `train` takes.

    Parameters
    ----------
    step_size : float, > 0
        Learning rate; parameters with a rate of their own take that many times this.
    momentum : float, 0 <= momentum < 1

    Raises
    ------
    ArgumentError
        If an option is out of range.
    """

    step_size: float
    momentum: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "step_size", check_option("step_size", self.step_size, strictly=True))
        object.__setattr__(self, "momentum", check_decay("momentum", self.momentum))

    def init(self, parameters: Sequence[Array]) -> Arrays:
        """Velocities, all 0; none without momentum."""
        return tuple(0 * w for w in parameters) if self.momentum else ()

    def step(
        self, parameters: Sequence[Array], gradients: Sequence[Array], state: Arrays, rates: Sequence[float], count: int
    ) -> tuple[Arrays, Arrays]:
        """Parameters and velocities after one step; the velocities hold ``rate step_size v``, which saves a pass."""
        moved, velocities = [], []
        for k, (w, g, rate) in enumerate(zip(parameters, gradients, rates, strict=True)):
            g *= rate * self.step_size
            if self.momentum:
                v = state[k]
                v *= self.momentum
                v += g
                velocities.append(v)
                g = v
            w -= g
            moved.append(w)
        return tuple(moved), tuple(velocities)


@dataclass(frozen=True)
class Adam:
    """Adam: steps along the mean gradient over the root of the mean square.

    Parameters
    ----------
    step_size : float, > 0
        Learning rate; parameters with a rate of their own take that many times this.
    beta1, beta2 : float, 0 <= beta < 1
        Decay of the running means of gradient and square.
    epsilon : float, > 0
        Added to the root, in units of the gradient.

    Raises
    ------
    ArgumentError
        If an option is out of range.

    References
    ----------
    .. [1] Kingma, Ba, ICLR 2015 (arXiv 1412.6980), algorithm 1.
    """

    step_size: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        for argument in ("step_size", "epsilon"):
            object.__setattr__(self, argument, check_option(argument, getattr(self, argument), strictly=True))
        for argument in ("beta1", "beta2"):
            object.__setattr__(self, argument, check_decay(argument, getattr(self, argument)))

    def init(self, parameters: Sequence[Array]) -> Arrays:
        """Mean gradients, then mean squares, all 0; ArgumentError if the parameters' dtype cannot hold `epsilon`."""
        for w in parameters:
            least = float(namespace(w).finfo(w.dtype).smallest_normal)
            if self.epsilon < least:
                raise ArgumentError(
                    f"epsilon={self.epsilon!r}, but the least number above 0 that {w.dtype} holds everywhere is {least:.3g}: a "
                    "gradient of 0 would be divided by 0. Pass a larger epsilon, or take float64.",
                    argument="epsilon",
                    value=self.epsilon,
                    limit=least,
                )
        return tuple(0 * w for w in (*parameters, *parameters))

    def step(
        self, parameters: Sequence[Array], gradients: Sequence[Array], state: Arrays, rates: Sequence[float], count: int
    ) -> tuple[Arrays, Arrays]:
        """Parameters and means after one step."""
        means, squares = list(state[: len(parameters)]), list(state[len(parameters) :])
        moved = []
        correction, root_correction = 1 - self.beta1**count, (1 - self.beta2**count) ** 0.5
        for k, (w, g, rate) in enumerate(zip(parameters, gradients, rates, strict=True)):
            m, s = means[k], squares[k]
            m *= self.beta1
            m += (1 - self.beta1) * g
            g *= g
            g *= 1 - self.beta2
            s *= self.beta2
            s += g
            root = namespace(s).sqrt(s)
            root /= root_correction
            root += self.epsilon
            change = m / root
            change *= rate * self.step_size / correction
            w -= change
            means[k], squares[k] = m, s
            moved.append(w)
        return tuple(moved), (*means, *squares)


def check_decay(argument: str, value: Any) -> float:
    """`value` if it is a number from 0 to below 1; ArgumentError otherwise."""
    checked = check_option(argument, value)
    if checked >= 1:
        raise ArgumentError(
            f"{argument}={value!r}, but it is below 1, or nothing is ever forgotten.",
            argument=argument,
            value=value,
            limit=1,
        )
    return checked
