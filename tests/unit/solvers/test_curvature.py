"""Jacobian, tangent kernel and Hessian of the loss against finite differences and dense matrices."""

import numpy as np
import pytest

import dmf
from dmf.errors import ArgumentError
from dmf.models.gradients import loss_and_gradients
from dmf.solvers import Curvature

from helpers import BASE, observe, random_weights

kinds = pytest.mark.parametrize("kind", BASE)


def dotted(one, other):
    return sum(float(np.sum(a * b)) for a, b in zip(one, other, strict=True))


def dense(operator, weights):
    """Matrix of an operator on directions."""
    columns, sizes = [], [w.size for w in weights]
    for unit in np.eye(sum(sizes)):
        parts = np.split(unit, np.cumsum(sizes)[:-1])
        image = operator(tuple(part.reshape(w.shape) for part, w in zip(parts, weights, strict=True)))
        columns.append(np.concatenate([part.ravel() for part in image]))
    return np.stack(columns, axis=1)


@kinds
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize(("outer_scale", "reduction"), [(1.0, "sum"), (3.0, "mean")])
def test_the_hessian_is_the_derivative_of_the_gradient(kind, depth, outer_scale, reduction, rng):
    observations = observe(kind, seed=3)
    weights = tuple(random_weights(rng, (*(5, 4, 3, 4)[:depth], 6)))
    direction = tuple(random_weights(rng, (*(5, 4, 3, 4)[:depth], 6)))
    roots = [np.sqrt(outer_scale) if layer in (0, depth - 1) else 1.0 for layer in range(depth)]
    scale, step = (1.0 if reduction == "sum" else 1 / observations.n_measurements), 1e-5
    ends = [
        loss_and_gradients(
            tuple(w + sign * step * root * d for w, root, d in zip(weights, roots, direction, strict=True)),
            observations.evaluate,
        )[1]
        for sign in (1, -1)
    ]
    curvature = Curvature(observations, dmf.DeepLinearNetwork(weights), outer_scale, reduction)
    found = curvature.hessian(direction)
    for part, root, above, below in zip(found, roots, *ends, strict=True):
        expected = scale * root * (above - below) / (2 * step)
        np.testing.assert_allclose(part, expected, rtol=0, atol=1e-7 * np.abs(expected).max())
    residuals = rng.standard_normal(observations.values.shape)
    carried = curvature.transposed(residuals)
    assert dotted(carried, direction) == pytest.approx(float(residuals @ curvature.jacobian(direction)), rel=1e-10)
    assert float(residuals @ curvature.ntk(residuals)) == pytest.approx(dotted(carried, carried), rel=1e-10)


def test_the_sharpness_is_the_top_eigenvalue_of_the_hessian(rng):
    """Far from a fit it is not that of the Gauss-Newton matrix; at a fit they are one."""
    observations = observe("full", seed=3)
    network = dmf.DeepLinearNetwork(random_weights(rng, (5, 3, 3, 6)))
    curvature = Curvature(observations, network, reduction="sum")
    matrix = dense(curvature.hessian, network.weights)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12 * np.abs(matrix).max())
    top = np.linalg.eigvalsh(matrix)[-1]
    assert top <= curvature.largest("hessian", accuracy=1e-6) * (1 + 1e-12) <= top * (1 + 2e-6)
    assert abs(curvature.largest() / top - 1) > 1e-3
    at_fit = Curvature(dmf.FullMatrix(network.product()), network)
    assert at_fit.largest("hessian") == pytest.approx(at_fit.largest(), rel=1e-3)


def test_bad_arguments():
    observations = observe("full")
    network = dmf.spectral_network(observations, 2)
    with pytest.raises(ArgumentError) as caught:
        Curvature(observations, network).largest("ntk")
    assert caught.value.argument == "operator"
    with pytest.raises(ArgumentError) as caught:
        dmf.solvers.largest_curvature(observations, network, accuracy=0)
    assert caught.value.argument == "accuracy"
