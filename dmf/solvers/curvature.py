"""How sharp the loss is at a network: Jacobian, tangent kernel, Gauss-Newton and Hessian operators, largest eigenvalues.

All of them work on layers and measurements, and never form a matrix. Layers are scaled by the square roots of their rates, so
that eigenvalues are those which a step of `gradient_descent` sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, partial

import numpy as np

from dmf.arrays.backend import Array, is_complex, namespace, number
from dmf.arrays.checks import REDUCTIONS, check_choice, check_option, layer_factors
from dmf.arrays.linalg import gaussian
from dmf.models import DeepLinearNetwork
from dmf.models.gradients import Weights, pull_back, push_forward
from dmf.observations import Observations

_MOST_STEPS = 1_000  # of the Lanczos iteration
_CHECK_EVERY = 5


def scale_of(reduction: str, observations: Observations) -> float:
    """Factor of the summed loss: 1 or 1/m."""
    return 1.0 if reduction == "sum" else 1.0 / observations.n_measurements


class Curvature:
    """The loss ``1/2 ||A(W_L...W_1) - y||^2`` around one network, as linear operators.

    Parameters
    ----------
    observations : Observations
    network : DeepLinearNetwork
    outer_scale : float, >= 0
        alpha: W_1 and W_L are scaled by its square root.
    reduction : {"mean", "sum"}

    Notes
    -----
    With D the rates of the layers, J the derivative of ``A(W_L...W_1)`` by the layers and c the factor of the loss (1, or 1/m):
    `ntk` is ``J D J^T`` (m x m), `gauss_newton` is ``c D^1/2 J^T J D^1/2`` and has the same largest eigenvalue times c, and
    `hessian` adds the term of the residuals. Directions are tuples of arrays, shaped as the layers.
    """

    def __init__(
        self,
        observations: Observations,
        network: DeepLinearNetwork,
        outer_scale: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        check_choice("reduction", reduction, REDUCTIONS)
        alpha = check_option("outer_scale", outer_scale)
        self.observations, self.network = observations, network
        self._scale = scale_of(reduction, observations)
        self._roots = [math.sqrt(factor) for factor in layer_factors(network.depth, alpha).tolist()]

    def jacobian(self, directions: Weights) -> Array:
        """``J D^1/2`` times directions: how the m predictions move."""
        return self.observations.predict(*push_forward(self.network.weights, self._scaled(directions)))

    def transposed(self, residuals: Array) -> Weights:
        """``D^1/2 J^T`` times an array of m numbers."""
        return self._scaled(pull_back(self.network.weights, partial(self.observations.adjoint, residuals)))

    def ntk(self, residuals: Array) -> Array:
        """The tangent kernel times an array of m numbers."""
        return self.jacobian(self.transposed(residuals))

    def gauss_newton(self, directions: Weights) -> Weights:
        """The Gauss-Newton matrix times directions."""
        return tuple(self._scale * part for part in self.transposed(self.jacobian(directions)))

    def hessian(self, directions: Weights) -> Weights:
        """The Hessian times directions."""
        first = self.gauss_newton(directions)
        if self.network.depth == 1:
            return first
        second = self._scaled(self._bending(self._scaled(directions)))
        return tuple(one + self._scale * other for one, other in zip(first, second, strict=True))

    def largest(self, operator: str = "gauss_newton", accuracy: float = 1e-3, seed: int = 0) -> float:
        """Upper bound on the largest eigenvalue of an operator on directions.

        Parameters
        ----------
        operator : {"gauss_newton", "hessian"}
        accuracy : float, > 0
            The bound is at most ``1 + accuracy`` times the eigenvalue, where that is positive and 1,000 steps suffice.
        seed : int
            Of the random direction from which the Lanczos iteration starts. The bound holds unless that has no share in the top
            eigenvector, which has probability 0.

        Returns
        -------
        float
        """
        check_choice("operator", operator, ("gauss_newton", "hessian"))
        check_option("accuracy", accuracy, strictly=True)
        apply, weights = getattr(self, operator), self.network.weights
        xp = namespace(*weights)
        start = _flat(tuple(gaussian(w.shape, seed + k, w) for k, w in enumerate(weights)), xp)
        if is_complex(start):  # operators are linear over the reals alone, and a real direction may be blind to a part
            start = start + 1j * gaussian(start.shape, seed + len(weights), start)
        return _largest_eigenvalue(lambda vector: _flat(apply(_layers(vector, weights, xp)), xp), start, accuracy)

    def _scaled(self, parts: Weights) -> Weights:
        return tuple(root * part for root, part in zip(self._roots, parts, strict=True))

    @cached_property
    def _residuals(self) -> Array:
        return self.observations.predict(*self.network.factors()) - self.observations.values

    def _bending(self, directions: Weights) -> Weights:
        """Derivative of the gradient along directions while the residuals stay.

        The derivative of the product along directions is the product of ``[[W, 0], [D, W]]``; its gradient in the W is asked for.
        """
        weights = self.network.weights
        xp = namespace(*weights)
        first, last = xp.concat([weights[0], directions[0]]), xp.concat([directions[-1], weights[-1]], axis=1)
        inner = [
            xp.concat([xp.concat([w, xp.zeros_like(w)], axis=1), xp.concat([d, w], axis=1)])
            for w, d in zip(weights[1:-1], directions[1:-1], strict=True)
        ]
        adjoint = partial(self.observations.adjoint, self._residuals)
        below, *between, above = pull_back((first, *inner, last), adjoint)
        found = [below[: weights[0].shape[0], :]]
        for weight, both in zip(weights[1:-1], between, strict=True):
            rows, columns = weight.shape
            found.append(both[:rows, :columns] + both[rows:, columns:])
        return (*found, above[:, weights[-1].shape[1] :])


def largest_curvature(
    observations: Observations,
    network: DeepLinearNetwork,
    outer_scale: float = 1.0,
    reduction: str = "mean",
    accuracy: float = 1e-3,
    seed: int = 0,
) -> float:
    """Largest eigenvalue of the Gauss-Newton Hessian at `network`, layers scaled as descent with `outer_scale` scales them.

    From above, so that where the residual is small gradient descent is stable for steps below 2 over this number.

    Parameters
    ----------
    observations : Observations
    network : DeepLinearNetwork
    outer_scale : float, >= 0
    reduction : {"mean", "sum"}
    accuracy : float, > 0
        The number is at most ``1 + accuracy`` times the eigenvalue.
    seed : int
        See `Curvature.largest`.

    Returns
    -------
    float
    """
    return Curvature(observations, network, outer_scale, reduction).largest("gauss_newton", accuracy, seed)


def _flat(parts: Weights, xp) -> Array:
    return xp.concat([xp.reshape(part, (-1,)) for part in parts])


def _layers(vector: Array, weights: Weights, xp) -> Weights:
    ends = np.cumsum([0, *(math.prod(w.shape) for w in weights)]).tolist()
    return tuple(xp.reshape(vector[a:b], w.shape) for a, b, w in zip(ends, ends[1:], weights, strict=False))


def _inner(one: Array, other: Array) -> float:
    """Over the reals: of complex arrays ``Re <one, other>``."""
    xp = namespace(one, other)
    return number(xp.real(xp.sum(xp.conj(one) * other)) if is_complex(one) else xp.sum(one * other))


def _largest_eigenvalue(apply: Callable[[Array], Array], start: Array, accuracy: float) -> float:
    """Top Ritz value of the Lanczos iteration, and the norm of its residual, as soon as that is small beside it.

    Without orthogonalising anew: that costs copies of the extreme eigenvalues, not their accuracy (C. C. Paige, 1976).
    """
    xp = namespace(start)
    size = number(xp.linalg.vector_norm(start))
    now, before, coupling = start / size, None, 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = apply(now)
        if before is not None:
            image = image - coupling * before
        diagonal.append(_inner(now, image))
        image = image - diagonal[-1] * now
        coupling = number(xp.linalg.vector_norm(image))
        ended = len(diagonal) == _MOST_STEPS or coupling <= float(xp.finfo(start.dtype).eps) * max(map(abs, diagonal))
        if ended or len(diagonal) % _CHECK_EVERY == 0:
            values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
            top, residual = float(values[-1]), coupling * abs(float(vectors[-1, -1]))
            if ended or residual <= 0.5 * accuracy * top:
                return top + residual
        beside.append(coupling)
        now, before = image / coupling, now
