"""Variational Bayes and the continuation in the noise level."""

import sys

import numpy as np
import pytest
from low_rank_cases import low_rank_case

import dmf
from dmf.arrays.threads import thread_count
from dmf.completion.visible_rank import visible_rank
from dmf.models.initialize import balanced_network
from dmf.solvers import Outcome
from dmf.solvers.homotopy import Continuation, noise_edge
from dmf.solvers.loop import run

from helpers import assert_finite, assert_same_weights

EPS = np.finfo(float).eps
SOLVERS = {"variational Bayes": dmf.solvers.variational_bayes, "continuation": dmf.solvers.continuation}
solvers = pytest.mark.parametrize("solve", SOLVERS.values(), ids=SOLVERS)


def fitted_start(observations, width, depth=2):
    """The surrogate's top components; their sizes are those of the matrix."""
    return balanced_network(*observations.surrogate_svd(width), depth)


def full_case(seed, shape, sizes):
    """A full matrix with these singular values in noise of deviation 1, and the singular values of the sum."""
    rng = np.random.default_rng([seed, *shape])
    u, v = (np.linalg.qr(rng.standard_normal((n, len(sizes))))[0] for n in shape)
    matrix = (u * sizes) @ v.T + rng.standard_normal(shape)
    return matrix, np.linalg.svd(matrix, compute_uv=False)


@pytest.mark.parametrize("condition", [None, 10])
@pytest.mark.parametrize("shape", [(60, 50), (30, 80)])
def test_at_20_decibels_noise_rank_and_matrix_are_found(shape, condition):
    """Noise within 8 % of what was drawn, 4 % in the mean; errors as least squares in the true tangent space leaves them.

    The factorised posterior overestimates the spread, and with it the noise, by 2 or 3 % at 4 measurements for each degree
    of freedom. The expected error of the oracle is exact, that of one draw varies: with 300 degrees of freedom by
    ``1 / sqrt(2 * 300)``, 4 %, and by more where few weakly seen directions dominate. Least squares cannot know the tangent
    space, so the median ratio stays above 0.9.
    """
    levels, ratios = [], []
    for seed in range(10):
        case = low_rank_case(seed, shape, 3, oversampling=4, condition=condition, noise=0.1)
        recovery = dmf.solvers.variational_bayes(case.observations, fitted_start(case.observations, 7))
        assert recovery.findings["rank"] == recovery.history["rank"][-1] == 3
        assert recovery.findings["noise"] == recovery.history["noise"][-1]
        levels.append(recovery.findings["noise"] / np.std(case.values - case.matrix[case.rows, case.cols]))
        ratios.append(case.error(recovery) / case.oracle())
    assert np.max(np.abs(np.array(levels) - 1)) < 0.08
    assert abs(np.mean(levels) - 1) < 0.04
    assert 0.9 < np.median(ratios) < 1.1
    assert np.max(ratios) < 1.3


@pytest.mark.parametrize("kind", [dmf.FullMatrix, dmf.SampledEntries.from_dense], ids=["matrix", "entries"])
@pytest.mark.parametrize("shape", [(60, 40), (30, 80), (50, 50)])
def test_with_all_entries_it_meets_the_analytic_solution(kind, shape, monkeypatch):
    """Of empirical variational Bayes (Nakajima et al. 2013, theorem 2): singular values and noise.

    Sweeps go on until the squared residual changes by 1e-9 of itself, at a rate of contraction of about 1/4; the search
    for the analytic noise level ends at 1e-5 of its logarithm.
    """
    monkeypatch.setattr(sys.modules["dmf.solvers.homotopy"], "_STILL", 1e-9)
    matrix, values = full_case(0, shape, [100.0, 60.0, 35.0])
    observations = kind(matrix)
    recovery = dmf.solvers.variational_bayes(observations, fitted_start(observations, 3))
    rank, noise = visible_rank(values, shape)
    assert rank == recovery.findings["rank"] == 3
    assert recovery.findings["noise"] == pytest.approx(noise, rel=1e-5)
    small, large = sorted(shape)
    relative = recovery.findings["noise"] ** 2 / values[:3] ** 2
    shrunk = 1 - (small + large) * relative
    expected = values[:3] / 2 * (shrunk + np.sqrt(shrunk**2 - 4 * small * large * relative**2))
    found = np.linalg.svd(recovery.network.product(), compute_uv=False)
    np.testing.assert_allclose(found[:3], expected, rtol=1e-6)
    assert found[3] <= 100 * EPS * found[0]


