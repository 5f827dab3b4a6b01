"""Inner layers that are one: their gradient against finite differences and dense products, and what ties change and do not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.errors import ArgumentError
from dmf.solvers import SGD, Adam, Huber

from helpers import examples, seeds


def problem(seed, depth, width):
    rng = np.random.default_rng(seed)
    mask, target = rng.random((6, 5)) < 0.6, rng.standard_normal((6, 5))
    mask[0, 0] = True
    shapes = (width, 5), (width, width), (6, width)
    first, core, last = (rng.standard_normal(shape) / width**0.5 for shape in shapes)
    seen = dmf.SampledEntries(*np.nonzero(mask), target[mask], (6, 5))
    return mask, target, seen, (first, core, last)


def network_of(parts, depth):
    first, core, last = parts
    return dmf.DeepLinearNetwork([first, *[core] * (depth - 2), last])


def loss_of(mask, target, parts, depth):
    first, core, last = parts
    return 0.5 * np.sum(mask * (last @ np.linalg.matrix_power(core, depth - 2) @ first - target) ** 2)


@examples(10)
@given(seed=seeds, depth=st.integers(3, 6), width=st.integers(1, 4))
def test_a_step_goes_along_the_gradient_with_respect_to_the_one_core(seed, depth, width):
    mask, target, seen, parts = problem(seed, depth, width)
    eta, size = 1e-3, 1e-5
    moved = dmf.gradient_descent(seen, network_of(parts, depth), eta, reduction="sum", iterations=1, tied=True).network
    for weight in moved.weights[2:-1]:
        np.testing.assert_array_equal(weight, moved.weights[1])
    for place, weight in ((0, moved.weights[0]), (1, moved.weights[1]), (2, moved.weights[-1])):
        gradient = np.zeros_like(parts[place])
        for index in np.ndindex(gradient.shape):
            ends = []
            for sign in (1, -1):
                changed = [part.copy() for part in parts]
                changed[place][index] += sign * size
                ends.append(loss_of(mask, target, changed, depth))
            gradient[index] = (ends[0] - ends[1]) / (2 * size)
        scale = max(np.abs(gradient).max(), 1.0)
        np.testing.assert_allclose((parts[place] - weight) / eta, gradient, rtol=0, atol=1e-6 * scale)


@examples(5)
@given(seed=seeds, depth=st.integers(3, 6), decay=st.sampled_from([0.0, 0.1]))
def test_steps_are_those_of_dense_products(seed, depth, decay):
    """Momentum, weight decay and outer rates, with the derivative of a power written out."""
    mask, target, seen, parts = problem(seed, depth, 3)
    run = dmf.gradient_descent(
        seen, network_of(parts, depth), SGD(0.01, 0.5), 2.0, decay, "sum", iterations=6, tied=True
    )
    velocities = [0 * part for part in parts]
    for _ in range(6):
        first, core, last = parts
        powers = [np.linalg.matrix_power(core, k) for k in range(depth - 1)]
        residual = mask * (last @ powers[-1] @ first - target)
        inner = last.T @ residual @ first.T
        gradients = [
            (last @ powers[-1]).T @ residual,
            sum(powers[k].T @ inner @ powers[depth - 3 - k].T for k in range(depth - 2)),
            residual @ (powers[-1] @ first).T,
        ]
        steps = 0.02, 0.01, 0.02
        velocities = [0.5 * v + step * g for v, step, g in zip(velocities, steps, gradients, strict=True)]
        parts = [(1 - 0.01 * decay) * part - v for part, v in zip(parts, velocities, strict=True)]
    for found, expected in zip(run.network.weights, network_of(parts, depth).weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@examples(4)
@given(seed=seeds, depth=st.integers(4, 6))
def test_from_a_spectral_start_ties_change_the_rate_of_the_core_alone(seed, depth):
    """With full observation inner layers are equal of themselves; a core moves L - 2 times as fast, unless its rate makes up."""
    rng = np.random.default_rng(seed)
    target = rng.standard_normal((12, 9))
    full = dmf.FullMatrix(target / np.linalg.norm(target, 2))
    start = dmf.spectral_network(full, rank=4, depth=depth, scale=0.7)
    options = {"reduction": "sum", "iterations": 50}
    plain = dmf.gradient_descent(full, start, 0.05, **options)
    rates = [1.0, *[1 / (depth - 2)] * (depth - 2), 1.0]
    tied = dmf.gradient_descent(full, start, 0.05, **options, rates=rates, tied=True)
    faster = dmf.gradient_descent(full, start, 0.05, **options, tied=True)
    np.testing.assert_allclose(tied.network.product(), plain.network.product(), rtol=0, atol=1e-12)
    assert faster.history.loss[-1] < plain.history.loss[-1]


@pytest.mark.parametrize("step", [Adam(0.02), SGD(0.05, 0.9)])
def test_tied_layers_stay_tied_and_complete_a_matrix(step, rng):
    target = rng.standard_normal((30, 2)) @ rng.standard_normal((2, 20))
    mask = rng.random(target.shape) < 0.6
    seen = dmf.SampledEntries(*np.nonzero(mask), target[mask], target.shape)
    start = dmf.spectral_network(seen, 2, 5, 0.5)
    run = dmf.gradient_descent(seen, start, step, iterations=1_500, record_every=1_500, tied=True)
    for weight in run.network.weights[2:-1]:
        np.testing.assert_array_equal(weight, run.network.weights[1])
    assert np.linalg.norm(run.network.product() - target) < 0.01 * np.linalg.norm(target)
    half = dmf.gradient_descent(
        seen, start, step, iterations=5, loss=Huber(1.0), batch_size=100, weight_decay=0.1, tied=True
    )
    np.testing.assert_array_equal(half.network.weights[1], half.network.weights[3])


@pytest.mark.parametrize(
    ("depth", "options", "argument"),
    [
        (2, {}, "tied"),
        (4, {"rates": [1.0, 1.0, 0.5, 1.0]}, "tied"),
        (4, {"exact_compression": True}, "exact_compression"),
    ],
)
def test_what_cannot_be_tied_is_refused(depth, options, argument, rng):
    full = dmf.FullMatrix(rng.standard_normal((6, 5)))
    start = dmf.spectral_network(full, 2, depth, 0.5)
    with pytest.raises(ArgumentError) as caught:
        dmf.gradient_descent(full, start, 0.1, iterations=1, tied=True, **options)
    assert caught.value.argument == argument


def test_inner_layers_that_differ_are_refused(rng):
    full = dmf.FullMatrix(rng.standard_normal((6, 5)))
    with pytest.raises(ArgumentError, match="spectral_network"):
        dmf.gradient_descent(full, dmf.orthogonal_network((6, 5), 4, 0.5), 0.1, iterations=1, tied=True)
