"""Gradient descent: its options, its weight decay, and how it diverges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.solvers import Outcome
from dmf.solvers.descent import GradientDescent
from dmf.solvers.loop import run

from helpers import BASE, DTYPES, assert_finite, assert_same_weights, examples, observe, seeds, start

EPS = np.finfo(float).eps


@pytest.mark.parametrize("kind", BASE)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_descent_ends_at_the_last_finite_state_when_it_diverges(kind, depth):
    """Never NaN; the state is that of a run with exactly that budget, and the next step is the one that overflows."""
    observations = observe(kind)
    diverging = GradientDescent(40.0, reduction="sum")
    network = start(observations, depth, scale=1.0)
    recovery = run(diverging, observations, network, iterations=1000, record_every=300)
    assert recovery.outcome is Outcome.DIVERGED
    assert "smaller step_size than 40" in recovery.message
    assert_finite(recovery)
    last = int(recovery.history.iteration[-1])
    assert last < 1000
    again = run(diverging, observations, network, iterations=last, record_every=300)
    assert again.outcome is Outcome.BUDGET
    assert_same_weights(again, recovery)
    beyond = run(diverging, observations, network, iterations=last + 1, record_every=300)
    assert beyond.outcome is Outcome.DIVERGED
    assert_same_weights(beyond, recovery)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("step_size", 0.0),
        ("step_size", float("inf")),
        ("outer_scale", -1),
        ("weight_decay", -1e-9),
        ("weight_decay", None),
    ],
)
def test_options_of_descent_out_of_range(option, value):
    observations = observe("entries")
    with pytest.raises(dmf.errors.ArgumentError, match=f"{option}=") as caught:
        dmf.gradient_descent(observations, start(observations), **{"step_size": 0.1, "iterations": 1, option: value})
    assert (caught.value.argument, caught.value.limit) == (option, 0)


def test_an_unknown_reduction():
    observations = observe("entries")
    with pytest.raises(dmf.errors.ArgumentError, match="one of mean, sum") as caught:
        dmf.gradient_descent(observations, start(observations), 0.1, reduction="max")
    assert (caught.value.argument, caught.value.value, caught.value.limit) == ("reduction", "max", ("mean", "sum"))


def test_weight_decay_uses_the_step_and_not_the_outer_step():
    """One step by hand: ``W_l <- (1 - eta lambda) W_l - eta_l dW_l`` with ``eta_l = alpha eta`` on the outer layers."""
    observations = observe("full")
    network = start(observations, depth=3, width=2)
    w1, w2, w3 = network.weights
    residual = (w3 @ w2 @ w1 - observations.matrix) / 30
    eta, alpha, decay = 0.1, 5.0, 0.7
    recovery = dmf.gradient_descent(observations, network, eta, alpha, decay, iterations=1)
    expected = [
        (1 - eta * decay) * w1 - alpha * eta * (w3 @ w2).T @ residual,
        (1 - eta * decay) * w2 - eta * w3.T @ residual @ w1.T,
        (1 - eta * decay) * w3 - alpha * eta * residual @ (w2 @ w1).T,
    ]
    for one, other in zip(recovery.network.weights, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=50 * EPS)


class Uncompiled(dmf.FullMatrix):
    """A whole matrix whose steps are array code, as for any loss of one's own."""

    def loss(self, left, right):
        return super().loss(left, right)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@given(
    seed=seeds, shape=st.tuples(st.integers(1, 9), st.integers(1, 9)), depth=st.integers(1, 4), width=st.integers(1, 4)
)
@examples(6)
def test_compiled_steps_on_a_whole_matrix_are_those_of_array_code(dtype, seed, shape, depth, width):
    """Weights and losses of 20 steps at small widths, of other values of the same observations as well."""
    matrix = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    whole = dmf.FullMatrix(matrix)
    start = dmf.orthogonal_network(shape, depth, 0.5, width=width, seed=seed, like=matrix)
    options = {"outer_scale": 2.0, "weight_decay": 0.1, "reduction": "sum", "iterations": 20}
    for ours, plain in ((whole, Uncompiled(matrix)), (whole.with_values(-whole.values), Uncompiled(-matrix))):
        one, other = (dmf.gradient_descent(seen, start, 0.02, **options) for seen in (ours, plain))
        tolerance = 1_000 * np.finfo(dtype).eps
        np.testing.assert_allclose(one.history.loss, other.history.loss, rtol=tolerance, atol=tolerance)
        for a, b in zip(one.network.weights, other.network.weights, strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * (1 + np.abs(b).max()))