@pytest.mark.parametrize("kind", [dmf.FullMatrix, dmf.SampledEntries.from_dense], ids=["matrix", "entries"])
def test_with_all_entries_and_room_to_spare_the_rank_is_the_analytic_one(kind):
    """Where the next singular value stays below 0.95 of the edge: a component beyond the edge has a local optimum, too.

    Signals lie at twice the edge and above. The noise level agrees to 2 %: sweeps end while the spare components still fall.
    """
    compared = 0
    for seed in range(6):
        for shape, sizes in (((60, 40), [90.0, 60.0]), ((30, 80), [100.0, 60.0, 45.0]), ((45, 70), [])):
            matrix, values = full_case(seed, shape, sizes)
            if values[len(sizes)] > 0.95 * (np.sqrt(shape[0]) + np.sqrt(shape[1])):
                continue
            observations = kind(matrix)
            recovery = dmf.solvers.variational_bayes(observations, fitted_start(observations, 8))
            rank, noise = visible_rank(values, shape)
            assert recovery.findings["rank"] == rank == len(sizes)
            assert recovery.findings["noise"] == pytest.approx(noise, rel=0.02)
            compared += 1
    assert compared >= 6


@pytest.mark.parametrize("seed", range(3))
def test_components_that_vanished_come_back(seed):
    """Of singular values 1, 0.1 and 0.01 the high levels leave one; all are there at the end, and refine ends at rounding."""
    case = low_rank_case(seed, (60, 50), 3, oversampling=2.5, condition=100)
    recovery = dmf.solvers.continuation(
        case.observations,
        fitted_start(case.observations, 8),
        callback=lambda s: {"sizes": np.linalg.svd(s.network.product(), compute_uv=False)[:4]},
    )
    ranks, sizes = recovery.history["rank"], recovery.history["sizes"]
    true = np.linalg.svd(case.matrix, compute_uv=False)[:3]
    assert set(ranks[1:]) >= {1, 2, 3}
    assert np.all(np.diff(ranks) >= 0)
    for count in (1, thread_count()):
        assert np.min(sizes[ranks == count, count]) < 0.1 * true[count]
    np.testing.assert_allclose(sizes[-1, :3], true, rtol=1e-6)
    assert recovery.findings["rank"] == 3
    refined = dmf.solvers.refine(case.observations, recovery.network, 3)
    assert case.error(refined) < 1e-10


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_the_rank_of_the_continuation_counts_components_above_the_edge(noise):
    """Of the level at which they were fitted; the products of lengths are the singular values up to a factor of 1.5."""
    case = low_rank_case(1, (60, 50), 3, oversampling=3, condition=30, noise=noise)
    recovery = dmf.solvers.continuation(
        case.observations,
        fitted_start(case.observations, 8),
        callback=lambda s: {"sizes": np.linalg.svd(s.network.product(), compute_uv=False)[:8]},
    )
    edges = np.array([noise_edge(case.observations, level**2) for level in recovery.history["noise"][:-1]])
    sizes = recovery.history["sizes"][1:] / edges[:, None]
    found = recovery.history["rank"][1:]
    assert recovery.history["rank"][0] == 0
    assert np.all(np.sum(sizes > 1.5, axis=1) <= found)
    assert np.all(found <= np.sum(sizes > 1 / 1.5, axis=1))
    assert noise or np.all(found <= 3)


@solvers
@pytest.mark.parametrize("iterations", [0, 1, 7])
def test_budgets_are_exact(solve, iterations):
    case = low_rank_case(0, (30, 25), 2, noise=0.1)
    start = fitted_start(case.observations, 4, depth=3)
    recovery = solve(case.observations, start, iterations=iterations)
    assert recovery.history.iteration.tolist() == list(range(iterations + 1))
    assert set(recovery.history) == {"iteration", "loss", "seconds", "noise", "rank"}
    assert recovery.outcome is Outcome.BUDGET
    assert (recovery.network.depth, recovery.network.widths) == (3, (4, 4))
    assert_finite(recovery)


def ends(solve, noise, **options):
    case = low_rank_case(0, (40, 30), 2, noise=noise)
    recovery = solve(case.observations, fitted_start(case.observations, 4), **options)
    assert recovery.success == (recovery.outcome is not Outcome.CONTRADICTED)
    return recovery, case


