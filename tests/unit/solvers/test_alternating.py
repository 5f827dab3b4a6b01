"""Alternating minimisation: what it converges to, its ridge, and how it diverges."""

import numpy as np
import pytest
from low_rank_cases import low_rank_case

import dmf
from dmf.solvers import Outcome
from dmf.solvers.alternating import AlternatingMinimization, alternating_minimization
from dmf.solvers.loop import run

from helpers import assert_finite, assert_same_weights, observe, start


def test_alternating_minimization_ends_at_the_last_finite_state_when_it_diverges():
    """Numbers of an operator overflow inside conjugate gradients."""

    class Overflowing(dmf.FullMatrix):
        def adjoint(self, weights, left, right):
            return tuple(np.inf * part for part in super().adjoint(weights, left, right))

    rng = np.random.default_rng(0)
    observations = Overflowing(rng.standard_normal((6, 5)))
    network = dmf.DeepLinearNetwork([1e2 * rng.standard_normal((2, 5)), rng.standard_normal((6, 2))])
    recovery = run(AlternatingMinimization(), observations, network, iterations=5)
    assert recovery.outcome is Outcome.DIVERGED
    assert "ridge" in recovery.message
    assert_finite(recovery)
    assert_same_weights(recovery, run(AlternatingMinimization(), observations, network, iterations=0))


def test_alternating_minimization_of_a_full_matrix_is_truncated_svd():
    """From a random start: with a gap of 10 each sweep gains a factor of 100, so 10 sweeps reach the rounding unit.

    (Conjugate gradients end at 1e-10 of each right-hand side, which bounds the distance of the factors; the product is
    optimal to second order.)
    """
    rng = np.random.default_rng(1)
    u, v = (np.linalg.qr(rng.standard_normal((n, 6)))[0] for n in (9, 8))
    matrix = (u * [4.0, 3.0, 2.0, 0.2, 0.1, 0.05]) @ v.T
    observations = dmf.FullMatrix(matrix)
    recovery = run(AlternatingMinimization(), observations, start(observations, width=3), iterations=12)
    left, s, right = np.linalg.svd(matrix)
    best = (left[:, :3] * s[:3]) @ right[:3]
    np.testing.assert_allclose(recovery.network.product(), best, rtol=0, atol=1e-9)
    assert abs(recovery.history.loss[-1] - 0.5 * np.sum(s[3:] ** 2) / 72) <= 1e-12
    assert np.all(np.diff(recovery.history.loss) <= 1e-12)


def test_alternating_minimization_recovers_an_easy_matrix():
    """Rank 2, 70 % of the entries, no noise: linear convergence to the tolerance of conjugate gradients."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((14, 2)) @ rng.standard_normal((2, 12))
    rows, cols = np.nonzero(rng.random(truth.shape) < 0.7)
    observations = dmf.SampledEntries(rows, cols, truth[rows, cols], truth.shape)
    recovery = dmf.solvers.alternating_minimization(observations, 2, iterations=60, tolerance=1e-18)
    assert recovery.success
    error = np.linalg.norm(recovery.model.product() - truth) / np.linalg.norm(truth)
    assert error < 1e-7  # loss 1e-18 is an error of 1e-9 on the samples; 100 for the conditioning of the sampling


def test_ridge_shrinks_the_factors():
    """One sweep by hand: left solves ``left (V V^T + ridge I) = M V^T``, then right likewise; CG ends at 1e-10."""
    observations = observe("full")
    network = start(observations, width=2)
    recovery = run(AlternatingMinimization(0.5), observations, network, iterations=1)
    right = network.weights[0]
    left = observations.matrix @ right.T @ np.linalg.inv(right @ right.T + 0.5 * np.eye(2))
    right = np.linalg.inv(left.T @ left + 0.5 * np.eye(2)) @ left.T @ observations.matrix
    np.testing.assert_allclose(recovery.network.weights[1], left, rtol=0, atol=1e-8)
    np.testing.assert_allclose(recovery.network.weights[0], right, rtol=0, atol=1e-8)


def test_a_negative_ridge():
    with pytest.raises(dmf.errors.ArgumentError, match="ridge=-1") as caught:
        dmf.solvers.alternating_minimization(observe("entries"), 2, ridge=-1)
    assert (caught.value.argument, caught.value.value, caught.value.limit) == ("ridge", -1, 0)


@pytest.mark.parametrize("unit", [4.0**-166, 4.0**149])
def test_the_unit_of_the_data_changes_no_digit(unit):
    case = low_rank_case(0, (30, 25), 2)
    far = case.observations.with_values(unit * case.values)
    products = [
        alternating_minimization(observations, 2, 0.1 * scale, 5).model.product() / scale
        for observations, scale in ((case.observations, 1.0), (far, unit))
    ]
    np.testing.assert_array_equal(*products)
