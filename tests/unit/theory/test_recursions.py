"""The compiled recursions against plain NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.arrays.checks import check_option
from dmf.theory.checks import descent_coefficients, recorded_iterations
from dmf.theory.recursions import crossing, matrix_descent, scalar_descent

from helpers import examples

seeds = st.integers(0, 2**32 - 1)


def plain_matrix_descent(weights, target, rates, shrink, iterations):
    for _ in range(iterations):
        residual = np.linalg.multi_dot([*weights[::-1], np.eye(target.shape[1])]) - target
        gradients = []
        for layer in range(len(weights)):
            above, below = np.eye(weights[layer].shape[0]), np.eye(target.shape[1])
            for weight in weights[layer + 1 :]:
                above = weight @ above
            for weight in weights[:layer]:
                below = weight @ below
            gradients.append(above.T @ residual @ below.T)
        weights = [shrink * w - rate * g for w, rate, g in zip(weights, rates, gradients, strict=True)]
    return weights


@examples(12)
@given(sizes=st.lists(st.integers(1, 6), min_size=2, max_size=6), seed=seeds, shrink=st.floats(0.9, 1))
def test_matrix_descent_equals_its_plain_twin(sizes, seed, shrink):
    """Any sizes and depths, at every recorded iteration, up to rounding."""
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((a, b)) / 2 for b, a in zip(sizes, sizes[1:], strict=False)]
    target, rates = rng.standard_normal((sizes[-1], sizes[0])), rng.uniform(0.001, 0.01, len(weights))
    records, losses = matrix_descent(weights, target, rates, shrink, np.array([0, 3, 4]))
    for row, iterations in enumerate((0, 3, 4)):
        expected = plain_matrix_descent(weights, target, rates, shrink, iterations)
        for one, other in zip(records, expected, strict=True):
            np.testing.assert_allclose(one[row], other, rtol=1e-10, atol=1e-12)
        product = np.linalg.multi_dot([*expected[::-1], np.eye(sizes[0])])
        assert losses[row] == pytest.approx(0.5 * np.sum((product - target) ** 2), rel=1e-10)


@examples(12)
@given(depth=st.integers(1, 6), count=st.integers(1, 4), seed=seeds, shrink=st.floats(0.9, 1))
def test_scalar_descent_equals_its_plain_twin(depth, count, seed, shrink):
    rng = np.random.default_rng(seed)
    start, targets = rng.uniform(0.1, 1, (depth, count)), rng.uniform(0, 2, count)
    rates, weights = rng.uniform(0.01, 0.1, depth), start.copy()
    records = scalar_descent(start, targets, rates, shrink, np.arange(11))
    for row in range(11):
        np.testing.assert_allclose(records[row], weights, rtol=1e-12)
        product = np.prod(weights, axis=0)
        weights = shrink * weights - rates[:, None] * (product - targets) * product / weights


def test_weights_of_zero_are_no_obstacle():
    """Products of the other layers are formed without a division."""
    records = scalar_descent(np.array([[0.0], [0.5]]), np.ones(1), np.full(2, 0.1), 1.0, np.array([1]))
    np.testing.assert_allclose(records[0, :, 0], [0.05, 0.5])


def test_records_end_before_an_overflow():
    steps = np.arange(100)
    scalars = scalar_descent(np.full((3, 2), 0.1), np.array([0.1, 1.0]), np.full(3, 9.0), 1.0, steps)
    assert 1 < len(scalars) < 100
    assert np.isfinite(np.prod(scalars, axis=1) ** 2).all()
    matrices, losses = matrix_descent([0.1 * np.eye(2)] * 3, np.eye(2), np.full(3, 9.0), 1.0, steps)
    assert 1 < len(losses) < 100
    assert len(matrices[0]) == len(losses)
    assert np.isfinite(losses).all()


def test_crossing_counts_iterations():
    rates = np.full(3, 0.1)
    records = scalar_descent(np.full((3, 1), 0.3), np.ones(1), rates, 1.0, np.arange(500))
    product = np.prod(records, axis=1)[:, 0]
    expected = int(np.argmax(product >= 0.5))
    assert crossing(np.full(3, 0.3), 1.0, rates, 0.5, 500) == expected
    assert crossing(np.full(3, 0.3), 1.0, rates, 0.5, expected) == expected
    assert crossing(np.full(3, 0.3), 1.0, rates, 0.5, expected - 1) == -1
    assert crossing(np.full(3, 0.3), 1.0, rates, 0.01, 500) == 0


def test_recorded_iterations_hold_the_last():
    assert recorded_iterations(10, 4).tolist() == [0, 4, 8, 10]
    assert recorded_iterations(8, 4).tolist() == [0, 4, 8]
    assert recorded_iterations(0, 4).tolist() == [0]
    for arguments, name in (((-1, 1), "iterations"), ((1, 0), "record_every"), ((1.5, 1), "iterations")):
        with pytest.raises(dmf.errors.ArgumentError) as caught:
            recorded_iterations(*arguments)
        assert caught.value.argument == name


def test_coefficients_are_those_of_gradient_descent():
    rates, shrink = descent_coefficients(4, 0.5, 3.0, 0.1, "mean", 10)
    np.testing.assert_allclose(rates, [0.15, 0.05, 0.05, 0.15])
    assert shrink == pytest.approx(0.95)
    assert descent_coefficients(1, 0.5, 3.0, 0.1, "sum", 10)[0].tolist() == [1.5]
    with pytest.raises(dmf.errors.ArgumentError, match="reduction='max'"):
        descent_coefficients(4, 0.5, 3.0, 0.1, "max", 10)


@pytest.mark.parametrize("value", [True, "1", float("nan"), float("inf"), -1])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(dmf.errors.ArgumentError, match="it is a finite number of at least 0"):
        check_option("value", value)
