"""Budgets, rejection, resumption and options of the solver that follows the gradient flow."""

import math

import numpy as np
import pytest

import dmf
from dmf.solvers import Outcome
from dmf.solvers import flow as module

from helpers import LIBRARIES, OTHERS, assert_finite, observe, signs_as_in, start, weights_of


def problem(dtype=np.float64, noise=0.0, move=np.asarray):
    rng = np.random.default_rng(3)
    target = rng.standard_normal((12, 2)) @ rng.standard_normal((2, 10)) / 4
    rows, cols = np.nonzero(rng.random(target.shape) < 0.7)
    values = (target[rows, cols] + noise * rng.standard_normal(rows.size)).astype(dtype)
    observations = dmf.SampledEntries(move(rows), move(cols), move(values), target.shape)
    return observations, dmf.spectral_network(observations, 4, 3, 0.05)


@pytest.mark.parametrize("iterations", [0, 1, 13])
def test_budgets_count_accepted_steps(iterations):
    history = dmf.solvers.follow_gradient_flow(*problem(), iterations=iterations).history
    assert history.iteration.tolist() == list(range(iterations + 1))
    assert history["time"][0] == 0
    assert np.all(np.diff(history["time"]) > 0)
    assert np.all(np.diff(history["evaluations"]) >= 2)


@pytest.mark.parametrize("accuracy", [1e-4, pytest.param(1e-2, marks=pytest.mark.slow)])
def test_an_interrupted_and_resumed_run_stays_on_the_path(accuracy):
    """The resumed run is at the same point at the same time, to the accuracy of the times, accuracy^(2/3)."""
    observations, network = problem()
    options = {"reduction": "sum", "accuracy": accuracy}
    first = dmf.solvers.follow_gradient_flow(observations, network, iterations=15, **options)
    rest = dmf.solvers.follow_gradient_flow(
        observations, first.network, iterations=300, callback=lambda s: {"x": s.network.product()}, **options
    )
    whole = dmf.solvers.follow_gradient_flow(
        observations, network, iterations=300, callback=lambda s: {"x": s.network.product()}, **options
    )
    begin = first.history["time"][-1]
    times = begin + rest.history["time"]
    later = (whole.history["time"] > begin) & (whole.history["time"] < times[-1])
    assert np.count_nonzero(later) > 50
    for time, product in zip(whole.history["time"][later], whole.history["x"][later], strict=True):
        after = int(np.searchsorted(times, time))
        share = (time - times[after - 1]) / (times[after] - times[after - 1])
        between = (1 - share) * rest.history["x"][after - 1] + share * rest.history["x"][after]
        assert np.linalg.norm(between - product) <= 3 * accuracy ** (2 / 3) * np.linalg.norm(product) + 1e-9


@pytest.mark.parametrize(
    ("dtype", "noise", "accuracy"), [(np.float32, 0.3, 0.5), (np.float32, 0.0, 1e-2), (np.float64, 0.3, 1e-2)]
)
def test_the_loss_never_rises_beyond_rounding(dtype, noise, accuracy):
    """Long after convergence, too, where the estimate of the error has nothing to say about stability."""
    observations, network = problem(dtype, noise)
    recovery = dmf.solvers.follow_gradient_flow(observations, network, accuracy=accuracy, iterations=400)
    assert recovery.outcome is Outcome.BUDGET
    assert_finite(recovery)
    roots = np.sqrt(recovery.history.loss)
    zero = np.sqrt(np.mean(np.asarray(observations.values, float) ** 2) / 2)
    assert np.all(np.diff(roots) <= 50 * np.finfo(dtype).eps * zero)
    assert noise or roots[-1] < 1e-4 * zero


@pytest.mark.parametrize("library", OTHERS)
def test_other_libraries_take_the_same_path(library):
    moves = LIBRARIES["numpy"], LIBRARIES[library]
    ends = [dmf.solvers.follow_gradient_flow(*problem(move=move), iterations=40) for move in moves]
    np.testing.assert_allclose(ends[1].history["time"], ends[0].history["time"], rtol=1e-7)
    ours, theirs = map(weights_of, ends)
    for one, other in zip(ours, signs_as_in(theirs, ours), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-7)


def test_accuracy_below_rounding_is_that_of_rounding():
    observations, network = problem(np.float32)
    recovery = dmf.solvers.follow_gradient_flow(observations, network, accuracy=1e-12, iterations=20)
    assert recovery.outcome is Outcome.BUDGET


class Cliff(dmf.FullMatrix):
    """Its loss is no number once its entries pass a height."""

    height = math.inf

    def evaluate(self, left, right):
        loss, *products = super().evaluate(left, right)
        return loss if np.max(left @ right) < self.height else np.float64("nan"), *products


def test_where_no_step_succeeds_the_run_ends_at_its_last_good_state(monkeypatch):
    monkeypatch.setattr(module, "_REJECTIONS", 3)
    observations = Cliff(np.full((4, 3), 1.0))
    seen = []

    def stop_the_path(snapshot):
        seen.append(snapshot.network)
        if snapshot.iteration == 12:
            observations.height = 0.0

    recovery = dmf.solvers.follow_gradient_flow(
        observations, dmf.spectral_network(observations, 1, 3, 0.1), iterations=2_000, callback=stop_the_path
    )
    assert recovery.outcome is Outcome.DIVERGED
    assert "larger accuracy" in recovery.message
    assert recovery.history.iteration[-1] == 12
    for weight, last in zip(recovery.network.weights, seen[-1].weights, strict=True):
        np.testing.assert_array_equal(weight, last)


