"""The spectral start decouples into scalars (Kwon et al. 2024, section 4); its flow and closed forms."""

import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.theory import closed_form_flow, gradient_flow, reduced_dynamics, stable_step_size

from helpers import examples
from theory_cases import TOLERANCE, alphas, decays, low_rank, seeds


@st.composite
def spectral_problems(draw, dtypes=("float64", "float32")):
    """Target, bases, singular values (zeros beyond the rank), depth, scale and options of gradient descent."""
    depth, rank, extra = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(0, 2))
    d1, d2 = draw(st.integers(rank + extra, 12)), draw(st.integers(rank + extra, 12))
    # Distinct by a margin: equal singular values have no singular vectors of their own.
    values = np.cumsum(draw(st.lists(st.floats(0.15, 1), min_size=rank, max_size=rank)))[::-1]
    alpha, decay = draw(alphas), draw(decays)
    dtype, reduction = draw(st.sampled_from(dtypes)), draw(st.sampled_from(["sum", "mean"]))
    target = low_rank(np.random.default_rng(draw(seeds)), d1, d2, values).astype(dtype)
    m = d1 * d2 if reduction == "mean" else 1
    options = {
        "step_size": m * draw(st.floats(0.05, 0.7)) * stable_step_size(values, depth, alpha),
        "outer_scale": alpha,
        "weight_decay": decay / m,
    }
    scale = draw(st.floats(0.05, 1)) * float(values[0]) ** (1 / depth)
    return target, np.append(values, np.zeros(extra)), depth, scale, options, reduction, m


@examples(40)
@given(problem=spectral_problems())
def test_descent_from_the_spectral_start_is_a_recursion_of_scalars(problem):
    """All layers stay diagonal in the singular bases of M, with the entries of the recursion, at every iteration."""
    target, values, depth, scale, options, reduction, m = problem
    observations = dmf.FullMatrix(target)
    start = dmf.spectral_network(observations, len(values), depth, scale)
    u, _, vt = observations.surrogate_svd(len(values))
    scalars = {**options, "step_size": options["step_size"] / m, "weight_decay": options["weight_decay"] * m}
    trajectory = reduced_dynamics(values, depth, scale, **scalars, iterations=40, record_every=10)
    found = []
    dmf.gradient_descent(
        observations,
        start,
        **options,
        reduction=reduction,
        iterations=40,
        record_every=10,
        callback=lambda s: found.append((s.iteration, s.network)),
    )
    assert trajectory.complete
    assert trajectory.iteration.tolist() == [0, 10, 20, 30, 40]
    tolerance = TOLERANCE[str(target.dtype)]
    for iteration, network in found:  # ends early at a loss of exactly 0
        index = iteration // 10
        expected = trajectory.network(index, u, vt)
        assert expected.dtype == network.dtype
        for one, other in zip(expected.weights, network.weights, strict=True):
            assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(other)
        product = (u * trajectory.values[index]) @ vt
        size = np.linalg.norm(target) + np.linalg.norm(product)
        assert np.linalg.norm(product - network.product()) <= tolerance * size


def mutated(values, depth, scale, step_size, alpha, decay, steps, change):
    """The recursion in plain NumPy, with one change."""
    factors = np.ones(depth)
    factors[0] = factors[-1] = 1.0 if change == "no alpha" else alpha
    weights = np.full((depth, len(values)), scale)
    for _ in range(steps):
        product = np.prod(weights, axis=0)
        others = product if change == "all layers in the product" else product / weights
        if change == "one layer too few":
            others = others / weights.mean(axis=0)
        residual = product - (0.999 if change == "target" else 1.0) * values
        rates = step_size * factors[:, None]
        shrink = 1 - (rates if change == "decay times alpha" else step_size) * decay
        if change == "no decay":
            shrink = 1.0
        weights = shrink * weights - rates * residual * others
    return weights


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize(
    "change",
    [
        "none",
        "no alpha",
        "no decay",
        "decay times alpha",
        "all layers in the product",
        "one layer too few",
        "target",
    ],
)
def test_a_wrong_recursion_is_caught(depth, change):
    """Weights of the network agree with the recursion to 1e-10, and with each changed recursion not to 1e-5."""
    values, scale, step, alpha, decay = np.array([1.0, 0.5]), 0.5, 0.05, 2.0, 0.03
    target = low_rank(np.random.default_rng(0), 8, 7, values)
    start = dmf.spectral_network(dmf.FullMatrix(target), 2, depth, scale)
    run = dmf.gradient_descent(dmf.FullMatrix(target), start, step, alpha, decay, "sum", iterations=60)
    expected = mutated(values, depth, scale, step, alpha, decay, 60, change)
    found = np.stack([np.linalg.svd(w, compute_uv=False) for w in run.network.weights])
    worst = np.abs(found - expected).max()
    assert worst < 1e-10 if change == "none" else worst > 1e-5


