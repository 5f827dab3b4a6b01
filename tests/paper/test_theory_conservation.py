"""What gradient flow conserves, with discrepant rates and weight decay, and how gradient descent drifts from it."""

from types import SimpleNamespace

import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.models.gradients import loss_and_gradients
from dmf.theory import BalanceDrift, balancedness, gradient_flow

from helpers import examples
from theory_cases import case, cases


@given(problem=cases(dtypes=["float64"]))
def test_one_step_moves_balance_by_the_square_of_the_step(problem):
    """Exactly ``C_l^+ = (1 - eta lambda)^2 C_l + eta^2 (alpha_{l+1} dW_{l+1}^T dW_{l+1} - alpha_l dW_l dW_l^T)``."""
    eta, alpha = problem.options["step_size"], problem.options["outer_scale"]
    end = problem.run(1).network
    m = problem.target.size if problem.options["reduction"] == "mean" else 1
    _, gradients = loss_and_gradients(problem.network.weights, dmf.FullMatrix(problem.target).evaluate)
    gradients = [g / m for g in gradients]
    rates = np.ones(problem.network.depth)
    rates[0] = rates[-1] = alpha
    shrink = (1 - eta * problem.options["weight_decay"]) ** 2
    before, after = balancedness(problem.network, alpha), balancedness(end, alpha)
    for k, (one, other) in enumerate(zip(before, after, strict=True)):
        change = rates[k + 1] * gradients[k + 1].T @ gradients[k + 1] - rates[k] * gradients[k] @ gradients[k].T
        size = np.linalg.norm(one) + np.linalg.norm(end.weights[k]) ** 2
        assert np.linalg.norm(shrink * one + eta**2 * change - other) <= 1e-12 * size


@examples(6)
@given(problem=cases(dtypes=["float64"]), time=st.floats(2, 6))
def test_drift_per_unit_of_time_is_proportional_to_the_step(problem, time):
    """Halving the step halves the drift over one stretch of time, in every layer."""
    drifts = []
    options = {**problem.options, "reduction": "sum"}
    if problem.options["reduction"] == "mean":
        options["step_size"] /= problem.target.size
        options["weight_decay"] *= problem.target.size
    for divisor in (50, 100):
        step = options["step_size"] / divisor
        watch = BalanceDrift(problem.network, options["outer_scale"], options["weight_decay"], step)
        count = int(time * divisor)
        count -= count % (divisor // 50)
        iterations = int(time * 50) * divisor // 50
        run = problem.run(iterations, iterations, watch, **{**options, "step_size": step})
        drifts.append(run.history["drift"][-1])
    assert (drifts[1] <= 0.53 * drifts[0] + 1e-12).all()
    assert (drifts[1] >= 0.47 * drifts[0] - 1e-12).all()


@pytest.mark.parametrize("mutation", ["none", "no alpha", "alpha on the wrong side", "no decay"])
def test_a_wrong_quantity_is_caught(mutation):
    """The drift of changed quantities does not fall with the step."""
    problem = case(1, (9,) * 4, [1.0, 0.5], alpha=3.0, decay=0.2, relative_scale=0.5)
    drifts = []
    for divisor in (10, 100):
        step = problem.options["step_size"] / divisor
        end = problem.run(40 * divisor, 40 * divisor, step_size=step).network
        kept = 1.0 if mutation == "no decay" else (1 - step * 0.2) ** (80 * divisor)
        alpha = {"no alpha": 1.0, "alpha on the wrong side": 1 / 3.0}.get(mutation, 3.0)
        pairs = zip(balancedness(problem.network, alpha), balancedness(end, alpha), strict=True)
        drifts.append(max(np.linalg.norm(after - kept * before) for before, after in pairs))
    ratio = drifts[1] / drifts[0]
    assert ratio < 0.12 if mutation == "none" else ratio > 0.5


@pytest.mark.parametrize("kind", ["completion", "sensing"])
def test_any_observations_conserve_balance(kind, rng):
    """Conservation needs no full observation: the drift falls with the step for completion and sensing too."""
    target, start = rng.standard_normal((7, 6)), dmf.orthogonal_network((7, 6), scale=0.5, seed=1)
    if kind == "completion":
        rows, cols = np.nonzero(rng.random((7, 6)) < 0.5)
        observations = dmf.SampledEntries(rows, cols, target[rows, cols], (7, 6))
    else:
        operator = rng.standard_normal((20, 7, 6))
        observations = dmf.LinearMeasurements(operator, np.tensordot(operator, target, 2))
    drifts = []
    for step in (2e-3, 1e-3):
        run = dmf.gradient_descent(
            observations,
            start,
            step,
            2.0,
            iterations=round(1 / step),
            record_every=1000,
            callback=BalanceDrift(start, 2.0),
        )
        drifts.append(run.history["drift"][-1])
    np.testing.assert_allclose(drifts[0] / drifts[1], 2, rtol=0.1)


@given(depth=st.integers(2, 5), alpha=st.floats(0.3, 4), decay=st.floats(0, 0.2), scale=st.floats(0.2, 0.8))
def test_scalars_of_the_flow_conserve_w_outer_squared_less_alpha_w_inner_squared(depth, alpha, decay, scale):
    """``a^2 - alpha b^2`` is constant under the flow, and with weight decay falls like exp(-2 lambda t)."""
    times = np.linspace(0, 5, 6)
    weights = gradient_flow([1.0], depth, scale, times, alpha, decay).weights[:, :, 0]
    if depth == 2:
        np.testing.assert_allclose(weights[:, 0], weights[:, 1], rtol=1e-9)
    else:
        kept = (weights[:, 0] ** 2 - alpha * weights[:, 1] ** 2) * np.exp(2 * decay * times)
        np.testing.assert_allclose(kept, kept[0], atol=1e-7)


def test_options_are_checked():
    network = dmf.orthogonal_network((4, 4))
    for options, name in (({"outer_scale": 0.0}, "outer_scale"), ({"weight_decay": 0.1}, "step_size")):
        with pytest.raises(dmf.errors.ArgumentError) as caught:
            BalanceDrift(network, **options)
        assert caught.value.argument == name


def test_depth_one_conserves_nothing_and_any_library_will_do():
    assert balancedness(dmf.DeepLinearNetwork([np.eye(3)])) == ()
    like = array_api_strict.ones((1,), device=array_api_strict.Device("device1"))
    network = dmf.orthogonal_network((4, 5), scale=0.5, like=like)
    assert BalanceDrift(network, 2.0)(SimpleNamespace(iteration=3, network=network))["drift"].tolist() == [0, 0]
