"""Gauss-Newton at fixed rank."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from low_rank_cases import low_rank_case

import dmf
from dmf.arrays.linalg import factored_svd
from dmf.kernels.tangent import TangentSystem
from dmf.solvers import Outcome
from dmf.solvers.gauss_newton import GaussNewton
from dmf.solvers.loop import run

from helpers import examples, seeds

EPS = np.finfo(float).eps


def nearby(case, distance, seed=0):
    """Best rank-r approximation of the matrix plus noise of spectral norm `distance`, in units of the least singular value."""
    rank = case.left.shape[1]
    least = np.linalg.svd(case.matrix, compute_uv=False)[rank - 1]
    noise = np.random.default_rng(seed).standard_normal(case.matrix.shape)
    u, s, vt = np.linalg.svd(case.matrix + distance * least / np.linalg.norm(noise, 2) * noise)
    return dmf.DeepLinearNetwork((np.sqrt(s[:rank, None]) * vt[:rank], u[:, :rank] * np.sqrt(s[:rank]))), least


def errors(case, distance, iterations=12, solver=None):
    """Errors of the iterates, in units of the least singular value, and the last recovery."""
    network, least = nearby(case, distance)
    found = []
    recovery = run(
        solver or GaussNewton(),
        case.observations,
        network,
        iterations=iterations,
        callback=lambda snapshot: found.append(np.linalg.norm(snapshot.network.product() - case.matrix) / least),
    )
    return np.array(found), recovery


@pytest.mark.parametrize("condition", [1, 10, 1e3, 1e5])
@pytest.mark.parametrize("seed", range(3))
def test_convergence_is_quadratic_whatever_the_condition_number(condition, seed):
    """``e_{k+1} <= e_k^2``, errors in units of the least singular value, until rounding; 3 times as much is allowed.

    Rounding: 1e3 units in the last place of the matrix. Linear systems are solved to the relative loss, so that each
    square can be reached; 6 steps lead from 0.05 to the end.
    """
    case = low_rank_case(seed, (60, 50), 3, condition=condition)
    found, recovery = errors(case, 0.05)
    assert np.all(found[1:] <= 3 * found[:-1] ** 2 + 1e3 * EPS * condition)
    assert len(found) <= 7
    assert recovery.success
    assert case.error(recovery) <= 1e3 * EPS


def test_the_number_of_steps_does_not_grow_with_the_condition_number():
    counts = [
        np.mean([len(errors(low_rank_case(seed, (50, 40), 2, condition=condition), 0.05)[0]) for seed in range(5)])
        for condition in (1, 1e5)
    ]
    assert counts[1] <= counts[0] + 1


@given(seed=seeds, rank=st.integers(1, 4), distance=st.floats(0, 0.05))
@examples(10)
def test_a_nearby_start_always_leads_to_the_matrix(seed, rank, distance):
    case = low_rank_case(seed, (40, 30), rank, oversampling=3)
    _, recovery = errors(case, distance, iterations=30)
    assert recovery.success
    assert case.error(recovery) <= 1e-10


@given(seed=seeds, rank=st.integers(1, 4), width=st.integers(1, 6))
@examples(10)
def test_the_loss_never_rises_and_the_rank_stays(seed, rank, width):
    """From any start: steps that do not lower the loss are not taken."""
    case = low_rank_case(seed, (30, 25), rank, noise=0.1)
    rng = np.random.default_rng(seed)
    network = dmf.DeepLinearNetwork((rng.standard_normal((width, 25)), rng.standard_normal((30, width))))
    recovery = run(GaussNewton(), case.observations, network, iterations=15)
    assert np.all(np.diff(recovery.history.loss) <= 0)
    assert recovery.findings["rank"] == width
    assert recovery.model.width == width
    residual = case.observations.predict(*recovery.model.factors()) - case.values
    np.testing.assert_allclose(recovery.findings["noise"], np.sqrt(np.mean(residual**2)), rtol=1e-9, atol=100 * EPS)


def test_it_ends_where_the_gradient_along_the_tangent_space_vanishes():
    """With noise the residual does not vanish; its projection on the tangent space does, to the accuracy of the loss.

    As far as the loss shows it: its square is in units of rounding.
    """
    case = low_rank_case(0, rank=2, noise=0.1)
    network, _ = nearby(case, 0.05)
    recovery = run(GaussNewton(), case.observations, network, iterations=60)
    assert recovery.success
    assert recovery.outcome in (Outcome.STATIONARY, Outcome.RUNAWAY)
    u, _, vt = factored_svd(*recovery.network.factors())
    residual = np.zeros(case.matrix.shape)
    residual[case.rows, case.cols] = case.observations.predict(*recovery.model.factors()) - case.values
    tangent = residual - (residual - u @ (u.T @ residual)) @ (np.eye(60) - vt.T @ vt)
    assert np.linalg.norm(tangent) <= np.sqrt(8 * EPS) * np.linalg.norm(residual)


@given(seed=seeds, noise=st.sampled_from([0.0, 0.1]), rank=st.integers(1, 3))
@examples(10)
def test_converged_means_that_no_short_step_along_the_gradient_lowers_the_loss(seed, noise, rank):
    """From poor starts, from which the matrix often runs away: the loss falls ever more slowly, but it falls."""
    case = low_rank_case(seed, (30, 25), 3, noise=noise, oversampling=2)
    start = dmf.spectral_network(case.observations, 5)
    recovery = dmf.solvers.refine(case.observations, start, rank)
    assert recovery.history.loss[-1] <= recovery.history.loss[0]
    if recovery.outcome in (Outcome.BUDGET, Outcome.EXACT):
        return
    assert recovery.outcome in (Outcome.STATIONARY, Outcome.RUNAWAY)
    measured = np.linalg.norm(case.values) / np.sqrt(case.observations.gain)
    assert (recovery.outcome is Outcome.RUNAWAY) == (np.linalg.norm(recovery.model.product()) > 100 * measured)
    for step in np.logspace(-6, 0, 13):
        left, right = recovery.network.factors()
        _, by_left, by_right = case.observations.evaluate(left, right)
        scale = step / max(np.linalg.norm(left, 2), np.linalg.norm(right, 2)) ** 2
        stepped = case.observations.loss(left - scale * by_left, right - scale * by_right)
        assert stepped >= (1 - 1e-11) * case.observations.loss(left, right)


def test_a_zero_matrix_is_found_at_once():
    observations = dmf.SampledEntries(np.arange(5), np.arange(5), np.zeros(5), (5, 5))
    network = dmf.DeepLinearNetwork((np.ones((1, 5)), np.ones((5, 1))))
    recovery = run(GaussNewton(), observations, network, iterations=20)
    assert np.isfinite(recovery.model.product()).all()
    assert recovery.history.loss[-1] <= EPS


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_wrong_rank_ends_after_the_steps_that_tell(seed, rank):
    """At the right rank they lower the loss to less than 3 %; at a lower one the missing components stay in it."""
    case = low_rank_case(seed, (60, 50), 3)
    network, _ = nearby(case, 0.3)
    u, s, vt = factored_svd(*network.factors())
    start = dmf.DeepLinearNetwork((vt[:rank, :], u[:, :rank] * s[:rank]))
    recovery = run(GaussNewton(tries=2), case.observations, start, iterations=50)
    assert recovery.success == (rank == 3)
    assert (recovery.outcome is Outcome.UNPROMISING) == (rank < 3)
    assert (recovery.history.iteration[-1] == 2) == (rank < 3)
    assert (case.error(recovery) < 1e3 * EPS) == (rank == 3)


@pytest.mark.parametrize("seed", range(3))
def test_no_linear_system_is_solved_to_more_digits_than_its_gradient_has(seed, monkeypatch):
    """Close to rounding a system takes fewer steps of conjugate gradients than one before: its right side has few digits."""
    case, counts = low_rank_case(seed, (60, 50), 3), []
    tangent_step, by_columns = dmf.SampledEntries.tangent_step, TangentSystem.by_columns

    def one_more_system(*arguments):
        counts.append(0)
        return tangent_step(*arguments)

    def one_more_pass(*arguments):
        counts[-1] += 1
        return by_columns(*arguments)

    monkeypatch.setattr(dmf.SampledEntries, "tangent_step", one_more_system)
    monkeypatch.setattr(TangentSystem, "by_columns", one_more_pass)
    _, recovery = errors(case, 1e-12)
    assert recovery.success
    assert case.error(recovery) <= 1e3 * EPS
    close = counts.copy()
    counts.clear()
    errors(case, 1e-6, iterations=1)
    assert max(close) < counts[0] / 2


@pytest.mark.parametrize(("rank", "words"), [(0, "60 x 50"), (51, "60 x 50"), (4, "least width of 3")])
def test_a_rank_that_cannot_be_is_named_with_its_limit(rank, words):
    case = low_rank_case(0, (60, 50), 3)
    with pytest.raises(dmf.errors.RankError, match=words) as caught:
        dmf.solvers.refine(case.observations, nearby(case, 0.1)[0], rank)
    assert caught.value.value == rank
