"""The original network's trajectory from a network of width 2r is exact (Yaras et al. 2024, section 2)."""

from types import SimpleNamespace

import array_api_strict
import numpy as np
import pytest
from hypothesis import given

import dmf
from dmf.theory import EnergyOutside, exact_compression, invariant_subspaces
from dmf.theory.recursions import matrix_descent

from helpers import examples
from theory_cases import TOLERANCE, case, cases, low_rank, orthogonal_start


def difference(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


@examples(40)
@given(problem=cases())
def test_the_lifted_network_is_the_wide_one_at_every_iteration(problem):
    """All layers and the end-to-end matrix of the lift equal those of gradient descent on the wide network, at every
    recorded iteration, for any eta, lambda, alpha, depth, reduction and sizes that form a valley.
    """
    compression = exact_compression(problem.target, problem.network)
    trajectory = compression.trajectory(**problem.options, iterations=40, record_every=8)
    run = problem.iterates(40, 8)
    assert trajectory.iteration.tolist() == [0, 8, 16, 24, 32, 40]
    for iteration, wide in run:  # ends early at a loss of exactly 0
        index = iteration // 8
        lifted = trajectory.network(index)
        assert lifted.dtype == wide.dtype
        for one, other in zip(lifted.weights, wide.weights, strict=True):
            assert difference(one, other) <= problem.tolerance
        product = wide.product()
        # Relative to the factors, whose product may be small: rounding of a product is relative to them.
        scale = np.prod([np.linalg.norm(w, 2) for w in wide.weights])
        for lift in (trajectory.product(index), lifted.product()):
            assert np.linalg.norm(lift - product) <= problem.tolerance * scale


@given(problem=cases(dtypes=["float64"]))
def test_losses_errors_and_spectra_need_no_lift(problem):
    """Loss, error and every singular value of the wide network follow from the small one."""
    trajectory = exact_compression(problem.target, problem.network).trajectory(
        **problem.options, iterations=30, record_every=10
    )
    run = problem.run(30, 10)
    size = np.linalg.norm(problem.target)
    np.testing.assert_allclose(trajectory.loss[: len(run.history.loss)], run.history.loss, rtol=1e-9, atol=1e-20)
    for index, (_, wide) in enumerate(problem.iterates(30, 10)):
        product = wide.product()
        assert trajectory.error[index] == pytest.approx(
            np.linalg.norm(product - problem.target) / size, rel=1e-9, abs=1e-13
        )
        values = np.linalg.svd(product, compute_uv=False)
        np.testing.assert_allclose(trajectory.singular_values(values.size)[index], values, atol=1e-12)


@given(problem=cases(square=True, dtypes=["float64"]))
def test_the_small_start_of_a_square_network_is_a_multiple_of_the_identity(problem):
    """``V_{l+1,1}^T W_l(0) V_{l,1} = eps I``, 2r x 2r; and descent on the small network is a run like any other."""
    compression = exact_compression(problem.target, problem.network)
    for scale, weight in zip(compression.subspaces.scales, compression.network.weights, strict=True):
        np.testing.assert_allclose(weight, scale * np.eye(2 * problem.rank), atol=1e-13)
    options = dict(problem.options)
    if options.pop("reduction") == "mean":  # the small loss has another number of entries
        entries = problem.target.size
        options["step_size"], options["weight_decay"] = (
            options["step_size"] / entries,
            options["weight_decay"] * entries,
        )
    run = dmf.gradient_descent(
        dmf.FullMatrix(compression.target),
        compression.network,
        reduction="sum",
        iterations=20,
        record_every=20,
        **options,
    )
    trajectory = compression.trajectory(**problem.options, iterations=20, record_every=20)
    for one, other in zip(run.network.weights, trajectory.weights, strict=True):
        np.testing.assert_allclose(one, other[-1], atol=1e-12)


@pytest.mark.parametrize("sizes", [(11,) * 4, (8, 11, 11, 11), (11, 11, 8), (11, 8, 7, 9)])
@pytest.mark.parametrize(
    "mutation", ["none", "no alpha", "no decay", "rho exponent", "rho decay", "frozen decay", "target"]
)
def test_a_wrong_recursion_is_caught(sizes, mutation):
    """The lift that is right to 1e-10 is off by 1e-7 or more for each change of a recursion (where it has a part)."""
    problem = case(1, sizes, [1.0, 0.6], relative_scale=0.6, alpha=2.0, decay=0.05)
    compression, steps = exact_compression(problem.target, problem.network), np.array([30])
    s, depth = compression.subspaces, len(sizes) - 1
    rates, shrink = s.coefficients(**problem.options)
    if mutation == "frozen decay" and sizes in [(11, 11, 11, 11), (11, 8, 7, 9)]:
        pytest.skip("nothing is frozen, or no layer maps it to anything but 0")
    small_rates = np.full(depth, problem.options["step_size"]) if mutation == "no alpha" else rates
    small_shrink = 1.0 if mutation == "no decay" else shrink
    target = 1.0001 * compression.target if mutation == "target" else compression.target
    weights, _ = matrix_descent(compression.network.weights, target, small_rates, small_shrink, steps)
    rho = s.rho_at(steps, rates, 1.0 if mutation == "rho decay" else shrink)[-1]
    if mutation == "rho exponent":
        rho = s.scales.copy()
        for _ in range(30):
            rho = rho * (shrink - rates * np.prod(rho) ** 2)
    lift = compression.lift([w[-1] for w in weights], rho, 1.0 if mutation == "frozen decay" else shrink**30)
    wide = problem.run(30, 30).network
    worst = max(difference(one, other) for one, other in zip(lift.weights, wide.weights, strict=True))
    assert worst < 1e-10 if mutation == "none" else worst > 1e-7


def test_long_runs_stay_exact():
    """2,000 steps through the whole of learning, with unequal sizes, alpha and decay: 1e-12 at the end."""
    problem = case(2, (18, 12, 14, 20), [1.0, 0.7, 0.4], relative_scale=0.3, alpha=3.0, decay=0.01, speed=0.1)
    trajectory = exact_compression(problem.target, problem.network).trajectory(
        **problem.options, iterations=2000, record_every=2000
    )
    wide = problem.run(2000, 2000).network
    for one, other in zip(trajectory.network(1).weights, wide.weights, strict=True):
        assert difference(one, other) < 1e-12


@examples(6)
@given(problem=cases(dtypes=["float64"]))
def test_updates_have_no_energy_outside_the_predicted_subspace(problem):
    """The callback finds no share of any layer's update outside."""
    watch = EnergyOutside(invariant_subspaces(problem.target, problem.network), **problem.options)
    history = problem.run(40, 20, watch).history
    assert history["energy_outside"][0].max() == 0
    assert history["energy_outside"].max() <= 1e-20


def test_updates_have_energy_outside_other_subspaces():
    """A fifth or more of the update lies outside the subspaces of another target."""
    problem = case(1, (12,) * 4, [1.0, 0.5])
    other = case(2, (12,) * 4, [1.0, 0.5])
    watch = EnergyOutside(invariant_subspaces(other.target, problem.network), **problem.options)
    assert watch(SimpleNamespace(iteration=50, network=problem.run(50, 50).network))["energy_outside"].min() > 0.2


@pytest.mark.parametrize("scale", [0.3, pytest.param(0.1, marks=pytest.mark.slow)])
def test_noise_bends_the_lift_about_as_far_as_predicted(scale):
    """For a noisy target the error of the lift is proportional to the noise and of the size of `bend`."""
    rng = np.random.default_rng(1)
    clean, start = low_rank(rng, 30, 30, [1.0, 0.7, 0.5]), orthogonal_start(rng, [30] * 4, [scale] * 3)
    noise = rng.standard_normal((30, 30))
    ratios, deviations = [], []
    for size in (1e-3, 1e-5):
        target = clean + size * noise / np.linalg.norm(noise, 2)
        trajectory = exact_compression(target, start, rank=3).trajectory(
            0.02, reduction="sum", iterations=1200, record_every=300
        )
        wide = []
        dmf.gradient_descent(
            dmf.FullMatrix(target),
            start,
            0.02,
            reduction="sum",
            iterations=1200,
            record_every=300,
            callback=lambda s, wide=wide: wide.append(s.network.product()),
        )
        off = np.array([np.linalg.norm(trajectory.product(k) - wide[k], 2) for k in range(5)])
        losses = [np.linalg.norm(w - target) / np.linalg.norm(target) for w in wide]
        assert np.abs(trajectory.error - losses).max() < 10 * off.max()
        ratios.append(off[1:] / trajectory.bend[1:])
        deviations.append(off[1:])
    assert np.min(ratios) > 0.2 and np.max(ratios) < 20
    np.testing.assert_allclose(deviations[0] / deviations[1], 100, rtol=0.5)


def test_divergence_ends_the_records():
    problem = case(1, (9,) * 4, [1.0], speed=4.0)
    trajectory = exact_compression(problem.target, problem.network).trajectory(**problem.options, iterations=500)
    assert 1 < len(trajectory) < 500
    assert np.isfinite(trajectory.loss).all()


def test_the_number_of_singular_values_is_checked():
    problem = case(1, (9,) * 4, [1.0])
    trajectory = exact_compression(problem.target, problem.network).trajectory(0.1, iterations=1)
    with pytest.raises(dmf.errors.ArgumentError, match="count=10, but the matrix has from 1 to 9"):
        trajectory.singular_values(10)


def test_any_array_library_and_device():
    """The lift of strict arrays is strict, on their device, and that of NumPy."""
    problem = case(8, [8, 8, 8, 7], [1.0, 0.5], decay=0.01)
    device = array_api_strict.Device("device1")
    to = lambda a: array_api_strict.asarray(a, device=device)  # noqa: E731
    network = dmf.DeepLinearNetwork([to(w) for w in problem.network.weights])
    strict = exact_compression(to(problem.target), network).trajectory(**problem.options, iterations=20)
    plain = exact_compression(problem.target, problem.network).trajectory(**problem.options, iterations=20)
    for one, other in zip(strict.network(20).weights, plain.network(20).weights, strict=True):
        assert one.device == device
        host = np.asarray(one.to_device(array_api_strict.Device("CPU_DEVICE")))
        assert difference(host, other) < TOLERANCE["float64"]
    np.testing.assert_allclose(strict.loss, plain.loss, rtol=1e-10)
