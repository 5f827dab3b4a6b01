"""Descent with another optimiser, rates, a schedule, batches or a loss, against dense computations in plain NumPy."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.errors import ArgumentError, ShapeError
from dmf.solvers import SGD, Adam, Huber, Logistic, Poisson, Squared
from dmf.solvers.bench import Factors, OptimizedDescent

from helpers import examples, observe, random_weights, seeds, start

SIZES = (5, 3, 4, 6)
LOSSES = [Squared(), Huber(0.4), Logistic(), Poisson()]


def gradients_of(weights, mask, target, derivative=lambda p, y: p - y):
    """dW_l of the summed loss on the entries in `mask`, with dense products."""
    w1, w2, w3 = weights
    residual = mask * derivative(w3 @ w2 @ w1, target)
    return (w3 @ w2).T @ residual, w3.T @ residual @ w1.T, residual @ (w2 @ w1).T


def masked(rng):
    mask, target = rng.random((6, 5)) < 0.6, rng.standard_normal((6, 5))
    rows, cols = np.nonzero(mask)
    return mask, target, dmf.SampledEntries(rows, cols, target[mask], (6, 5))


@examples(15)
@given(
    seed=seeds,
    momentum=st.sampled_from([0.0, 0.9]),
    alpha=st.sampled_from([1.0, 3.0, 0.0]),
    decay=st.sampled_from([0.0, 0.1]),
)
def test_momentum_rates_schedule_and_decay_by_hand(seed, momentum, alpha, decay):
    """``v <- momentum v + dW``, ``W <- (1 - f eta lambda) W - f rate eta v`` with the factor f of the iteration.

    The velocity holds the rates at which its gradients were taken.
    """
    rng = np.random.default_rng(seed)
    mask, target, seen = masked(rng)
    weights = random_weights(rng, SIZES, scale=0.5)
    rates, schedule, eta = (1.0, 0.5, 2.0), [1.0, 0.7, 0.1, 0.0, 0.5], 0.05
    run = dmf.gradient_descent(
        seen, dmf.DeepLinearNetwork(weights), SGD(eta, momentum), alpha, decay, "sum", 5, rates=rates, schedule=schedule
    )
    velocities = [0 * w for w in weights]
    for factor in schedule:
        steps = [factor * eta * rate * a for rate, a in zip(rates, (alpha, 1.0, alpha), strict=True)]
        found = gradients_of(weights, mask, target)
        velocities = [momentum * v + step * g for v, step, g in zip(velocities, steps, found, strict=True)]
        weights = [(1 - factor * eta * decay) * w - v for w, v in zip(weights, velocities, strict=True)]
    for one, other in zip(run.network.weights, weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_adam_by_hand(rng):
    mask, target, seen = masked(rng)
    weights = random_weights(rng, SIZES, scale=0.5)
    run = dmf.gradient_descent(seen, dmf.DeepLinearNetwork(weights), Adam(0.03), reduction="sum", iterations=6)
    means, squares = [0.0] * 3, [0.0] * 3
    for t in range(1, 7):
        found = gradients_of(weights, mask, target)
        means = [0.9 * m + 0.1 * g for m, g in zip(means, found, strict=True)]
        squares = [0.999 * s + 0.001 * g**2 for s, g in zip(squares, found, strict=True)]
        weights = [
            w - 0.03 * (m / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)
            for w, m, s in zip(weights, means, squares, strict=True)
        ]
    for one, other in zip(run.network.weights, weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_losses_are_what_their_derivatives_say(loss, rng):
    """By central differences, on both sides of every case, and finite where a naive formula overflows."""
    predictions = np.concatenate([rng.uniform(-2, 2, 40), [-1e-9, 0.0, 1e-9]])
    values = rng.integers(0, 2, 43).astype(float)
    step = 1e-6
    _, derivatives = loss.evaluate(predictions, values)
    for k in range(43):
        moved = [predictions + sign * step * (np.arange(43) == k) for sign in (1, -1)]
        above, below = (float(loss.evaluate(p, values)[0]) for p in moved)
        assert derivatives[k] == pytest.approx((above - below) / (2 * step), abs=1e-7)
    if not isinstance(loss, Poisson):  # whose mean at 800 is beyond every float
        total, derivatives = loss.evaluate(np.array([800.0, -800.0]), np.array([1.0, 0.0]))
        assert np.isfinite(total)
        assert np.all(np.isfinite(derivatives))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_one_step_with_a_loss_by_hand(reduction, rng):
    mask, target, seen = masked(rng)
    weights = random_weights(rng, SIZES)
    scale = 1.0 if reduction == "sum" else 1 / mask.sum()
    run = dmf.gradient_descent(
        seen, dmf.DeepLinearNetwork(weights), 0.1, reduction=reduction, iterations=1, loss=Huber(0.4)
    )
    found = gradients_of(weights, mask, target, lambda p, y: np.clip(p - y, -0.4, 0.4))
    for one, w, g in zip(run.network.weights, weights, found, strict=True):
        np.testing.assert_allclose(one, w - 0.1 * scale * g, rtol=0, atol=1e-13)


def test_a_loss_of_the_users_own_and_one_of_a_subclass_are_obeyed(rng):
    """The same loss by either way gives the same run, and one that differs from that of squares."""

    @dataclass(frozen=True)
    class Quartic:
        def evaluate(self, predictions, values):
            residuals = predictions - values
            return np.sum(residuals**4) / 4, residuals**3

    class QuarticEntries(dmf.SampledEntries):
        def loss(self, left, right):
            return Quartic().evaluate(self.predict(left, right), self.values)[0]

        def evaluate(self, left, right):
            total, derivatives = Quartic().evaluate(self.predict(left, right), self.values)
            return total, *self.adjoint(derivatives, left, right)

    _, _, seen = masked(rng)
    own = QuarticEntries(seen.rows, seen.cols, seen.values, seen.shape)
    network = start(seen)
    options = {"step_size": SGD(0.01, 0.5), "reduction": "sum", "iterations": 20}
    by_loss = dmf.gradient_descent(seen, network, loss=Quartic(), **options).history.loss
    by_class = dmf.gradient_descent(own, network, **options).history.loss
    squares = dmf.gradient_descent(seen, network, **options).history.loss
    np.testing.assert_allclose(by_loss, by_class, rtol=1e-12)
    assert abs(by_loss[-1] / squares[-1] - 1) > 0.1


def test_plain_options_give_the_compiled_run(rng):
    """Rates and a schedule of ones are gradient descent itself."""
    _, _, seen = masked(rng)
    network = start(seen, 3)
    plain = dmf.gradient_descent(seen, network, 0.05, 2.0, 0.01, "sum", 30)
    other = dmf.gradient_descent(
        seen, network, 0.05, 2.0, 0.01, "sum", 30, rates=[1, 1, 1], schedule=lambda iteration: 1.0, loss=Squared()
    )
    np.testing.assert_allclose(plain.history.loss, other.history.loss, rtol=1e-11)


@examples(10)
@given(seed=seeds, size=st.integers(1, 20))
def test_batches_make_up_an_epoch_and_their_gradients_that_of_all_entries(seed, size):
    """The gradients of an epoch, weighted by their batches, add up to that of all entries: each entry is in one batch."""
    rng = np.random.default_rng(seed)
    _, _, seen = masked(rng)
    network, count = start(seen), seen.n_measurements
    size = min(size, count)
    solver = OptimizedDescent(SGD(0.1), (1.0, 1.0), Factors(np.ones(1)), 0.0, "mean", None, size, seed)
    whole = OptimizedDescent(SGD(0.1), (1.0, 1.0), Factors(np.ones(1)), 0.0, "mean", None, 0, 0)
    number = -(-count // size)
    sizes = [min(size, count - k * size) for k in range(number)]
    batches = solver.prepare(seen, network)
    states = [solver._evaluated(batches, network.weights, k) for k in range(number)]
    loss, gradients = whole._evaluated(whole.prepare(seen, network), network.weights, 0)
    assert sum(share * state[0] for share, state in zip(sizes, states, strict=True)) / count == pytest.approx(loss)
    for layer, expected in enumerate(gradients):
        total = sum(share * state[1][layer] for share, state in zip(sizes, states, strict=True)) / count
        np.testing.assert_allclose(total, expected, rtol=0, atol=1e-12)


def test_stochastic_descent_completes_a_matrix_and_repeats_itself():
    rng = np.random.default_rng(0)
    target = rng.standard_normal((30, 2)) @ rng.standard_normal((2, 20))
    rows, cols = np.nonzero(rng.random(target.shape) < 0.6)
    seen = dmf.SampledEntries(rows, cols, target[rows, cols], target.shape)
    network = dmf.spectral_network(seen, 2, 2, 0.1)
    options = {"batch_size": 60, "record_every": 200}
    run = dmf.gradient_descent(seen, network, Adam(0.05), iterations=300, **options)
    assert np.linalg.norm(run.network.product() - target) < 0.03 * np.linalg.norm(target)
    one, same, other = (
        dmf.gradient_descent(seen, network, Adam(0.05), iterations=20, seed=seed, **options).network.weights[0]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)


def test_it_ends_at_the_last_finite_state():
    observations = observe("entries")
    run = dmf.gradient_descent(observations, start(observations, scale=1.0), SGD(40.0, 0.5), reduction="sum")
    assert run.outcome is dmf.solvers.Outcome.DIVERGED
    again = dmf.gradient_descent(
        observations, start(observations, scale=1.0), SGD(40.0, 0.5), reduction="sum", iterations=run.nit
    )
    np.testing.assert_array_equal(run.network.weights[0], again.network.weights[0])


@pytest.mark.parametrize(
    ("kind", "options", "error", "argument"),
    [
        ("entries", {"rates": [1.0]}, ShapeError, "rates"),
        ("entries", {"rates": [1.0, -1.0]}, ArgumentError, "rates"),
        ("entries", {"schedule": [1.0, 1.0]}, ShapeError, "schedule"),
        ("entries", {"schedule": lambda k: -1.0}, ArgumentError, "schedule"),
        ("entries", {"loss": "huber"}, ArgumentError, "loss"),
        ("weighted entries", {"loss": Huber()}, ArgumentError, "loss"),
        ("weighted entries", {"batch_size": 4}, ArgumentError, "batch_size"),
        ("full", {"batch_size": 4}, ArgumentError, "batch_size"),
        ("entries", {"batch_size": 0}, ArgumentError, "batch_size"),
        ("entries", {"step_size": Adam(), "exact_compression": True}, ArgumentError, "exact_compression"),
    ],
)
def test_bad_options(kind, options, error, argument):
    observations = observe(kind)
    with pytest.raises(error) as caught:
        dmf.gradient_descent(observations, start(observations), **{"step_size": 0.1, "iterations": 5, **options})
    assert caught.value.argument == argument
