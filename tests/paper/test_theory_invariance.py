"""Theorem A (Yaras et al. 2023, 2024): gradient descent of the original network moves in a small invariant subspace."""

from types import SimpleNamespace

import array_api_strict
import numpy as np
import pytest
from hypothesis import given

import dmf
from dmf.theory import invariant_subspaces

from helpers import examples
from theory_cases import TOLERANCE, case, cases, low_rank, orthogonal_start

CLAIMS = {"invariance", "leakage", "outside", "excess_rank"}


@examples(40)
@given(problem=cases())
def test_every_layer_keeps_the_split_and_the_rho_recursion(problem):
    """``W_l V_{l,2} = rho_l V_{l+1,2}``, ``V_{l+1,2}^T W_l V_{l,1} = 0``, and ``rank(W_l(t) - W_l(0) - (rho_l - eps) V_{l+1,2}
    V_{l,2}^T) <= 2r`` (square), for any eta, lambda, alpha and depth; for unequal sizes that form a valley likewise.
    """
    subspaces = invariant_subspaces(problem.target, problem.network)
    checker = subspaces.checker(**problem.options)
    history = problem.run(40, 8, checker).history
    assert subspaces.rank == problem.rank
    assert checker.worst.keys() == CLAIMS
    for name, worst in checker.worst.items():
        assert worst.shape == (problem.network.depth,)
        assert worst.max() <= problem.tolerance, name
        np.testing.assert_array_equal(history[name].max(axis=0), worst)
    rho = subspaces.rho(40, **problem.options, record_every=8)
    np.testing.assert_allclose(history["rho"], rho[: len(history.iteration)], rtol=1e-12)


@given(problem=cases())
def test_bases_are_orthonormal_and_hold_the_target(problem):
    """The parts are orthogonal, M acts between the active ones alone, and each layer passes parts on as claimed."""
    s = invariant_subspaces(problem.target, problem.network)
    sizes = [problem.network.shape[1], *problem.network.widths, problem.network.shape[0]]
    bottom, rank = min(sizes), problem.rank
    eps = 100 * np.finfo(problem.target.dtype).eps
    assert s.n_passive == bottom - 2 * rank
    for size, active, passive in zip(sizes, s.active, s.passive, strict=True):
        both = np.concatenate([active, passive], axis=1)
        assert passive.shape == (size, s.n_passive)
        assert 2 * rank <= active.shape[1] <= min(size - s.n_passive, (2 + len(sizes)) * rank)
        assert np.abs(both.T @ both - np.eye(both.shape[1])).max() <= eps
    if s.is_square:
        assert all(v.shape[1] == 2 * rank for v in s.active)
    inside = s.active[-1] @ (s.active[-1].T @ problem.target @ s.active[0]) @ s.active[0].T
    assert np.linalg.norm(problem.target - inside) <= eps * np.linalg.norm(problem.target)
    for layer, below, above in zip(s.layers, s.active, s.active[1:], strict=False):
        for image, onto in ((layer @ below, above), (layer.T @ above, below)):
            assert np.linalg.norm(image - onto @ (onto.T @ image)) <= eps


def step(rho, eta, alpha, lam, power=2, own=False, decay_factor=1.0):
    others = np.prod(rho) if own else np.prod(rho) / rho
    return rho * (1 - eta * lam * decay_factor - eta * alpha * others**power)


RECURSIONS = {
    "the theorem": step,
    "exponent 1": lambda *args: step(*args, power=1),
    "all layers in the product": lambda *args: step(*args, own=True),
    "no alpha": lambda rho, eta, alpha, lam: step(rho, eta, 1, lam),
    "decay times alpha": lambda rho, eta, alpha, lam: step(rho, eta, alpha, lam, decay_factor=alpha),
    "no decay": lambda rho, eta, alpha, lam: step(rho, eta, alpha, 0),
}


@pytest.mark.parametrize("name", RECURSIONS)
@pytest.mark.parametrize("depth", [2, 3, 5])
def test_a_wrong_rho_recursion_is_caught(name, depth):
    """The checker that accepts the theorem to 1e-10 rejects each changed recursion by a factor of 1,000 or more."""
    problem = case(depth, [9] * (depth + 1), [1.0, 0.6], relative_scale=0.6, alpha=2.0, decay=0.05)
    subspaces = invariant_subspaces(problem.target, problem.network)
    alpha = np.ones(depth)
    alpha[0] = alpha[-1] = 2.0
    rho = subspaces.scales.copy()
    for _ in range(30):
        rho = RECURSIONS[name](rho, problem.options["step_size"], alpha, 0.05)
    found = subspaces.deviations(problem.run(30, 30).network, rho)
    for claim in ("invariance", "leakage", "outside", "excess_rank"):
        assert found[claim].max() < 1e-10 if name == "the theorem" else found[claim].max() > 1e-7


def test_the_plain_update_is_of_full_rank():
    """Without the term ``(rho - eps) V_{l+1,2} V_{l,2}^T`` the rank claim fails, so that the test of it is not empty."""
    problem = case(3, [12] * 4, [1.0, 0.5], relative_scale=0.7)
    network = problem.run(200, 200).network
    for before, after in zip(problem.network.weights, network.weights, strict=True):
        values = np.linalg.svd(after - before, compute_uv=False)
        assert values[-1] > 1e-4 * values[0]


def test_other_subspaces_are_rejected():
    """The subspaces of another target are not invariant."""
    problem, other = case(1, [10] * 4, [1.0, 0.5]), case(2, [10] * 4, [1.0, 0.5])
    checker = invariant_subspaces(other.target, problem.network).checker(**problem.options)
    problem.run(50, 50, checker)
    assert min(checker.worst[name].max() for name in CLAIMS) > 1e-3