def test_a_million_iterations():
    """The recursion reaches the plateau's end of a start at 1e-3 and stays at the solution."""
    trajectory = reduced_dynamics([1.0, 0.5, 0.0], 3, 1e-3, 0.02, iterations=10**6, record_every=10**5)
    assert len(trajectory) == 11
    np.testing.assert_allclose(trajectory.values[-1][:2], [1, 0.5], atol=1e-12)
    assert trajectory.error[0] > 0.99
    assert trajectory.error[-1] < 1e-8  # the component beyond the rank is still at about eps^3


@examples(6)
@given(
    depth=st.integers(1, 4),
    alpha=alphas,
    decay=decays,
    scale=st.floats(0.2, 0.9),
    value=st.floats(0.0, 2),
)
def test_descent_approaches_the_flow_at_first_order(depth, alpha, decay, scale, value):
    """The distance of the descent to the flow at one time is proportional to the step size."""
    time, errors = 4.0, []
    flow = gradient_flow([value], depth, scale, [0.0, time], alpha, decay)
    np.testing.assert_allclose(flow.weights[0], scale, rtol=1e-15)
    for count in (1000, 2000, 4000):
        descent = reduced_dynamics([value], depth, scale, time / count, alpha, decay, count, count)
        errors.append(descent.weights[-1, :, 0] - flow.weights[-1, :, 0])
    one, two, three = errors
    # Leading terms cancel in err(h) - 2 err(h/2); what is left is of second order.
    scale_of = np.abs(one).max()
    assert np.abs(one - 2 * two).max() <= 0.02 * scale_of + 1e-8
    assert np.abs(two - 2 * three).max() <= 0.02 * scale_of + 1e-8


@examples(10)
@given(
    depth=st.integers(1, 2),
    alpha=alphas,
    decay=decays,
    scale=st.floats(0.01, 1.5),
    values=st.lists(st.floats(0, 3), min_size=1, max_size=3),
)
def test_closed_forms_are_the_flow(depth, alpha, decay, scale, values):
    """Depth 1 (exponential) and depth 2 (logistic), also for s below, at and above the threshold lambda / alpha."""
    times = np.linspace(0, 8, 9)
    values = [*values, decay / alpha, 0.0]
    exact = closed_form_flow(values, depth, scale, times, alpha, decay)
    flow = gradient_flow(values, depth, scale, times, alpha, decay)
    np.testing.assert_allclose(flow.weights, exact.weights, rtol=1e-6, atol=1e-8)


def test_the_closed_form_neither_overflows_nor_divides_by_zero():
    found = closed_form_flow([2.0, 0.1, 0.0], 2, 1e-8, [0.0, 1e6], 1.0, 0.1)
    np.testing.assert_allclose(found.values[-1], [1.9, 1e-16, 0.0], atol=1e-14)


def test_an_overflow_ends_the_records():
    trajectory = reduced_dynamics([1.0], 3, 0.1, 10.0, iterations=1000)
    assert not trajectory.complete
    assert 1 < len(trajectory) < 1000
    assert np.isfinite(trajectory.error).all()


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (reduced_dynamics, ([], 3, 0.1, 0.1), "singular_values"),
        (reduced_dynamics, ([-1.0], 3, 0.1, 0.1), "singular_values"),
        (reduced_dynamics, ([1.0], 0, 0.1, 0.1), "depth"),
        (reduced_dynamics, ([1.0], 3, [0.1, 0.1], 0.1), "scale"),
        (reduced_dynamics, ([1.0], 3, 0.0, 0.1), "scale"),
        (reduced_dynamics, ([1.0], 3, 0.1, -0.1), "step_size"),
        (gradient_flow, ([1.0], 3, 0.1, [1.0, 0.5]), "times"),
        (gradient_flow, ([1.0], 3, 0.1, [-1.0]), "times"),
        (closed_form_flow, ([1.0], 3, 0.1, [1.0]), "depth"),
    ],
)
def test_bad_arguments_are_named(function, arguments, name):
    with pytest.raises(dmf.errors.ArgumentError) as caught:
        function(*arguments)
    assert caught.value.argument == name


@pytest.mark.parametrize("depth", [1, 3])
def test_networks_of_a_trajectory_on_another_device(depth):
    device = array_api_strict.Device("device1")
    u = array_api_strict.asarray(np.linalg.qr(np.ones((4, 1)))[0].astype(np.float32), device=device)
    trajectory = reduced_dynamics([1.0], depth, 0.5, 0.1, iterations=3)
    network = trajectory.network(3, u, array_api_strict.matrix_transpose(u))
    assert network.weights[0].device == device
    assert network.dtype == array_api_strict.float32
    assert float(array_api_strict.linalg.vector_norm(network.product())) == pytest.approx(
        trajectory.values[3, 0], rel=1e-6
    )
