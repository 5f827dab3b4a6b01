"""Gradients by hand against finite differences, dense algebra and each other."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.arrays.backend import to_host
from dmf.models.gradients import loss_and_gradients, pull_back, push_forward

from helpers import (
    BASE,
    LIBRARIES,
    absolute_loss_and_gradients,
    dense_form,
    dense_loss_and_gradients,
    dense_product,
    examples,
    like,
    observe,
    random_weights,
    roundings,
    seeds,
)

EPS = np.finfo(float).eps
kinds = pytest.mark.parametrize("kind", BASE)


@st.composite
def networks(draw, least_depth=1):
    """(d1, d2), sizes (d2, w_1, ..., d1) of depth up to 5 with widths below and above some dimensions, a seed."""
    d1, d2 = draw(st.tuples(st.integers(3, 6), st.integers(3, 6)))
    widths = draw(st.lists(st.sampled_from([1, 2, 4]), min_size=least_depth - 1, max_size=4))
    return (d1, d2), (d2, *widths, d1), draw(seeds)


def inner(one, other):
    return sum(float(np.sum(a * b)) for a, b in zip(one, other, strict=True))


def absolute_product(weights):
    return dense_product([np.abs(w) for w in weights])


@kinds
@examples(4)
@given(case=networks())
def test_gradients_equal_finite_differences(kind, case):
    """Along one layer the loss is a quadratic polynomial, for which the central difference has no error of its own.

    So the step can be large (1), and what remains is rounding: at most K eps times the absolute terms of the loss at the
    two ends.
    """
    shape, sizes, seed = case
    observations, rng = observe(kind, seed, shape), np.random.default_rng(seed)
    weights = random_weights(rng, sizes)
    matrix, values = dense_form(observations), observations.values
    _, gradients = loss_and_gradients(weights, observations.evaluate)
    for layer, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
        assert gradient.shape == weight.shape
        direction = rng.standard_normal(weight.shape)

        def loss(t, layer=layer, direction=direction):
            moved = list(weights)
            moved[layer] = weights[layer] + t * direction
            residual = matrix @ dense_product(moved).ravel() - values
            return 0.5 * residual @ residual

        ends = list(weights)
        ends[layer] = np.abs(weights[layer]) + np.abs(direction)
        size, _ = absolute_loss_and_gradients(matrix, values, ends)
        difference = (loss(1) - loss(-1)) / 2
        assert abs(np.sum(gradient * direction) - difference) <= 2 * roundings(observations, weights) * EPS * size


@kinds
@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
@examples(2)
@given(case=networks())
def test_loss_and_gradients_equal_dense_algebra(kind, move, case):
    shape, sizes, seed = case
    observations = observe(kind, seed, shape, move=move)
    hosts = random_weights(np.random.default_rng(seed), sizes)
    loss, gradients = loss_and_gradients(tuple(like(observations, w) for w in hosts), observations.evaluate)
    matrix, values = dense_form(observations), to_host(observations.values)
    expected_loss, expected = dense_loss_and_gradients(matrix, values, hosts)
    size_of_loss, terms = absolute_loss_and_gradients(matrix, values, hosts)
    count = 2 * roundings(observations, hosts)
    assert abs(float(to_host(loss)) - expected_loss) <= count * EPS * size_of_loss
    for one, other, size in zip(gradients, expected, terms, strict=True):
        assert np.all(np.abs(to_host(one) - other) <= count * EPS * size)


@kinds
@examples(4)
@given(case=networks())
def test_float32_gradients_are_those_of_float64_up_to_rounding(kind, case):
    """And stay float32; the bound is K eps times the absolute terms."""
    shape, sizes, seed = case
    single = observe(kind, seed, shape, np.float32)
    weights = random_weights(np.random.default_rng(seed), sizes, np.float32)
    loss, gradients = loss_and_gradients(weights, single.evaluate)
    matrix, values = dense_form(single).astype(float), single.values.astype(float)
    expected_loss, expected = dense_loss_and_gradients(matrix, values, [w.astype(float) for w in weights])
    size_of_loss, terms = absolute_loss_and_gradients(matrix, values, weights)
    bound = 2 * roundings(single, weights) * np.finfo(np.float32).eps
    assert abs(float(loss) - expected_loss) <= 2 * bound * size_of_loss
    for one, other, size in zip(gradients, expected, terms, strict=True):
        assert one.dtype == np.float32
        assert np.all(np.abs(one - other) <= bound * size)


@kinds
@examples(4)
@given(case=networks())
def test_pull_back_is_the_adjoint_of_push_forward(kind, case):
    """``<A(dW[D]), z> = <D, dW^T[A^T z]>`` for any directions D and weights z, to K eps of the absolute terms."""
    shape, sizes, seed = case
    observations, rng = observe(kind, seed, shape), np.random.default_rng(seed)
    weights, directions = random_weights(rng, sizes), random_weights(rng, sizes)
    measurements = rng.standard_normal(observations.n_measurements)
    image = observations.predict(*push_forward(weights, directions))
    back = pull_back(weights, partial(observations.adjoint, measurements))
    assert [b.shape for b in back] == [w.shape for w in weights]
    terms = np.abs(measurements) @ np.abs(dense_form(observations)) @ sizes_of_tangent(weights, directions).ravel()
    assert abs(image @ measurements - inner(directions, back)) <= 2 * roundings(observations, weights) * EPS * terms


def sizes_of_tangent(weights, directions):
    """Sum over the layers of the product of absolute values with that layer replaced by its direction."""
    return sum(
        absolute_product([*weights[:layer], directions[layer], *weights[layer + 1 :]]) for layer in range(len(weights))
    )


@examples(12)
@given(case=networks())
def test_push_forward_equals_finite_differences(case):
    """The product is affine in each layer, so its difference along one layer is exact; their sum is the derivative."""
    _, sizes, seed = case
    rng = np.random.default_rng(seed)
    weights, directions = random_weights(rng, sizes), random_weights(rng, sizes)
    left, right = push_forward(weights, directions)
    product = dense_product(weights)
    assert (left.shape[0], right.shape[1]) == product.shape
    differences = sum(
        dense_product([*weights[:layer], weights[layer] + directions[layer], *weights[layer + 1 :]]) - product
        for layer in range(len(weights))
    )
    size = sizes_of_tangent(weights, directions) + 2 * len(weights) * absolute_product(weights)
    assert np.all(np.abs(left @ right - differences) <= (2 * sum(sizes) + 20) * EPS * size)


def dense_gauss_newton(observations, weights, rates, scale):
    """``scale D^1/2 J^T J D^1/2`` for J = dA(W)/dtheta and D the rates of the layers."""
    matrix, columns = dense_form(observations), []
    for layer, (weight, rate) in enumerate(zip(weights, rates, strict=True)):
        for k in range(weight.size):
            unit = np.zeros(weight.size)
            unit[k] = np.sqrt(rate)
            moved = [*weights[:layer], unit.reshape(weight.shape), *weights[layer + 1 :]]
            columns.append(matrix @ dense_product(moved).ravel())
    jacobian = np.stack(columns, axis=1)
    return scale * jacobian.T @ jacobian


@kinds
@pytest.mark.parametrize(("depth", "outer_scale", "reduction"), [(1, 1.0, "sum"), (2, 5.0, "mean"), (4, 0.5, "sum")])
def test_largest_curvature_is_the_top_eigenvalue(kind, depth, outer_scale, reduction):
    """From above, within the accuracy asked for."""
    observations = observe(kind, seed=3)
    network = dmf.DeepLinearNetwork(random_weights(np.random.default_rng(1), (*(5, 4, 3, 5)[:depth], 6)))
    rates = [outer_scale if layer in (0, depth - 1) else 1.0 for layer in range(depth)]
    scale = 1.0 if reduction == "sum" else 1 / observations.n_measurements
    top = np.linalg.eigvalsh(dense_gauss_newton(observations, network.weights, rates, scale))[-1]
    for accuracy in (1e-1, 1e-3, 1e-6):
        curvature = dmf.solvers.largest_curvature(observations, network, outer_scale, reduction, accuracy)
        assert (1 - 1e3 * EPS) * top <= curvature <= (1 + accuracy) * top


def test_largest_curvature_of_a_network_of_zeros_is_zero():
    network = dmf.DeepLinearNetwork([np.zeros((2, 5)), np.zeros((2, 2)), np.zeros((6, 2))])
    assert dmf.solvers.largest_curvature(observe("full"), network) == 0


@pytest.mark.parametrize("outer_scale", [1.0, 5.0])
def test_descent_is_stable_exactly_below_two_over_the_curvature(outer_scale):
    """Near an exact fit the loss falls with 1.8 / curvature and grows with 2.2 / curvature."""
    rng = np.random.default_rng(0)
    fit = random_weights(rng, (5, 3, 3, 6))
    observations = dmf.FullMatrix(dense_product(fit))
    start = dmf.DeepLinearNetwork([w + 1e-6 * d for w, d in zip(fit, random_weights(rng, (5, 3, 3, 6)), strict=True)])
    curvature = dmf.solvers.largest_curvature(observations, start, outer_scale, "sum")
    losses = [
        dmf.gradient_descent(
            observations, start, factor / curvature, outer_scale, reduction="sum", iterations=60
        ).history.loss[[0, -1]]
        for factor in (1.8, 2.2)
    ]
    assert losses[0][1] < losses[0][0]
    assert losses[1][1] > 10 * losses[1][0]