@pytest.mark.parametrize("size", [30.0, pytest.param(1e-3, marks=pytest.mark.slow)])
def test_starts_far_from_the_solution_do_not_diverge(size):
    """Layers 30 times as large as needed: the curvature falls by 1e6 on the way."""
    observations = observe("entries")
    network = dmf.DeepLinearNetwork([size * w for w in start(observations).weights])
    recovery = dmf.solvers.follow_gradient_flow(observations, network, iterations=500)
    assert_finite(recovery)
    assert recovery.history.loss[-1] < 0.1 * recovery.history.loss[0]


def test_a_point_of_rest_is_recognised():
    observations = observe("full")
    network = dmf.DeepLinearNetwork([0 * w for w in start(observations).weights])
    recovery = dmf.solvers.follow_gradient_flow(observations, network, iterations=5)
    assert recovery.success
    assert recovery.outcome is Outcome.STATIONARY
    assert recovery.history.iteration.tolist() == [0]


def test_a_layer_may_begin_at_zero():
    observations = dmf.FullMatrix(np.diag([2.0, 1.0, 0.5]))
    network = dmf.DeepLinearNetwork([np.zeros((3, 3)), np.eye(3)])
    recovery = dmf.solvers.follow_gradient_flow(observations, network, iterations=500, tolerance=1e-12)
    assert recovery.success


def test_depth_one_decays_exponentially():
    """``W(t) = (1 - exp(-alpha t)) M`` from zero; an error of 1e-6 a step leaves 1e-4 in all."""
    matrix = np.arange(6.0).reshape(2, 3)
    recovery = dmf.solvers.follow_gradient_flow(
        dmf.FullMatrix(matrix),
        dmf.DeepLinearNetwork([np.zeros((2, 3))]),
        outer_scale=2.0,
        reduction="sum",
        accuracy=1e-6,
        iterations=200,
    )
    exact = -np.expm1(-2 * recovery.history["time"][-1]) * matrix
    np.testing.assert_allclose(recovery.network.product(), exact, atol=5e-4)


@pytest.mark.parametrize("outer_scale", [1.0, 3.0])
def test_weight_decay_is_that_of_descent_with_small_steps(outer_scale):
    """Layer by layer at the same time; the loss alone may rise on the way, the potential does not."""
    observations = observe("entries")
    network = dmf.DeepLinearNetwork([2 * w for w in start(observations).weights])
    options = {"outer_scale": outer_scale, "weight_decay": 0.3, "reduction": "sum"}
    run = dmf.solvers.follow_gradient_flow(observations, network, accuracy=1e-6, iterations=150, **options)
    time, steps = run.history["time"][-1], 4_000
    fine, coarse = (
        dmf.gradient_descent(
            observations, network, time / count, iterations=count, record_every=count, **options
        ).network
        for count in (2 * steps, steps)
    )
    for ours, one, two in zip(run.network.weights, fine.weights, coarse.weights, strict=True):
        np.testing.assert_allclose(
            ours, 2 * one - two, rtol=0, atol=1e-4 * np.abs(one).max()
        )  # Euler's error extrapolated
    without = dmf.solvers.follow_gradient_flow(observations, network, accuracy=1e-6, iterations=150, reduction="sum")
    assert np.linalg.norm(run.network.product()) < 0.99 * np.linalg.norm(without.network.product())


def test_weight_decay_alone_shrinks_exponentially():
    """Where nothing is to learn, ``W_l(t) = exp(-lambda t) W_l(0)``."""
    network = dmf.DeepLinearNetwork([np.diag([1.0, 2.0]), np.zeros((2, 2)), np.eye(2)])
    run = dmf.solvers.follow_gradient_flow(
        dmf.FullMatrix(np.zeros((2, 2))), network, weight_decay=0.5, accuracy=1e-6, iterations=100
    )
    for before, after in zip(network.weights, run.network.weights, strict=True):
        np.testing.assert_allclose(after, np.exp(-0.5 * run.history["time"][-1]) * before, atol=1e-5)


def test_the_stages_have_second_order_and_the_reach_they_claim():
    """On y' = -k y: the local error falls eightfold with half the step, and no mode up to the reach grows."""
    for stages in range(2, 16):

        def factor(product, stages=stages):
            one = np.ones(1)
            return module._legendre_step(lambda y: -product * y, one, -product * one, 1.0, stages)[0]

        errors = [abs(factor(k) - np.exp(-k)) for k in (0.02, 0.01)]
        assert 7 < errors[0] / errors[1] < 9
        for product in np.linspace(0, module._reach(stages), 200):
            assert abs(factor(product)) <= 1 + 1e-12


@pytest.mark.parametrize(
    ("option", "value", "limit"),
    [
        ("outer_scale", 0.0, 0),
        ("weight_decay", -1.0, 0),
        ("accuracy", 0.0, 0),
        ("accuracy", 1.0, 1),
        ("reduction", "max", ("mean", "sum")),
    ],
)
def test_options_out_of_range(option, value, limit):
    with pytest.raises(dmf.errors.ArgumentError, match=option) as caught:
        dmf.solvers.follow_gradient_flow(*problem(), **{option: value})
    assert (caught.value.argument, caught.value.value, caught.value.limit) == (option, value, limit)
