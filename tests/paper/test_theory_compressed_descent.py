"""`gradient_descent(..., exact_compression=True)` runs the original network's trajectory on its exact compression."""

import numpy as np
import pytest
from hypothesis import given

import dmf
from dmf.solvers import Outcome

from theory_cases import case, cases


@given(problem=cases())
def test_the_compressed_run_is_the_plain_one(problem):
    """Same history and, at the end, the same layers of the same dtype, to 1e-10 (1e-4 in float32)."""
    plain, compressed = problem.run(30, 10), problem.run(30, 10, exact_compression=True)
    kept = min(len(run.history.iteration) for run in (plain, compressed))  # either may end early at a loss of exactly 0
    floor = problem.tolerance**2 * np.linalg.norm(problem.target) ** 2
    np.testing.assert_allclose(
        compressed.history.loss[:kept], plain.history.loss[:kept], rtol=10 * problem.tolerance, atol=floor
    )
    if kept == 4:
        for one, other in zip(compressed.network.weights, plain.network.weights, strict=True):
            assert one.dtype == other.dtype
            assert np.linalg.norm(one - other) <= problem.tolerance * np.linalg.norm(other)


def test_divergence_ends_at_the_last_finite_iteration():
    problem = case(1, (9,) * 4, [1.0], speed=4.0)
    runs = problem.run(500, 100), problem.run(500, 100, exact_compression=True)
    assert [run.outcome for run in runs] == [Outcome.DIVERGED] * 2
    plain, compressed = (int(run.history.iteration[-1]) for run in runs)
    assert abs(plain - compressed) <= 1


def test_only_whole_matrices_are_compressed():
    observations = dmf.SampledEntries([0], [0], [1.0], (9, 9))
    with pytest.raises(dmf.errors.ArgumentError, match="SampledEntries, but the compression is exact only"):
        dmf.gradient_descent(observations, dmf.orthogonal_network((9, 9)), 0.1, exact_compression=True)


def test_a_large_original_network():
    """1,000 iterations at d = 600: the loss carried by the small network is that of the lifted product."""
    rng = np.random.default_rng(0)
    target = rng.standard_normal((600, 4)) @ rng.standard_normal((4, 600)) / 600
    run = dmf.gradient_descent(
        dmf.FullMatrix(target),
        dmf.orthogonal_network((600, 600), scale=0.3),
        0.2,
        reduction="sum",
        iterations=1000,
        record_every=100,
        exact_compression=True,
    )
    assert run.network.shape == (600, 600)
    found = 0.5 * np.linalg.norm(run.network.product() - target) ** 2
    assert run.history.loss[-1] == pytest.approx(found, rel=1e-8)
