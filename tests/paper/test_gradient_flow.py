"""The solver that follows the gradient flow, against the flow's exact reduced dynamics, its invariants and its order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.theory import BalanceDrift, gradient_flow, learning_times

from helpers import examples
from theory_cases import low_rank


def follow(values, depth, scale, alpha=1.0, accuracy=1e-2, iterations=500, seed=0, size=12, tolerance=1e-6):
    """History of a run on a fully known matrix, with the component along each singular pair in "values"."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((d, len(values))))[0] for d in (size, size - 2))
    observations = dmf.FullMatrix((u * values) @ v.T)
    start = dmf.spectral_network(observations, len(values) + 1, depth, scale)
    return dmf.solvers.follow_gradient_flow(
        observations,
        start,
        outer_scale=alpha,
        reduction="sum",
        accuracy=accuracy,
        iterations=iterations,
        tolerance=tolerance,
        callback=lambda s: {"values": np.einsum("ik,ij,jk->k", u, s.network.product(), v)},
    ).history


def deviation(history, values, depth, scale, alpha):
    """Largest difference to the exact flow at the times of the records, relative to the first singular value."""
    exact = gradient_flow(values, depth, scale, history["time"], alpha).values
    return np.max(np.abs(history["values"] - exact)) / max(values)


@examples(3)
@given(
    depth=st.integers(2, 4),
    alpha=st.floats(0.3, 4),
    ratio=st.floats(1.2, 3),
    scale=st.floats(0.15, 0.4),
    seed=st.integers(0, 99),
)
def test_the_trajectory_converges_to_the_exact_flow(depth, alpha, ratio, scale, seed):
    """A method of second order under control of its local error: the error falls like accuracy^(2/3).

    From 1e-4 to 1e-6 it falls by 10^(4/3) = 21.5; within 40%, as the control is not exact. A first-order method would gain
    10, one of third order 32.
    """
    values = [ratio, 1.0]
    errors = [
        deviation(follow(values, depth, scale, alpha, accuracy, 5_000, seed), values, depth, scale, alpha)
        for accuracy in (1e-4, 1e-6)
    ]
    assert errors[0] <= 0.1
    assert 15 <= errors[0] / errors[1] <= 30


@examples(6)
@given(
    depth=st.integers(2, 4),
    alpha=st.floats(0.5, 5),
    ratios=st.lists(st.floats(1.3, 2.5), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_components_are_learned_one_after_another_and_on_time(depth, alpha, ratios, seed):
    """Half of each singular value is reached in order of size, within 12% of the flow's time at the default accuracy."""
    values = np.cumprod([1.0, *ratios])[::-1]
    scale = 0.05 * values[0] ** (1 / depth)
    history = follow(values, depth, scale, alpha, iterations=2_000, seed=seed)
    assert history.loss[-1] <= 1e-6
    assert np.all(np.diff(history.loss) <= 0)
    half = [np.interp(0.5, history["values"][:, k] / s, history["time"]) for k, s in enumerate(values)]
    assert np.all(np.diff(half) > 0)
    np.testing.assert_allclose(half, learning_times(values, depth, scale, 1.0, alpha), rtol=0.12)


def test_steps_follow_the_scale_of_time():
    """A start ten times smaller rests ten times longer (depth 3), at three times the gradients or less."""
    runs = [follow([1.0, 0.5], 3, scale) for scale in (1e-2, 1e-3)]
    times, evaluations = ([r[name][-1] for r in runs] for name in ("time", "evaluations"))
    assert times[1] > 9 * times[0]
    assert evaluations[1] < 3 * evaluations[0]


@pytest.mark.parametrize("kind", ["full", "completion", "sensing"])
@pytest.mark.parametrize("alpha", [1.0, pytest.param(3.0, marks=pytest.mark.slow)])
def test_balance_is_conserved_to_the_accuracy(kind, alpha, rng):
    """``W_{l+1}^T W_{l+1} / alpha_{l+1} - W_l W_l^T / alpha_l`` stays, for scalars ``w_outer^2 - alpha w_inner^2``."""
    observations = measured(kind, rng)
    start = dmf.orthogonal_network((9, 8), depth=3, scale=0.4, seed=1)
    drifts = []
    for accuracy in (1e-3, 1e-6):
        run = dmf.solvers.follow_gradient_flow(
            observations,
            start,
            outer_scale=alpha,
            accuracy=accuracy,
            iterations=3_000,
            tolerance=1e-8,
            callback=BalanceDrift(start, alpha),
        )
        assert run.success
        sizes = [np.linalg.norm(w) ** 2 for w in run.network.weights]
        drifts.append(np.max(run.history["drift"]) / max(sizes))
    assert drifts[0] <= 2 * 1e-3 ** (2 / 3)
    assert drifts[1] <= drifts[0] / 30


@pytest.mark.parametrize("kind", ["completion", "sensing"])
def test_it_is_the_limit_of_gradient_descent(kind, rng):
    """At the same time t = step_size * iterations descent is closer the smaller its step, in proportion."""
    observations = measured(kind, rng)
    start = dmf.spectral_network(observations, 4, 3, 0.2)
    flow = dmf.solvers.follow_gradient_flow(observations, start, outer_scale=2.0, accuracy=1e-8, iterations=400)
    off = []
    for count in (500, 1_000):
        step = flow.history["time"][-1] / count
        descent = dmf.gradient_descent(observations, start, step, 2.0, iterations=count, record_every=count)
        off.append(np.linalg.norm(descent.network.product() - flow.network.product()))
    assert 0 < off[1] < 0.01
    np.testing.assert_allclose(off[0] / off[1], 2, rtol=0.1)


def measured(kind, rng):
    """Observations of a 9 x 8 matrix of rank 2."""
    target = low_rank(rng, 9, 8, [1.0, 0.5])
    if kind == "full":
        return dmf.FullMatrix(target)
    if kind == "completion":
        rows, cols = np.nonzero(rng.random((9, 8)) < 0.7)
        return dmf.SampledEntries(rows, cols, target[rows, cols], target.shape)
    operator = rng.standard_normal((60, 9, 8)) / 8
    return dmf.LinearMeasurements(operator, np.tensordot(operator, target, 2))