def test_the_status_says_that_noise_settled():
    assert ends(dmf.solvers.variational_bayes, 0.1)[0].outcome is Outcome.NOISE_SETTLED


def test_the_status_says_that_no_noise_was_seen():
    """The level, a variance, is then at 1e-5 of the mean square, at most one halving below."""
    recovery, case = ends(dmf.solvers.variational_bayes, 0.0)
    assert recovery.outcome is Outcome.NO_NOISE
    assert 0.5e-5 < recovery.findings["noise"] ** 2 / np.mean(case.values**2) <= 1e-5


def test_the_status_says_that_the_residual_contradicts_the_level():
    """Its mean square is then ten times the level, and more."""
    recovery, _ = ends(dmf.solvers.continuation, 0.1)
    assert recovery.outcome is Outcome.CONTRADICTED
    assert 2 * recovery.history.loss[-1] > 10 * recovery.findings["noise"] ** 2


@pytest.mark.parametrize("until", [1e-3, 1e-8])
def test_the_status_says_that_the_path_ended(until):
    recovery, case = ends(dmf.solvers.continuation, 0.0, until=until)
    assert recovery.outcome is Outcome.PATH_END
    assert 0.7 * until < recovery.findings["noise"] ** 2 / np.mean(case.values**2) <= until


@solvers
@pytest.mark.parametrize("kind", ["entries", "matrix"])
def test_zeros_are_recognised_at_once(solve, kind):
    zeros = np.zeros((6, 5))
    observations = dmf.FullMatrix(zeros) if kind == "matrix" else dmf.SampledEntries.from_dense(zeros)
    network = dmf.DeepLinearNetwork((np.ones((2, 5)), np.ones((6, 2))))
    recovery = solve(observations, network)
    assert recovery.success
    assert recovery.outcome is Outcome.TRIVIAL
    assert recovery.history.iteration.tolist() == [0]
    assert (recovery.findings["rank"], recovery.findings["noise"]) == (0, 0.0)
    np.testing.assert_array_equal(recovery.network.product(), 0)


@pytest.mark.parametrize(
    ("option", "value", "limit"),
    [
        ("decay", 1.0, (0, 1)),
        ("decay", 1.5, (0, 1)),
        ("decay", 0.0, 0),
        ("floor", 0.0, 0),
        ("floor", -0.1, 0),
        ("until", 0.0, 0),
        ("until", float("nan"), 0),
        ("sweeps", 0, 1),
        ("sweeps", 1.5, 1),
        ("iterations", -1, 0),
    ],
)
def test_options_out_of_range(option, value, limit):
    case = low_rank_case(0, (12, 10), 1)
    with pytest.raises(dmf.errors.ArgumentError, match=option) as caught:
        dmf.solvers.continuation(case.observations, fitted_start(case.observations, 2), **{option: value})
    assert (caught.value.argument, caught.value.limit) == (option, limit)
    assert caught.value.value is value


@pytest.mark.slow
@solvers
def test_results_do_not_depend_on_the_number_of_threads(solve):
    """Bit for bit; 20,000 samples at width 6 are work enough for the parallel kernels."""
    case = low_rank_case(0, (300, 250), 4, oversampling=20_000 / 2_184, noise=0.1)
    runs = []
    for count in (1, thread_count()):
        with dmf.threads(count):
            runs.append(solve(case.observations, fitted_start(case.observations, 6), iterations=8))
    assert_same_weights(*runs)
    for name in set(runs[0].history) - {"seconds"}:
        np.testing.assert_array_equal(runs[0].history[name], runs[1].history[name])


def test_a_path_ends_where_it_needs_more_components_than_it_may():
    """A full matrix of noise has no rank below its size, so that the path passes any bound below that on its way down."""
    noise = dmf.SampledEntries.from_dense(np.random.default_rng(0).standard_normal((30, 6)))
    start = fitted_start(noise, 6)
    for most in (1, 3):
        done = run(Continuation(most=most), noise, start, iterations=500)
        assert done.outcome is Outcome.OVERFITTED and done.findings["rank"] > most
        assert np.all(done.history["rank"][:-1] <= most)
    assert run(Continuation(most=6), noise, start, iterations=500).outcome is not Outcome.OVERFITTED