def test_scales_may_differ_between_layers():
    """The theorem needs each layer orthogonal, not all of one scale."""
    rng = np.random.default_rng(0)
    network, target = orthogonal_start(rng, [9] * 4, [0.2, 0.7, 0.4]), low_rank(rng, 9, 9, [1.0, 0.3])
    checker = invariant_subspaces(target, network).checker(0.1, 2.0, 0.01, "sum")
    dmf.gradient_descent(
        dmf.FullMatrix(target), network, 0.1, 2.0, 0.01, "sum", iterations=100, record_every=20, callback=checker
    )
    assert max(worst.max() for worst in checker.worst.values()) < 1e-10


def test_finished_trajectories_are_checked_in_any_order():
    """`check` takes pairs (iteration, network) and finds what the callback finds."""
    problem = case(5, [9, 9, 9, 7], [1.0, 0.4], decay=0.02)
    trajectory = problem.iterates(60, 20)
    subspaces = invariant_subspaces(problem.target, problem.network)
    checker = subspaces.checker(**problem.options)
    for iteration, network in trajectory:
        checker(SimpleNamespace(iteration=iteration, network=network))
    again = subspaces.checker(**problem.options).check(reversed(trajectory))
    for name in CLAIMS:
        np.testing.assert_allclose(again[name], checker.worst[name], atol=1e-14)


def test_noise_bends_the_claims_in_proportion():
    """With a target that is of the rank only up to noise, the deviations grow with the noise, and `tail` reports it."""
    rng = np.random.default_rng(3)
    problem, found = case(4, [12] * 4, [1.0, 0.5], relative_scale=0.3), []
    noise = rng.standard_normal((12, 12))
    for size in (1e-3, 1e-5):
        target = problem.target + size * noise / np.linalg.norm(noise, 2)
        subspaces = invariant_subspaces(target, problem.network, rank=2)
        assert 0.1 * size < subspaces.missed_value <= 1.01 * size
        checker = subspaces.checker(**problem.options)
        options = {**problem.options, "iterations": 100, "record_every": 50}
        dmf.gradient_descent(dmf.FullMatrix(target), problem.network, callback=checker, **options)
        found.append(checker.worst["invariance"].max())
    assert found[0] < 0.05
    assert 50 < found[0] / found[1] < 200


@pytest.mark.parametrize("rank", [5, 7])
def test_too_large_a_rank_is_refused(rank):
    network = dmf.orthogonal_network((10, 10))
    target = low_rank(np.random.default_rng(0), 10, 10, np.ones(rank))
    with pytest.raises(
        dmf.errors.RankError, match=rf"numerical rank {rank}, .*2 \* rank = {2 * rank} .*rank <= 4"
    ) as caught:
        invariant_subspaces(target, network)
    assert caught.value.limit == 4
    with pytest.raises(dmf.errors.RankError, match=f"rank={rank}"):
        invariant_subspaces(target, network, rank=rank)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_a_start_that_is_not_orthogonal_is_refused(distribution):
    network = dmf.orthogonal_network((10, 10), distribution=distribution)
    with pytest.raises(dmf.errors.ArgumentError, match=r"W_1 = eps Q with \|\|Q\^T Q - I\|\|_F") as caught:
        invariant_subspaces(np.eye(10)[:, :1] @ np.ones((1, 10)), network)
    assert 0.1 < caught.value.value < 3


def test_a_slight_departure_from_orthogonality_is_measured():
    network = dmf.orthogonal_network((40, 40), scale=1.0)
    weights = list(network.weights)
    weights[1] = weights[1] + 1e-6 * np.random.default_rng(0).standard_normal((40, 40)) / 40**0.5
    with pytest.raises(dmf.errors.ArgumentError, match="W_2 = eps Q") as caught:
        invariant_subspaces(np.ones((40, 40)), dmf.DeepLinearNetwork(weights))
    exact = weights[1].T @ weights[1] - np.eye(40)
    assert 0.5 < caught.value.value / (np.linalg.norm(exact) / 40**0.5) < 2


def test_sizes_that_rise_and_fall_are_refused():
    network = dmf.orthogonal_network((10, 10), width=14)
    with pytest.raises(
        dmf.errors.ArgumentError, match=r"\(10, 14, 14, 10\) rise and then fall.*off both by up to"
    ) as caught:
        invariant_subspaces(np.ones((10, 10)), network)
    product = np.linalg.svd(network.product() / 1e-6, compute_uv=False)
    assert caught.value.value == pytest.approx(np.minimum(product, 1 - product).max(), rel=1e-6)


def test_targets_that_do_not_fit_are_refused():
    network = dmf.orthogonal_network((10, 9))
    with pytest.raises(dmf.errors.ShapeError):
        invariant_subspaces(np.ones((9, 10)), network)
    with pytest.raises(dmf.errors.DTypeError):
        invariant_subspaces(np.ones((10, 9), np.float32), network)
    with pytest.raises(dmf.errors.ObservationError):
        invariant_subspaces(np.full((10, 9), np.nan), network)


def test_any_array_library_and_device():
    """Bases and deviations of strict arrays on another device are those of NumPy."""
    problem = case(8, [8, 8, 8, 7], [1.0, 0.5], decay=0.01)
    device = array_api_strict.Device("device1")
    to = lambda a: array_api_strict.asarray(a, device=device)  # noqa: E731
    network = dmf.DeepLinearNetwork([to(w) for w in problem.network.weights])
    end = dmf.DeepLinearNetwork([to(w) for w in problem.run(30, 30).network.weights])
    checker = invariant_subspaces(to(problem.target), network).checker(**problem.options)
    checker.measure(30, end)
    assert max(worst.max() for worst in checker.worst.values()) < TOLERANCE["float64"]
